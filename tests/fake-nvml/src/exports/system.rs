//! Start, end, and what the machine has.

use std::ffi::{c_char, c_int, c_uint, c_ulong};

use nvml_wrapper_sys::bindings as c;

use super::{INVALID, MIG_HANDLES, NOT_FOUND, NOT_SUPPORTED, OK, ask, handle, pci, put, put_text};
use crate::scene;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> c::nvmlReturn_t {
    match scene::enter("nvmlInit_v2") {
        Ok(scene) if !scene.scenario.driver_loaded => {
            c::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED
        }
        Ok(_) => OK,
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> c::nvmlReturn_t {
    // SAFETY: takes nothing.
    unsafe { nvmlInit_v2() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> c::nvmlReturn_t {
    scene::enter("nvmlShutdown").map_or_else(|code| code, |_| OK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> c::nvmlReturn_t {
    let answer = scene::enter("nvmlSystemGetDriverVersion");
    // SAFETY: passes on the caller's buffer.
    unsafe {
        put_text(
            version,
            length,
            answer.map(|s| s.scenario.driver_version.clone()),
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    version: *mut c_char,
    length: c_uint,
) -> c::nvmlReturn_t {
    let answer = scene::enter("nvmlSystemGetNVMLVersion");
    // SAFETY: passes on the caller's buffer.
    unsafe {
        put_text(
            version,
            length,
            answer.map(|s| format!("12.{}", s.scenario.driver_version)),
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> c::nvmlReturn_t {
    let answer = scene::enter("nvmlSystemGetCudaDriverVersion_v2");
    // SAFETY: passes on the caller's pointer.
    unsafe { put(version, answer.map(|_| 12_080)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c::nvmlReturn_t {
    let answer = scene::enter("nvmlDeviceGetCount_v2");
    // SAFETY: passes on the caller's pointer.
    unsafe { put(count, answer.map(|s| s.scenario.gpu.len() as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut c::nvmlDevice_t,
) -> c::nvmlReturn_t {
    let answer = scene::enter_on("nvmlDeviceGetHandleByIndex_v2", handle(index));
    // SAFETY: passes on the caller's pointer.
    unsafe { put(device, answer.map(|(_, index)| handle(index))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    device: c::nvmlDevice_t,
    name: *mut c_char,
    length: c_uint,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetName", device, |_, _, gpu| {
        Ok(gpu.name.clone())
    });
    // SAFETY: passes on the caller's buffer.
    unsafe { put_text(name, length, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: c::nvmlDevice_t,
    uuid: *mut c_char,
    length: c_uint,
) -> c::nvmlReturn_t {
    let answer = match mig(device) {
        Some((parent, number)) => ask("nvmlDeviceGetUUID", parent, |_, index, _| {
            Ok(format!(
                "MIG-fa4e0000-0000-4000-8001-{index:06x}{number:06x}"
            ))
        }),
        None => ask("nvmlDeviceGetUUID", device, |_, _, gpu| {
            gpu.uuid.clone().ok_or(NOT_SUPPORTED)
        }),
    };
    // SAFETY: passes on the caller's buffer.
    unsafe { put_text(uuid, length, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: c::nvmlDevice_t,
    info: *mut c::nvmlPciInfo_t,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetPciInfo_v3", device, |_, index, _| {
        Ok(pci(index))
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(info, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(
    device: c::nvmlDevice_t,
    minor: *mut c_uint,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetMinorNumber", device, |_, index, _| Ok(index));
    // SAFETY: passes on the caller's pointer.
    unsafe { put(minor, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: c::nvmlDevice_t,
    size: c_uint,
    nodes: *mut c_ulong,
    _scope: c::nvmlAffinityScope_t,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetMemoryAffinity", device, |_, _, gpu| {
        gpu.numa.ok_or(NOT_SUPPORTED)
    });
    let node = match answer {
        Ok(node) if node / 64 < size && !nodes.is_null() => node,
        Ok(_) => return INVALID,
        Err(code) => return code,
    };
    for word in 0..size {
        let bits = if word == node / 64 {
            1 << (node % 64)
        } else {
            0
        };
        // SAFETY: the caller says that there is room for `size` words.
        unsafe { nodes.add(word as usize).write(bits) };
    }
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: c::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> c::nvmlReturn_t {
    let answer = super::reading("nvmlDeviceGetMigMode", device, "mig_mode").map(|v| v as c_uint);
    // SAFETY: passes on the caller's pointers.
    unsafe {
        match put(current, answer) {
            OK => put(pending, answer),
            code => code,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: c::nvmlDevice_t,
    count: *mut c_uint,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetMaxMigDeviceCount", device, |_, _, gpu| {
        Ok(if gpu.values.contains_key("mig_mode") {
            7
        } else {
            0
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(count, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: c::nvmlDevice_t,
    number: c_uint,
    out: *mut c::nvmlDevice_t,
) -> c::nvmlReturn_t {
    let answer = ask(
        "nvmlDeviceGetMigDeviceHandleByIndex",
        device,
        |_, index, gpu| {
            let there = gpu.mig.len() > number as usize;
            let handle = MIG_HANDLES + index as usize * 64 + number as usize;
            there.then_some(handle as c::nvmlDevice_t).ok_or(NOT_FOUND)
        },
    );
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: c::nvmlDevice_t,
    attributes: *mut c::nvmlDeviceAttributes_t,
) -> c::nvmlReturn_t {
    let answer = mig(device).ok_or(INVALID).and_then(|(parent, number)| {
        ask("nvmlDeviceGetAttributes_v2", parent, |_, _, gpu| {
            let mig = gpu.mig.get(number).ok_or(NOT_FOUND)?;
            Ok(c::nvmlDeviceAttributes_t {
                multiprocessorCount: 16,
                sharedCopyEngineCount: 1,
                sharedDecoderCount: 1,
                sharedEncoderCount: 0,
                sharedJpegCount: 1,
                sharedOfaCount: 0,
                gpuInstanceSliceCount: mig.gpu_instance,
                computeInstanceSliceCount: mig.compute_instance,
                memorySizeMB: mig.memory_mib,
            })
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(attributes, answer) }
}

/// The GPU of a MIG device's handle, and the device's number.
fn mig(device: c::nvmlDevice_t) -> Option<(c::nvmlDevice_t, usize)> {
    let number = (device as usize).checked_sub(MIG_HANDLES)?;
    let index = u32::try_from(number / 64).ok()?;
    Some((handle(index), number % 64))
}
