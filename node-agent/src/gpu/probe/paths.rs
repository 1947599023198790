//! How GPUs reach each other.

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use berth_types::telemetry::{GpuPath, PciePath};
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};
use nvml_wrapper::{Device, Nvml};

use super::asker::Slot;
use super::{Shared, say};
use crate::gpu::line::Line;

/// How long GPUs that have not answered yet are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most links of one GPU that are asked for.
const MAX_LINKS: u32 = 64;

/// Tells the paths between all GPUs that answer, and again when another one does.
pub(super) fn tell(shared: &Shared, nvml: &'static Nvml, count: u16, found: &Receiver<u16>) {
    let slot = shared.slot(None);
    let mut known = BTreeSet::new();
    while known.len() < usize::from(count) {
        let next = if known.is_empty() {
            found.recv().ok()
        } else {
            found.recv_timeout(PATIENCE).ok()
        };
        match next {
            Some(index) => drop(known.insert(index)),
            None => break,
        }
    }
    loop {
        let paths = paths(&slot, nvml, &known);
        say(&Line::Paths { paths });
        match found.recv() {
            Ok(late) => drop(known.insert(late)),
            Err(_) => return,
        }
    }
}

fn paths(slot: &Slot, nvml: &'static Nvml, known: &BTreeSet<u16>) -> Vec<GpuPath> {
    let devices: Vec<(u16, Device<'static>, BTreeSet<String>)> = known
        .iter()
        .filter_map(|index| {
            let device = handle(slot, nvml, *index)?;
            let ends = link_ends(slot, &device);
            Some((*index, device, ends))
        })
        .collect();
    let mut paths = Vec::new();
    for (at, (a, one, one_ends)) in devices.iter().enumerate() {
        for (b, other, other_ends) in devices.iter().skip(at + 1) {
            paths.push(GpuPath {
                a: *a,
                b: *b,
                nvlink: peers(slot, one, other) || !one_ends.is_disjoint(other_ends),
                pcie: pcie(slot, nvml, one, *b),
            });
        }
    }
    paths
}

fn handle(slot: &Slot, nvml: &'static Nvml, index: u16) -> Option<Device<'static>> {
    slot.during("nvmlDeviceGetHandleByIndex", || {
        nvml.device_by_index(index.into())
    })
    .ok()
}

/// What the driver says of direct access over NVLink.
fn peers(slot: &Slot, one: &Device, other: &Device) -> bool {
    let status = slot.during("nvmlDeviceGetP2PStatus", || {
        one.p2p_status(other, P2pCapabilitiesIndex::NvLink)
    });
    matches!(status, Ok(P2pStatus::Ok))
}

/// Bus ids at both ends of each active link: two GPUs with one in common are neighbours, or meet in a switch.
fn link_ends(slot: &Slot, device: &Device) -> BTreeSet<String> {
    let mut ends = BTreeSet::new();
    for link in 0..MAX_LINKS {
        let link = device.link_wrapper_for(link);
        match slot.during("nvmlDeviceGetNvLinkState", || link.is_active()) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => break,
        }
        let remote = slot.during("nvmlDeviceGetNvLinkRemotePciInfo", || {
            link.remote_pci_info()
        });
        // All zeros and all ones are no places.
        ends.extend(
            remote
                .ok()
                .map(|pci| pci.bus_id)
                .filter(|id| id.contains(|c: char| !"0:.Ff".contains(c))),
        );
    }
    if !ends.is_empty()
        && let Ok(own) = slot.during("nvmlDeviceGetPciInfo", || device.pci_info())
    {
        ends.insert(own.bus_id);
    }
    ends
}

fn pcie(slot: &Slot, nvml: &'static Nvml, one: &Device, other: u16) -> Option<PciePath> {
    let other = handle(slot, nvml, other)?;
    let level = slot.during("nvmlDeviceGetTopologyCommonAncestor", || {
        one.topology_common_ancestor(other)
    });
    Some(match level.ok()? {
        TopologyLevel::Internal => PciePath::Board,
        TopologyLevel::Single => PciePath::Switch,
        TopologyLevel::Multiple => PciePath::Switches,
        TopologyLevel::HostBridge => PciePath::HostBridge,
        TopologyLevel::Node => PciePath::Numa,
        TopologyLevel::System => PciePath::System,
    })
}
