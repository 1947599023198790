//! What a GPU is.

use berth_types::telemetry::GpuIdentity;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::asker::{Asker, Gone};

/// Words of 64 NUMA nodes that are asked for.
const AFFINITY_WORDS: usize = 16;
/// NVML's scope of one NUMA node.
const NODE_SCOPE: u32 = 0;

/// The GPU with that number.
pub(super) fn find(
    asker: &mut Asker,
    nvml: &'static Nvml,
    index: u16,
) -> Result<(Device<'static>, GpuIdentity), Gone> {
    let found = asker.try_ask("nvmlDeviceGetHandleByIndex", || {
        nvml.device_by_index(index.into())
    });
    let device = found.map_err(|error| match error {
        NvmlError::GpuLost | NvmlError::InvalidArg | NvmlError::NotFound => Gone::Lost,
        NvmlError::ResetRequired => Gone::ResetRequired,
        _ => Gone::Failing,
    })?;
    // Without its name nothing can be said of it.
    let uuid = asker.ask("nvmlDeviceGetUUID", || device.uuid())?;
    let uuid = uuid.filter(|uuid| !uuid.is_empty()).ok_or(Gone::Failing)?;
    let pci = asker.ask("nvmlDeviceGetPciInfo", || device.pci_info())?;
    let pci_bus_id = pci.map(|pci| short_bus_id(&pci.bus_id));
    let identity = GpuIdentity {
        index,
        uuid,
        name: asker
            .ask("nvmlDeviceGetName", || device.name())?
            .unwrap_or_default(),
        minor: asker.ask("nvmlDeviceGetMinorNumber", || device.minor_number())?,
        mem_bytes: asker
            .ask("nvmlDeviceGetMemoryInfo", || device.memory_info())?
            .map(|memory| memory.total),
        numa: numa(asker, &device, pci_bus_id.as_deref())?,
        pci_bus_id,
        pcie_max_gen: asker.ask("nvmlDeviceGetMaxPcieLinkGeneration", || {
            device.max_pcie_link_gen()
        })?,
        pcie_max_width: asker.ask("nvmlDeviceGetMaxPcieLinkWidth", || {
            device.max_pcie_link_width()
        })?,
        max_sm_mhz: asker.ask("nvmlDeviceGetMaxClockInfo", || {
            device.max_clock_info(Clock::SM)
        })?,
        slowdown_temp_c: asker.ask("nvmlDeviceGetTemperatureThreshold/slowdown", || {
            device.temperature_threshold(TemperatureThreshold::Slowdown)
        })?,
        shutdown_temp_c: asker.ask("nvmlDeviceGetTemperatureThreshold/shutdown", || {
            device.temperature_threshold(TemperatureThreshold::Shutdown)
        })?,
    };
    Ok((device, identity))
}

/// The host's NUMA node. (`nvmlDeviceGetNumaNodeId` is the node of the GPU's own memory, on machines where it has one.)
fn numa(asker: &mut Asker, device: &Device, bus_id: Option<&str>) -> Result<Option<u16>, Gone> {
    let nodes = asker.ask("nvmlDeviceGetMemoryAffinity", || {
        device.memory_affinity(AFFINITY_WORDS, NODE_SCOPE)
    })?;
    let first = nodes.and_then(|words| {
        let at = words.iter().position(|word| *word != 0)?;
        u16::try_from(at as u32 * 64 + words.get(at)?.trailing_zeros()).ok()
    });
    Ok(first.or_else(|| {
        let path = format!("/sys/bus/pci/devices/{}/numa_node", bus_id?);
        // -1 where the machine has no such thing.
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }))
}

/// `0000:3b:00.0` as the kernel writes it; the library has a longer domain and capitals.
fn short_bus_id(long: &str) -> String {
    let text = long.to_ascii_lowercase();
    match text.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => {
            format!("{}:{rest}", &domain[4..])
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::short_bus_id;

    #[test]
    fn bus_ids_are_the_kernels() {
        for (long, short) in [
            ("00000000:3B:00.0", "0000:3b:00.0"),
            ("00010001:3B:00.0", "00010001:3b:00.0"),
            ("0000:3b:00.0", "0000:3b:00.0"),
            ("", ""),
        ] {
            assert_eq!(short_bus_id(long), short);
        }
    }
}
