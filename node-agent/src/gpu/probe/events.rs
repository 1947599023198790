//! XIDs, as the driver announces them.

use std::sync::Arc;
use std::time::Duration;

use berth_types::telemetry::GpuXid;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::asker::Slot;
use super::{Shared, say, wall_ms};
use crate::gpu::line::Line;

/// How long one call waits: well below any deadline, so that it is not taken for one that hangs.
const WAIT_MS: u32 = 500;
/// Pause after a call that failed at once.
const PAUSE: Duration = Duration::from_secs(1);
/// What the library says for an error that it has no number of.
const UNKNOWN_XID: u64 = 999;

/// Listens for ever, if any GPU has events.
pub(super) fn listen(shared: &Arc<Shared>, nvml: &'static Nvml, count: u16) {
    let slot = shared.slot(None);
    let mut devices: Vec<(u16, Device<'static>)> = (0..count)
        .filter_map(|index| {
            let device = slot
                .during("nvmlDeviceGetHandleByIndex", || {
                    nvml.device_by_index(index.into())
                })
                .ok()?;
            let types = slot
                .during("nvmlDeviceGetSupportedEventTypes", || {
                    device.supported_event_types()
                })
                .ok()?;
            types
                .contains(EventTypes::CRITICAL_XID_ERROR)
                .then_some((index, device))
        })
        .collect();
    let Some(set) = register(&slot, nvml, &mut devices) else {
        return;
    };
    loop {
        match slot.during("nvmlEventSetWait", || set.wait(WAIT_MS)) {
            Ok(event) if event.event_type.contains(EventTypes::CRITICAL_XID_ERROR) => {
                let index = devices
                    .iter()
                    .find(|(_, device)| same(device, &event.device))
                    .map(|(index, _)| *index);
                let xid = match event.event_data {
                    Some(XidError::Value(xid)) => xid,
                    Some(XidError::Unknown) | None => UNKNOWN_XID,
                };
                if let Some(index) = index {
                    say(&Line::Xid(GpuXid {
                        index,
                        at_ms: wall_ms(),
                        xid,
                    }));
                }
            }
            Ok(_) | Err(NvmlError::Timeout) => {}
            // Of one GPU that is lost; others may still have something to say.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A set with all GPUs that can be registered. The library gives a set up when one cannot, so it is begun anew without.
fn register(
    slot: &Slot,
    nvml: &'static Nvml,
    devices: &mut Vec<(u16, Device<'static>)>,
) -> Option<EventSet<'static>> {
    while !devices.is_empty() {
        let set = slot
            .during("nvmlEventSetCreate", || nvml.create_event_set())
            .ok()?;
        match register_all(slot, set, devices) {
            Ok(set) => return Some(set),
            Err(refused) => drop(devices.remove(refused)),
        }
    }
    None
}

/// The set with all of them, or which one refused.
fn register_all(
    slot: &Slot,
    mut set: EventSet<'static>,
    devices: &[(u16, Device<'static>)],
) -> Result<EventSet<'static>, usize> {
    for (at, (_, device)) in devices.iter().enumerate() {
        let registered = slot.during("nvmlDeviceRegisterEvents", || {
            device.register_events(EventTypes::CRITICAL_XID_ERROR, set)
        });
        set = registered.map_err(|_| at)?;
    }
    Ok(set)
}

/// True if both are the same GPU. Its name cannot be asked for: a GPU that has just fallen off the bus does not answer.
#[allow(unsafe_code)]
fn same(one: &Device, other: &Device) -> bool {
    // SAFETY: the handles are only compared, never handed to the library.
    unsafe { one.handle() == other.handle() }
}
