//! Processes on a GPU.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as c;

use super::{INVALID, OK, ask};
use crate::scenario::within;

/// What NVML says where the memory of a process is not known.
const NOT_AVAILABLE: u64 = u64::MAX;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: c::nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut c::nvmlProcessInfo_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetComputeRunningProcesses_v3";
    let answer = ask(call, device, |scene, _, gpu| {
        let seconds = scene.seconds();
        let there = gpu.process.iter().filter(|p| {
            within(seconds, p.from, p.until)
                && std::path::Path::new("/proc")
                    .join(p.pid.to_string())
                    .exists()
        });
        let infos = there.map(|p| c::nvmlProcessInfo_t {
            pid: p.pid,
            usedGpuMemory: p.memory.unwrap_or(NOT_AVAILABLE),
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        });
        Ok(infos.collect::<Vec<_>>())
    });
    // SAFETY: passes on the caller's pointers.
    unsafe { put_list(count, infos, answer) }
}

/// No MPS here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: c::nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut c::nvmlProcessInfo_t,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetMPSComputeRunningProcesses_v3";
    // SAFETY: passes on the caller's pointers.
    unsafe { put_list(count, infos, ask(call, device, |_, _, _| Ok(Vec::new()))) }
}

unsafe fn put_list(
    count: *mut c_uint,
    infos: *mut c::nvmlProcessInfo_t,
    answer: Result<Vec<c::nvmlProcessInfo_t>, c::nvmlReturn_t>,
) -> c::nvmlReturn_t {
    let list = match answer {
        Ok(list) => list,
        Err(code) => return code,
    };
    if count.is_null() {
        return INVALID;
    }
    // SAFETY: not null; the caller says in it how many `infos` there is room for, and reads from it how many there are.
    let room = unsafe { count.replace(list.len() as c_uint) } as usize;
    if room < list.len() || infos.is_null() && !list.is_empty() {
        return c::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (at, info) in list.into_iter().enumerate() {
        // SAFETY: there is room for all of them.
        unsafe { infos.add(at).write(info) };
    }
    OK
}
