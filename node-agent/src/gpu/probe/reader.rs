//! One look at one GPU.

use berth_types::telemetry::{
    GpuCondition, GpuEcc, GpuMemory, GpuMig, GpuNvlink, GpuPcie, GpuProcess, GpuReading, GpuRows,
    MigDevice,
};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PcieUtilCounter, PerformancePolicy, TemperatureSensor,
};
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;

use super::asker::{Asker, Gone};
use super::process;

/// Most links of one GPU that are asked for.
const MAX_LINKS: u32 = 64;
/// Most parts of one GPU.
const MAX_MIG_DEVICES: u32 = 16;

/// Readings that come by number, in one call.
const FIELDS: [u32; 9] = [
    field_id::NVML_FI_DEV_MEMORY_TEMP,
    field_id::NVML_FI_DEV_REMAPPED_COR,
    field_id::NVML_FI_DEV_REMAPPED_UNC,
    field_id::NVML_FI_DEV_REMAPPED_PENDING,
    field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
    field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
];

/// Everything of it that is supported.
pub(super) fn read(
    asker: &mut Asker,
    device: &Device,
    known: &mut process::Known,
) -> Result<GpuReading, Gone> {
    let mut reading = GpuReading {
        condition: GpuCondition::Answering,
        ..GpuReading::default()
    };
    // First of all, because it decides whether the GPU can be handed out.
    reading.processes = processes(asker, device, known)?;
    let memory = asker.ask("nvmlDeviceGetMemoryInfo", || device.memory_info())?;
    reading.memory = memory.map(|memory| GpuMemory {
        total_bytes: memory.total,
        used_bytes: memory.used,
        free_bytes: memory.free,
        reserved_bytes: memory.reserved,
    });
    utilisation(asker, device, &mut reading)?;
    heat_and_clocks(asker, device, &mut reading)?;
    reading.ecc = ecc(asker, device)?;
    reading.pcie = pcie(asker, device)?;
    let [
        memory_temp,
        corrected,
        uncorrected,
        pending,
        failed,
        totals @ ..,
    ] = fields(asker, device)?;
    reading.mem_temp_c = memory_temp.and_then(|t| u32::try_from(t).ok());
    reading.rows = GpuRows {
        corrected,
        uncorrected,
        pending: pending.map(|n| n != 0),
        failed: failed.map(|n| n != 0),
    };
    reading.nvlink = nvlink(asker, device, totals)?;
    reading.mig = mig(asker, device)?;
    Ok(reading)
}

fn utilisation(asker: &mut Asker, device: &Device, reading: &mut GpuReading) -> Result<(), Gone> {
    if let Some(rates) = asker.ask("nvmlDeviceGetUtilizationRates", || {
        device.utilization_rates()
    })? {
        reading.gpu_util_pct = Some(rates.gpu);
        reading.mem_util_pct = Some(rates.memory);
    }
    let encoder = asker.ask("nvmlDeviceGetEncoderUtilization", || {
        device.encoder_utilization()
    })?;
    reading.encoder_util_pct = encoder.map(|e| e.utilization);
    let decoder = asker.ask("nvmlDeviceGetDecoderUtilization", || {
        device.decoder_utilization()
    })?;
    reading.decoder_util_pct = decoder.map(|d| d.utilization);
    Ok(())
}

fn heat_and_clocks(
    asker: &mut Asker,
    device: &Device,
    reading: &mut GpuReading,
) -> Result<(), Gone> {
    reading.temp_c = asker.ask("nvmlDeviceGetTemperature", || {
        device.temperature(TemperatureSensor::Gpu)
    })?;
    reading.power_mw = asker.ask("nvmlDeviceGetPowerUsage", || device.power_usage())?;
    reading.power_limit_mw = asker.ask("nvmlDeviceGetEnforcedPowerLimit", || {
        device.enforced_power_limit()
    })?;
    reading.energy_mj = asker.ask("nvmlDeviceGetTotalEnergyConsumption", || {
        device.total_energy_consumption()
    })?;
    reading.sm_mhz = asker.ask("nvmlDeviceGetClockInfo/sm", || device.clock_info(Clock::SM))?;
    reading.mem_mhz = asker.ask("nvmlDeviceGetClockInfo/memory", || {
        device.clock_info(Clock::Memory)
    })?;
    let throttle = asker.ask("nvmlDeviceGetCurrentClocksThrottleReasons", || {
        device.current_throttle_reasons()
    })?;
    reading.throttle = throttle.map(|reasons| reasons.bits());
    let pstate = asker.ask("nvmlDeviceGetPerformanceState", || {
        device.performance_state()
    })?;
    reading.pstate = pstate.map(|state| state.as_c());
    let held_by_power = asker.ask("nvmlDeviceGetViolationStatus/power", || {
        device.violation_status(PerformancePolicy::Power)
    })?;
    reading.power_violation_ns = held_by_power.map(|v| v.violation_time);
    let held_by_heat = asker.ask("nvmlDeviceGetViolationStatus/thermal", || {
        device.violation_status(PerformancePolicy::Thermal)
    })?;
    reading.thermal_violation_ns = held_by_heat.map(|v| v.violation_time);
    Ok(())
}

fn ecc(asker: &mut Asker, device: &Device) -> Result<GpuEcc, Gone> {
    let mut count = |name, error: MemoryError, counter: EccCounter| {
        asker.ask(name, || device.total_ecc_errors(error, counter))
    };
    Ok(GpuEcc {
        corrected_volatile: count(
            "nvmlDeviceGetTotalEccErrors/corrected/volatile",
            MemoryError::Corrected,
            EccCounter::Volatile,
        )?,
        uncorrected_volatile: count(
            "nvmlDeviceGetTotalEccErrors/uncorrected/volatile",
            MemoryError::Uncorrected,
            EccCounter::Volatile,
        )?,
        corrected_aggregate: count(
            "nvmlDeviceGetTotalEccErrors/corrected/aggregate",
            MemoryError::Corrected,
            EccCounter::Aggregate,
        )?,
        uncorrected_aggregate: count(
            "nvmlDeviceGetTotalEccErrors/uncorrected/aggregate",
            MemoryError::Uncorrected,
            EccCounter::Aggregate,
        )?,
    })
}

fn pcie(asker: &mut Asker, device: &Device) -> Result<GpuPcie, Gone> {
    Ok(GpuPcie {
        generation: asker.ask("nvmlDeviceGetCurrPcieLinkGeneration", || {
            device.current_pcie_link_gen()
        })?,
        width: asker.ask("nvmlDeviceGetCurrPcieLinkWidth", || {
            device.current_pcie_link_width()
        })?,
        tx_kb_per_s: asker.ask("nvmlDeviceGetPcieThroughput/tx", || {
            device.pcie_throughput(PcieUtilCounter::Send)
        })?,
        rx_kb_per_s: asker.ask("nvmlDeviceGetPcieThroughput/rx", || {
            device.pcie_throughput(PcieUtilCounter::Receive)
        })?,
        replays: asker
            .ask("nvmlDeviceGetPcieReplayCounter", || {
                device.pcie_replay_counter()
            })?
            .map(u64::from),
    })
}

fn fields(asker: &mut Asker, device: &Device) -> Result<[Option<u64>; FIELDS.len()], Gone> {
    let ids = FIELDS.map(FieldId);
    let mut values = [None; FIELDS.len()];
    let answers = asker.ask("nvmlDeviceGetFieldValues", || device.field_values_for(&ids))?;
    for (value, answer) in values.iter_mut().zip(answers.into_iter().flatten()) {
        *value = answer.ok().and_then(|a| a.value.ok()).and_then(number);
    }
    Ok(values)
}

fn number(value: SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(n) => Some(n.into()),
        SampleValue::U64(n) => Some(n),
        SampleValue::I64(n) => u64::try_from(n).ok(),
        SampleValue::F64(n) => (n >= 0.0).then_some(n as u64),
    }
}

/// Links and their errors. Where the driver has no totals, the errors of the links are added up.
fn nvlink(
    asker: &mut Asker,
    device: &Device,
    totals: [Option<u64>; 4],
) -> Result<Option<GpuNvlink>, Gone> {
    let mut nvlink = GpuNvlink::default();
    let mut up = Vec::new();
    for link in 0..MAX_LINKS {
        let link = device.link_wrapper_for(link);
        let Some(active) = asker.ask("nvmlDeviceGetNvLinkState", || match link.is_active() {
            // Beyond the last link; the first one answers whether there are any.
            Err(NvmlError::NotSupported) if nvlink.links > 0 => Err(NvmlError::InvalidArg),
            answer => answer,
        })?
        else {
            break;
        };
        nvlink.links += 1;
        if active {
            nvlink.up += 1;
            up.push(link);
        }
    }
    if nvlink.links == 0 {
        return Ok(None);
    }
    [
        nvlink.crc_flit,
        nvlink.crc_data,
        nvlink.replays,
        nvlink.recoveries,
    ] = totals;
    if totals.iter().all(Option::is_none) {
        let mut sum = |name, counter: ErrorCounter| {
            let mut sum = None;
            for link in &up {
                if let Some(n) = asker.ask(name, || link.error_counter(counter))? {
                    sum = Some(sum.unwrap_or(0u64).saturating_add(n));
                }
            }
            Ok(sum)
        };
        nvlink.crc_flit = sum(
            "nvmlDeviceGetNvLinkErrorCounter/flit",
            ErrorCounter::DlCrcFlit,
        )?;
        nvlink.crc_data = sum(
            "nvmlDeviceGetNvLinkErrorCounter/data",
            ErrorCounter::DlCrcData,
        )?;
        nvlink.replays = sum(
            "nvmlDeviceGetNvLinkErrorCounter/replay",
            ErrorCounter::DlReplay,
        )?;
        nvlink.recoveries = sum(
            "nvmlDeviceGetNvLinkErrorCounter/recovery",
            ErrorCounter::DlRecovery,
        )?;
    }
    Ok(Some(nvlink))
}

fn mig(asker: &mut Asker, device: &Device) -> Result<Option<GpuMig>, Gone> {
    let Some(mode) = asker.ask("nvmlDeviceGetMigMode", || device.mig_mode())? else {
        return Ok(None);
    };
    let mut mig = GpuMig {
        enabled: mode.current != 0,
        pending: mode.pending != 0,
        devices: Vec::new(),
    };
    if !mig.enabled {
        return Ok(Some(mig));
    }
    let count = asker.ask("nvmlDeviceGetMaxMigDeviceCount", || {
        device.mig_device_count()
    })?;
    for number in 0..count.unwrap_or(0).min(MAX_MIG_DEVICES) {
        // Not every number is taken.
        let part = asker.ask("nvmlDeviceGetMigDeviceHandleByIndex", || {
            device.mig_device_by_index(number)
        })?;
        let Some(part) = part else { continue };
        let Some(uuid) = asker.ask("nvmlDeviceGetUUID/mig", || part.uuid())? else {
            continue;
        };
        let slices = asker.ask("nvmlDeviceGetAttributes", || part.attributes())?;
        mig.devices.push(MigDevice {
            uuid,
            mem_bytes: slices.as_ref().map(|s| s.memory_size_mb << 20),
            gpu_slices: slices.as_ref().map(|s| s.gpu_instance_slice_count),
            compute_slices: slices.as_ref().map(|s| s.compute_instance_slice_count),
        });
    }
    Ok(Some(mig))
}

/// Compute processes, those under MPS, and those that draw.
fn processes(
    asker: &mut Asker,
    device: &Device,
    known: &mut process::Known,
) -> Result<Option<Vec<GpuProcess>>, Gone> {
    let lists = [
        asker.ask("nvmlDeviceGetComputeRunningProcesses", || {
            device.running_compute_processes()
        })?,
        asker.ask("nvmlDeviceGetMPSComputeRunningProcesses", || {
            device.mps_running_compute_processes()
        })?,
        asker.ask("nvmlDeviceGetGraphicsRunningProcesses", || {
            device.running_graphics_processes()
        })?,
    ];
    if lists[0].is_none() {
        return Ok(None);
    }
    let mut found: Vec<GpuProcess> = Vec::new();
    for info in lists.into_iter().flatten().flatten() {
        let mem_bytes = match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        match found.iter_mut().find(|p| p.pid == info.pid) {
            // In more than one list, it is the same memory.
            Some(twin) => twin.mem_bytes = twin.mem_bytes.max(mem_bytes),
            None => found.push(GpuProcess {
                mem_bytes,
                ..known.describe(info.pid)
            }),
        }
    }
    known.keep(&found);
    Ok(Some(found))
}
