//! NVLink and the way from one GPU to another.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as c;

use super::{INVALID, NOT_SUPPORTED, ask, pci, pci_at, put, value};
use crate::scenario::{Gpu, Nvlink};
use crate::scene::{self, Scene};

/// The bus of the switch that all links with `switch` lead to.
const SWITCH_BUS: u32 = 0xc0;

fn on_link<T>(
    call: &str,
    device: c::nvmlDevice_t,
    link: c_uint,
    question: impl FnOnce(&Scene, &Gpu, &Nvlink) -> Result<T, c::nvmlReturn_t>,
) -> Result<T, c::nvmlReturn_t> {
    ask(call, device, |scene, _, gpu| {
        let nvlink = gpu.nvlink.as_ref().ok_or(NOT_SUPPORTED)?;
        if link >= nvlink.links {
            return Err(INVALID);
        }
        question(scene, gpu, nvlink)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: c::nvmlDevice_t,
    link: c_uint,
    out: *mut c::nvmlEnableState_t,
) -> c::nvmlReturn_t {
    let answer = on_link("nvmlDeviceGetNvLinkState", device, link, |_, _, nvlink| {
        Ok(c::nvmlEnableState_t::from(link >= nvlink.down))
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: c::nvmlDevice_t,
    link: c_uint,
    out: *mut c::nvmlPciInfo_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetNvLinkRemotePciInfo_v2";
    let answer = on_link(call, device, link, |_, _, nvlink| {
        if nvlink.switch {
            return Ok(pci_at(0, SWITCH_BUS));
        }
        let turn = (link as usize).checked_rem(nvlink.peers.len());
        let peer = turn.and_then(|at| nvlink.peers.get(at));
        peer.map(|peer| pci(*peer)).ok_or(NOT_SUPPORTED)
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: c::nvmlDevice_t,
    link: c_uint,
    out: *mut c::nvmlIntNvLinkDeviceType_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetNvLinkRemoteDeviceType";
    let answer = on_link(call, device, link, |_, _, nvlink| {
        Ok(if nvlink.switch {
            c::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH
        } else {
            c::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: c::nvmlDevice_t,
    link: c_uint,
    counter: c::nvmlNvLinkErrorCounter_t,
    out: *mut u64,
) -> c::nvmlReturn_t {
    let name = match counter {
        c::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => "nvlink_replay",
        c::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => "nvlink_recovery",
        c::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => "nvlink_crc_flit",
        c::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_DATA => "nvlink_crc_data",
        _ => return NOT_SUPPORTED,
    };
    let call = "nvmlDeviceGetNvLinkErrorCounter";
    // All errors are the first link's, so that a sum over the links is what the scenario says.
    let answer = on_link(call, device, link, |scene, gpu, _| {
        let errors = value(scene, gpu, name)? as u64;
        Ok(if link == 0 { errors } else { 0 })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

/// GPUs of one NUMA node share a host bridge, others do not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    one: c::nvmlDevice_t,
    other: c::nvmlDevice_t,
    out: *mut c::nvmlGpuTopologyLevel_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetTopologyCommonAncestor";
    let numa = |device| ask(call, device, |_, _, gpu| Ok(gpu.numa));
    let answer = scene::enter(call).and_then(|_| match (numa(one)?, numa(other)?) {
        (Some(a), Some(b)) if a != b => Ok(c::nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM),
        _ => Ok(c::nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE),
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

/// Only NVLink is asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    one: c::nvmlDevice_t,
    other: c::nvmlDevice_t,
    _index: c::nvmlGpuP2PCapsIndex_t,
    out: *mut c::nvmlGpuP2PStatus_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetP2PStatus";
    let links = |device| {
        ask(call, device, |_, index, gpu| {
            Ok((index, gpu.nvlink.clone()))
        })
    };
    let answer = scene::enter(call).and_then(|_| {
        let ((_, a), (b, other)) = (links(one)?, links(other)?);
        let joined = match (a, other) {
            (Some(a), Some(other)) => a.switch && other.switch || a.peers.contains(&b),
            _ => false,
        };
        Ok(if joined {
            c::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        } else {
            c::nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}
