//! The scenario as it is now: found, read anew when it changes, and with its clock.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper_sys::bindings as c;

use crate::scenario::{Gpu, Scenario, within};

/// The variable that names the scenario.
pub const VARIABLE: &str = "FAKE_NVML_SCENARIO";
/// How often the file is looked at, at most.
const LOOK_AGAIN_MS: u64 = 20;
/// How often a hanging call looks whether it may go on.
const HANG_STEP: Duration = Duration::from_millis(20);

/// A scenario with its clock.
#[derive(Debug)]
pub struct Scene {
    /// What is played.
    pub scenario: Scenario,
    /// The file's modification time: second 0.
    pub start: SystemTime,
}

static CURRENT: RwLock<Option<Arc<Scene>>> = RwLock::new(None);
static LOOKED_MS: AtomicU64 = AtomicU64::new(0);
static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

impl Scene {
    /// Seconds since second 0.
    pub fn seconds(&self) -> f64 {
        let passed = SystemTime::now().duration_since(self.start);
        passed.unwrap_or_default().as_secs_f64()
    }

    /// The GPU behind a handle.
    pub fn gpu(&self, device: c::nvmlDevice_t) -> Option<(u32, &Gpu)> {
        let index = u32::try_from((device as usize).checked_sub(1)?).ok()?;
        Some((index, self.scenario.gpu.get(index as usize)?))
    }

    fn hangs(&self, call: &str, gpu: Option<u32>) -> bool {
        let seconds = self.seconds();
        self.scenario.hang.iter().any(|hang| {
            (hang.call == call || hang.call == "*" && gpu.is_some())
                && (hang.gpu.is_none() || hang.gpu == gpu)
                && within(seconds, hang.from, hang.until)
        })
    }
}

/// The scenario now.
///
/// # Errors
/// NVML's code for a driver that cannot be used, if there is no scenario or it cannot be read; why is said on stderr.
pub fn current() -> Result<Arc<Scene>, c::nvmlReturn_t> {
    let now_ms = u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX);
    let looked = LOOKED_MS.load(Ordering::Relaxed);
    if now_ms < looked.saturating_add(LOOK_AGAIN_MS)
        && let Some(scene) = known()
    {
        return Ok(scene);
    }
    LOOKED_MS.store(now_ms, Ordering::Relaxed);
    look()
}

fn known() -> Option<Arc<Scene>> {
    CURRENT.read().ok()?.clone()
}

fn look() -> Result<Arc<Scene>, c::nvmlReturn_t> {
    let path = std::env::var_os(VARIABLE).map(PathBuf::from);
    let failed = |what: String| {
        // A file that is just being written is read again soon; what is known goes on.
        known().ok_or_else(|| complain(&what))
    };
    let Some(path) = path else {
        return failed(format!("{VARIABLE} names no scenario"));
    };
    let start = match std::fs::metadata(&path).and_then(|m| m.modified()) {
        Ok(start) => start,
        Err(e) => return failed(format!("{}: {e}", path.display())),
    };
    if let Some(scene) = known().filter(|scene| scene.start == start) {
        return Ok(scene);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| e.to_string());
    match text.and_then(|text| Scenario::parse(&text)) {
        Ok(scenario) => {
            let scene = Arc::new(Scene { scenario, start });
            if let Ok(mut current) = CURRENT.write() {
                *current = Some(Arc::clone(&scene));
            }
            Ok(scene)
        }
        Err(e) => failed(format!("{}: {e}", path.display())),
    }
}

#[allow(clippy::print_stderr)]
fn complain(what: &str) -> c::nvmlReturn_t {
    eprintln!("fake-nvml: {what}");
    c::nvmlReturn_enum_NVML_ERROR_UNKNOWN
}

/// Enters a call that names no GPU: hangs if it is to hang.
///
/// # Errors
/// As [`current`].
pub fn enter(call: &str) -> Result<Arc<Scene>, c::nvmlReturn_t> {
    enter_with(call, None)
}

/// Enters a call on a GPU: hangs if it is to hang, fails if the GPU is gone or does not support it.
///
/// # Errors
/// NVML's code.
pub fn enter_on(call: &str, device: c::nvmlDevice_t) -> Result<(Arc<Scene>, u32), c::nvmlReturn_t> {
    let scene = current()?;
    let (index, _) = scene
        .gpu(device)
        .ok_or(c::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
    let scene = enter_with(call, Some(index))?;
    let seconds = scene.seconds();
    let (_, gpu) = scene
        .gpu(device)
        .ok_or(c::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST)?;
    let since = |from: Option<f64>| from.is_some_and(|from| seconds >= from);
    if since(gpu.lost_from) {
        return Err(c::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    }
    if since(gpu.reset_from) {
        return Err(c::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED);
    }
    if gpu.unsupported.iter().any(|name| name == call) {
        return Err(c::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    }
    Ok((scene, index))
}

fn enter_with(call: &str, gpu: Option<u32>) -> Result<Arc<Scene>, c::nvmlReturn_t> {
    loop {
        let scene = current()?;
        if !scene.hangs(call, gpu) {
            return Ok(scene);
        }
        std::thread::sleep(HANG_STEP);
    }
}
