//! Readings of one GPU.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as c;

use super::{INVALID, NOT_SUPPORTED, OK, ask, put, reading, value};

/// Functions that hand out one number under one name.
macro_rules! numbers {
    ($($function:ident: $type:ty = $name:literal;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(
            device: c::nvmlDevice_t,
            out: *mut $type,
        ) -> c::nvmlReturn_t {
            let answer = reading(stringify!($function), device, $name);
            // SAFETY: passes on the caller's pointer.
            unsafe { put(out, answer.map(|value| value as $type)) }
        }
    )*};
}

numbers! {
    nvmlDeviceGetPowerUsage: c_uint = "power_mw";
    nvmlDeviceGetEnforcedPowerLimit: c_uint = "power_limit_mw";
    nvmlDeviceGetTotalEnergyConsumption: u64 = "energy_mj";
    nvmlDeviceGetCurrentClocksThrottleReasons: u64 = "throttle";
    nvmlDeviceGetCurrentClocksEventReasons: u64 = "throttle";
    nvmlDeviceGetPerformanceState: c::nvmlPstates_t = "pstate";
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = "pcie_gen";
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = "pcie_width";
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = "pcie_max_gen";
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = "pcie_max_width";
    nvmlDeviceGetPcieReplayCounter: c_uint = "pcie_replays";
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: c::nvmlDevice_t,
    out: *mut c::nvmlUtilization_t,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetUtilizationRates", device, |scene, _, gpu| {
        Ok(c::nvmlUtilization_t {
            gpu: value(scene, gpu, "gpu_util")? as c_uint,
            memory: value(scene, gpu, "mem_util")? as c_uint,
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

unsafe fn sampled(
    call: &str,
    device: c::nvmlDevice_t,
    name: &str,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> c::nvmlReturn_t {
    let answer = reading(call, device, name).map(|v| v as c_uint);
    // SAFETY: passes on the caller's pointers.
    unsafe {
        match put(utilization, answer) {
            OK => put(period_us, Ok(167_000)),
            code => code,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: c::nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetEncoderUtilization";
    // SAFETY: passes on the caller's pointers.
    unsafe { sampled(call, device, "encoder_util", utilization, period_us) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: c::nvmlDevice_t,
    utilization: *mut c_uint,
    period_us: *mut c_uint,
) -> c::nvmlReturn_t {
    let call = "nvmlDeviceGetDecoderUtilization";
    // SAFETY: passes on the caller's pointers.
    unsafe { sampled(call, device, "decoder_util", utilization, period_us) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: c::nvmlDevice_t,
    out: *mut c::nvmlMemory_v2_t,
) -> c::nvmlReturn_t {
    let version = (size_of::<c::nvmlMemory_v2_t>() | (2 << 24)) as c_uint;
    // SAFETY: NVML asks the caller to fill in `version`, so there is a value to read.
    if out.is_null() || unsafe { (*out).version } != version {
        return INVALID;
    }
    let answer = ask("nvmlDeviceGetMemoryInfo_v2", device, |scene, _, gpu| {
        let used = value(scene, gpu, "mem_used")? as u64;
        let reserved = value(scene, gpu, "mem_reserved").unwrap_or(0.0) as u64;
        Ok(c::nvmlMemory_v2_t {
            version,
            total: gpu.memory,
            reserved,
            free: gpu.memory.saturating_sub(used + reserved),
            used,
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: c::nvmlDevice_t,
    _sensor: c::nvmlTemperatureSensors_t,
    out: *mut c_uint,
) -> c::nvmlReturn_t {
    let answer = reading("nvmlDeviceGetTemperature", device, "temp_c");
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: c::nvmlDevice_t,
    threshold: c::nvmlTemperatureThresholds_t,
    out: *mut c_uint,
) -> c::nvmlReturn_t {
    let name = match threshold {
        c::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => "shutdown_temp_c",
        c::nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => "slowdown_temp_c",
        _ => return NOT_SUPPORTED,
    };
    let answer = reading("nvmlDeviceGetTemperatureThreshold", device, name);
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: c::nvmlDevice_t,
    clock: c::nvmlClockType_t,
    out: *mut c_uint,
) -> c::nvmlReturn_t {
    let name = match clock {
        c::nvmlClockType_enum_NVML_CLOCK_GRAPHICS => "graphics_mhz",
        c::nvmlClockType_enum_NVML_CLOCK_SM => "sm_mhz",
        c::nvmlClockType_enum_NVML_CLOCK_MEM => "mem_mhz",
        _ => return NOT_SUPPORTED,
    };
    let answer = reading("nvmlDeviceGetClockInfo", device, name);
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: c::nvmlDevice_t,
    clock: c::nvmlClockType_t,
    out: *mut c_uint,
) -> c::nvmlReturn_t {
    if clock != c::nvmlClockType_enum_NVML_CLOCK_SM {
        return NOT_SUPPORTED;
    }
    let answer = reading("nvmlDeviceGetMaxClockInfo", device, "max_sm_mhz");
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: c::nvmlDevice_t,
    error: c::nvmlMemoryErrorType_t,
    counter: c::nvmlEccCounterType_t,
    out: *mut u64,
) -> c::nvmlReturn_t {
    let corrected = error == c::nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED;
    let volatile = counter == c::nvmlEccCounterType_enum_NVML_VOLATILE_ECC;
    let name = match (corrected, volatile) {
        (true, true) => "ecc_corrected_volatile",
        (true, false) => "ecc_corrected_aggregate",
        (false, true) => "ecc_uncorrected_volatile",
        (false, false) => "ecc_uncorrected_aggregate",
    };
    let answer = reading("nvmlDeviceGetTotalEccErrors", device, name);
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as u64)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieThroughput(
    device: c::nvmlDevice_t,
    counter: c::nvmlPcieUtilCounter_t,
    out: *mut c_uint,
) -> c::nvmlReturn_t {
    let name = match counter {
        c::nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_TX_BYTES => "pcie_tx_kbs",
        _ => "pcie_rx_kbs",
    };
    let answer = reading("nvmlDeviceGetPcieThroughput", device, name);
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer.map(|v| v as c_uint)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetViolationStatus(
    device: c::nvmlDevice_t,
    policy: c::nvmlPerfPolicyType_t,
    out: *mut c::nvmlViolationTime_t,
) -> c::nvmlReturn_t {
    let name = match policy {
        c::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_POWER => "power_violation_ns",
        c::nvmlPerfPolicyType_enum_NVML_PERF_POLICY_THERMAL => "thermal_violation_ns",
        _ => return NOT_SUPPORTED,
    };
    let answer = ask("nvmlDeviceGetViolationStatus", device, |scene, _, gpu| {
        Ok(c::nvmlViolationTime_t {
            referenceTime: (scene.seconds() * 1e6) as u64,
            violationTime: value(scene, gpu, name)? as u64,
        })
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}
