//! Event sets.

use std::collections::BTreeSet;
use std::ffi::c_uint;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper_sys::bindings as c;

use super::{INVALID, OK, ask, handle, put};
use crate::scene::{self, Scene};

/// How often a waiting call looks whether an event is due.
const LOOK: Duration = Duration::from_millis(50);

/// Behind an `nvmlEventSet_t`.
struct Set(Mutex<Inner>);

struct Inner {
    gpus: BTreeSet<u32>,
    /// Which run of the scenario has been seen, from which second on, and the events handed out of it.
    run: Option<SystemTime>,
    from: f64,
    told: BTreeSet<usize>,
}

impl Inner {
    /// The next event that is due, and remembers that it was told.
    fn next(&mut self, scene: &Scene) -> Option<(u32, u64)> {
        if self.run != Some(scene.start) {
            // Events of a scenario that starts while somebody listens are all heard.
            self.from = self.run.map_or_else(|| scene.seconds(), |_| 0.0);
            self.run = Some(scene.start);
            self.told.clear();
        }
        let now = scene.seconds();
        let events = scene.scenario.event.iter().enumerate();
        let (at, event) = events
            .filter(|(at, e)| {
                e.at >= self.from
                    && e.at <= now
                    && self.gpus.contains(&e.gpu)
                    && !self.told.contains(at)
            })
            .min_by(|a, b| a.1.at.total_cmp(&b.1.at))?;
        self.told.insert(at);
        Some((event.gpu, event.xid))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(out: *mut c::nvmlEventSet_t) -> c::nvmlReturn_t {
    let answer = scene::enter("nvmlEventSetCreate").map(|scene| {
        let inner = Inner {
            gpus: BTreeSet::new(),
            run: Some(scene.start),
            from: scene.seconds(),
            told: BTreeSet::new(),
        };
        Box::into_raw(Box::new(Set(Mutex::new(inner)))) as c::nvmlEventSet_t
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: c::nvmlEventSet_t) -> c::nvmlReturn_t {
    if set.is_null() {
        return INVALID;
    }
    // SAFETY: a set comes from `nvmlEventSetCreate`, and NVML forbids its use after this call.
    drop(unsafe { Box::from_raw(set.cast::<Set>()) });
    OK
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: c::nvmlDevice_t,
    out: *mut u64,
) -> c::nvmlReturn_t {
    let answer = ask("nvmlDeviceGetSupportedEventTypes", device, |_, _, _| {
        Ok(u64::from(c::nvmlEventTypeXidCriticalError))
    });
    // SAFETY: passes on the caller's pointer.
    unsafe { put(out, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: c::nvmlDevice_t,
    _types: u64,
    set: c::nvmlEventSet_t,
) -> c::nvmlReturn_t {
    // SAFETY: a set comes from `nvmlEventSetCreate` and is not freed yet.
    let Some(set) = (unsafe { set.cast::<Set>().as_ref() }) else {
        return INVALID;
    };
    let answer = ask("nvmlDeviceRegisterEvents", device, |_, index, _| {
        set.0.lock().map_err(|_| INVALID)?.gpus.insert(index);
        Ok(())
    });
    answer.map_or_else(|code| code, |()| OK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: c::nvmlEventSet_t,
    data: *mut c::nvmlEventData_t,
    timeout_ms: c_uint,
) -> c::nvmlReturn_t {
    // SAFETY: a set comes from `nvmlEventSetCreate` and is not freed yet.
    let Some(set) = (unsafe { set.cast::<Set>().as_ref() }) else {
        return INVALID;
    };
    let end = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        let scene = match scene::enter("nvmlEventSetWait_v2") {
            Ok(scene) => scene,
            Err(code) => return code,
        };
        let Ok(mut inner) = set.0.lock() else {
            return INVALID;
        };
        if let Some((gpu, xid)) = inner.next(&scene) {
            let event = c::nvmlEventData_t {
                device: handle(gpu),
                eventType: u64::from(c::nvmlEventTypeXidCriticalError),
                eventData: xid,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: passes on the caller's pointer.
            return unsafe { put(data, Ok(event)) };
        }
        drop(inner);
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return c::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        }
        std::thread::sleep(left.min(LOOK));
    }
}
