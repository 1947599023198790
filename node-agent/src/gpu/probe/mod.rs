//! The child process that talks to the driver.
//!
//! ```text
//! main      beats; hands each GPU's thread a tick; makes no call into the library
//! driver    loads the library, then starts the others
//! gpu 0..n  handle, identity, then one reading per tick
//! paths     how the GPUs reach each other
//! events    waits for XIDs
//! stdin     `look N` asks for readings now; its end is the agent's
//! ```
//! A call that hangs keeps one thread, and the beat says which. Threads are never waited for: the process ends by
//! killing itself, because leaving it in order would call into the library.

mod asker;
mod events;
mod identity;
mod paths;
mod process;
mod reader;

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_types::telemetry::{GpuCondition, GpuReading};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use rustix::process::{Signal, getpid, kill_process};

use crate::gpu::line::{Beat, Driver, LOOK_NOW, Line, Waiting};
use asker::{Asker, Gone, Slot};

/// Longest time between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// Most GPUs of a node.
const MAX_GPUS: u32 = 256;

/// What the probe is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between two readings of a GPU.
    pub interval: Duration,
    /// The library; the driver's own if absent.
    pub library: Option<OsString>,
    /// Task directories lie below this one; processes that name one are told with it.
    pub tasks_dir: Option<OsString>,
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    options: Options,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Newest `look` that was asked for.
    look: AtomicU64,
    wake: Mutex<Sender<Wake>>,
}

/// What the main thread hears.
enum Wake {
    /// Readings are wanted now.
    Look,
    /// A GPU's thread takes ticks.
    Gpu(SyncSender<()>),
}

/// Reads until the agent ends. Returns only by ending the process.
pub fn run(options: Options) -> ! {
    let interval = options.interval.max(Duration::from_millis(1));
    let (wake, woken) = channel();
    let shared = Arc::new(Shared {
        options,
        slots: Mutex::default(),
        look: AtomicU64::new(0),
        wake: Mutex::new(wake),
    });
    let stdin = Arc::clone(&shared);
    start("stdin", move || listen(&stdin));
    let driver = Arc::clone(&shared);
    start("driver", move || find_gpus(&driver));
    beat(&shared, &woken, interval)
}

/// The main thread: nothing here may wait for the library.
fn beat(shared: &Shared, woken: &Receiver<Wake>, interval: Duration) -> ! {
    let mut gpus: Vec<SyncSender<()>> = Vec::new();
    let between = interval.min(BEAT);
    let (mut beat_at, mut tick_at) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        if now >= tick_at {
            // A late tick is not made up for.
            tick_at = (tick_at + interval).max(now);
            tick(&gpus);
        }
        if now >= beat_at {
            beat_at = (beat_at + between).max(now);
            let waiting = shared.waiting();
            say(&Line::Beat(Beat {
                at_ms: wall_ms(),
                waiting,
            }));
        }
        match woken.recv_timeout(tick_at.min(beat_at).saturating_duration_since(now)) {
            Ok(Wake::Gpu(gpu)) => {
                // Its first reading at once.
                tick(std::slice::from_ref(&gpu));
                gpus.push(gpu);
            }
            Ok(Wake::Look) => tick(&gpus),
            Err(RecvTimeoutError::Timeout) => {}
            // The sender is in `shared`.
            Err(RecvTimeoutError::Disconnected) => die(),
        }
    }
}

/// A GPU's thread that is still busy has one tick in store; more would be of no use.
fn tick(gpus: &[SyncSender<()>]) {
    for gpu in gpus {
        let _ = gpu.try_send(());
    }
}

/// The agent's wishes; the end of the agent is the end of this.
fn listen(shared: &Shared) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let number = line
            .strip_prefix(LOOK_NOW)
            .and_then(|rest| rest.trim().parse().ok());
        if let Some(number) = number {
            shared.look.fetch_max(number, Ordering::SeqCst);
            shared.wake(Wake::Look);
        }
    }
    die();
}

/// Loads the library and starts a thread for each GPU that it lists.
fn find_gpus(shared: &Arc<Shared>) {
    let slot = shared.slot(None);
    let (nvml, driver) = match open(shared, &slot) {
        Ok(found) => found,
        Err(error) => {
            let why = error.to_string();
            say(&Line::Failed { why });
            die();
        }
    };
    let count = driver.gpus;
    say(&Line::Driver(driver));
    let (known, found) = channel();
    for index in 0..count {
        let (shared, known) = (Arc::clone(shared), known.clone());
        start("gpu", move || watch_gpu(&shared, nvml, index, &known));
    }
    let for_events = Arc::clone(shared);
    start("events", move || events::listen(&for_events, nvml, count));
    paths::tell(shared, nvml, count, &found);
}

fn open(shared: &Shared, slot: &Slot) -> Result<(&'static Nvml, Driver), NvmlError> {
    let nvml = slot.during("nvmlInit", || match &shared.options.library {
        Some(path) => Nvml::builder().lib_path(path).init(),
        None => Nvml::init(),
    })?;
    // Never shut down: that, too, is a call that could hang.
    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
    let count = slot.during("nvmlDeviceGetCount", || nvml.device_count())?;
    let driver = Driver {
        version: slot
            .during("nvmlSystemGetDriverVersion", || nvml.sys_driver_version())
            .ok(),
        nvml_version: slot
            .during("nvmlSystemGetNVMLVersion", || nvml.sys_nvml_version())
            .ok(),
        cuda_version: slot
            .during("nvmlSystemGetCudaDriverVersion", || {
                nvml.sys_cuda_driver_version()
            })
            .ok(),
        gpus: u16::try_from(count.min(MAX_GPUS)).unwrap_or(u16::MAX),
    };
    Ok((nvml, driver))
}

/// The life of a GPU's thread.
fn watch_gpu(shared: &Arc<Shared>, nvml: &'static Nvml, index: u16, known: &Sender<u16>) {
    let slot = shared.slot(Some(index));
    let (ticks, ticked) = sync_channel(1);
    shared.wake(Wake::Gpu(ticks));
    let mut asker = Asker::new(slot);
    let mut device = None;
    let mut processes = process::Known::new(shared.options.tasks_dir.clone());
    while ticked.recv().is_ok() {
        let look = shared.look.load(Ordering::SeqCst);
        let at_ms = wall_ms();
        let began = Instant::now();
        let found = match &device {
            Some(device) => Ok(device),
            None => identity::find(&mut asker, nvml, index).map(|(found, identity)| {
                say(&Line::Gpu(identity));
                let _ = known.send(index);
                &*device.insert(found)
            }),
        };
        let read = found.and_then(|device| reader::read(&mut asker, device, &mut processes));
        let mut reading = read.unwrap_or_else(|gone| GpuReading {
            condition: match gone {
                Gone::Lost => GpuCondition::Lost,
                Gone::ResetRequired => GpuCondition::ResetRequired,
                Gone::Failing => GpuCondition::Unresponsive,
            },
            ..GpuReading::default()
        });
        reading.index = index;
        reading.at_ms = at_ms;
        reading.took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let reading = Box::new(reading);
        say(&Line::Reading { look, reading });
    }
}

impl Shared {
    /// A place where a thread says which call it is in.
    fn slot(&self, index: Option<u16>) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(index));
        lock(&self.slots).push(Arc::clone(&slot));
        slot
    }

    fn waiting(&self) -> Vec<Waiting> {
        lock(&self.slots)
            .iter()
            .filter_map(|s| s.waiting())
            .collect()
    }

    fn wake(&self, wake: Wake) {
        // The main thread never ends before the process.
        let _ = lock(&self.wake).send(wake);
    }
}

/// A thread that panicked has left nothing half-done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says a line; whole, because the lock is held over it.
fn say(line: &Line) {
    let text = line.encode();
    let mut out = std::io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        // Nobody listens any more.
        die();
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().name(name.into());
    if builder.spawn(work).is_err() {
        let why = "no thread could be started".into();
        say(&Line::Failed { why });
        die();
    }
}

/// Ends the process whatever its threads are doing.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
