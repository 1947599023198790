//! The exported functions, one file per kind.
//!
//! All of them are `unsafe`, because C hands them pointers. What each relies on is what NVML's own documentation asks of
//! a caller: an out-pointer is null or points to a writable value of its type, a buffer has the length that is given with
//! it, and a device handle came from this library (handles are numbers here and are never followed).
#![allow(unsafe_code)]
// The contract is NVML's own and the same for each of them: see above.
#![allow(clippy::missing_safety_doc, non_snake_case, missing_docs)]

pub mod events;
pub mod fields;
pub mod links;
pub mod processes;
pub mod readings;
pub mod system;

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings as c;

use crate::scenario::Gpu;
use crate::scene::{self, Scene};

type Answer<T> = Result<T, c::nvmlReturn_t>;

const OK: c::nvmlReturn_t = c::nvmlReturn_enum_NVML_SUCCESS;
const NOT_SUPPORTED: c::nvmlReturn_t = c::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const INVALID: c::nvmlReturn_t = c::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const NOT_FOUND: c::nvmlReturn_t = c::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;

/// First handle of MIG devices; those of GPUs are small numbers.
const MIG_HANDLES: usize = 0x1_0000;

/// Writes a value through C's pointer.
unsafe fn put<T>(out: *mut T, answer: Answer<T>) -> c::nvmlReturn_t {
    match answer {
        Ok(_) if out.is_null() => INVALID,
        Ok(value) => {
            // SAFETY: not null, and the caller of an NVML function hands a writable value of this type.
            unsafe { out.write(value) };
            OK
        }
        Err(code) => code,
    }
}

/// Writes a text with its closing zero into C's buffer.
unsafe fn put_text(out: *mut c_char, length: c_uint, answer: Answer<String>) -> c::nvmlReturn_t {
    let text = match answer {
        Ok(text) => text,
        Err(code) => return code,
    };
    if out.is_null() || text.len() >= length as usize {
        return c::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller says that the buffer has `length` bytes, and the text with its zero has no more.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    OK
}

/// Enters a call on a GPU and asks it something.
fn ask<T>(
    call: &str,
    device: c::nvmlDevice_t,
    question: impl FnOnce(&Scene, u32, &Gpu) -> Answer<T>,
) -> Answer<T> {
    let (scene, index) = scene::enter_on(call, device)?;
    let gpu = scene.scenario.gpu.get(index as usize).ok_or(INVALID)?;
    question(&scene, index, gpu)
}

/// A reading by its name.
fn reading(call: &str, device: c::nvmlDevice_t, name: &str) -> Answer<f64> {
    ask(call, device, |scene, _, gpu| value(scene, gpu, name))
}

fn value(scene: &Scene, gpu: &Gpu, name: &str) -> Answer<f64> {
    let curve = gpu.values.get(name).ok_or(NOT_SUPPORTED)?;
    Ok(curve.at(scene.seconds()))
}

/// The handle of a GPU.
fn handle(index: u32) -> c::nvmlDevice_t {
    (index as usize + 1) as c::nvmlDevice_t
}

/// Where a GPU sits on the bus.
fn pci(index: u32) -> c::nvmlPciInfo_t {
    let bus = 0x0a + index * 0x10;
    pci_at(0, bus)
}

fn pci_at(domain: u32, bus: u32) -> c::nvmlPciInfo_t {
    let long = format!("{domain:08X}:{bus:02X}:00.0");
    let short = format!("{domain:04X}:{bus:02X}:00.0");
    let mut info = c::nvmlPciInfo_t {
        busIdLegacy: [0; 16],
        domain,
        bus,
        device: 0,
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0x16c1_10de,
        busId: [0; 32],
    };
    for (to, from) in info.busId.iter_mut().zip(long.bytes()) {
        *to = from as c_char;
    }
    for (to, from) in info.busIdLegacy.iter_mut().zip(short.bytes()) {
        *to = from as c_char;
    }
    info
}
