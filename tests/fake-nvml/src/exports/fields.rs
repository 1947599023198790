//! Readings by number.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings as c;
use nvml_wrapper_sys::bindings::field_id;

use super::{INVALID, NOT_SUPPORTED, OK, ask, value};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: c::nvmlDevice_t,
    count: c_int,
    values: *mut c::nvmlFieldValue_t,
) -> c::nvmlReturn_t {
    let Ok(count) = usize::try_from(count) else {
        return INVALID;
    };
    if values.is_null() {
        return INVALID;
    }
    let answer = ask("nvmlDeviceGetFieldValues", device, |scene, _, gpu| {
        for at in 0..count {
            // SAFETY: the caller hands `count` values and filled in which fields it wants.
            let field = unsafe { &mut *values.add(at) };
            let found = name(field.fieldId).ok_or(NOT_SUPPORTED);
            match found.and_then(|name| value(scene, gpu, name)) {
                Ok(value) => {
                    field.nvmlReturn = OK;
                    field.valueType = c::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    field.value = c::nvmlValue_t {
                        ullVal: value as u64,
                    };
                }
                Err(code) => field.nvmlReturn = code,
            }
        }
        Ok(())
    });
    answer.map_or_else(|code| code, |()| OK)
}

fn name(field: u32) -> Option<&'static str> {
    Some(match field {
        field_id::NVML_FI_DEV_MEMORY_TEMP => "mem_temp_c",
        field_id::NVML_FI_DEV_REMAPPED_COR => "rows_corrected",
        field_id::NVML_FI_DEV_REMAPPED_UNC => "rows_uncorrected",
        field_id::NVML_FI_DEV_REMAPPED_PENDING => "rows_pending",
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => "rows_failed",
        field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => "nvlink_crc_flit",
        field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL => "nvlink_crc_data",
        field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL => "nvlink_replay",
        field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL => "nvlink_recovery",
        _ => return None,
    })
}
