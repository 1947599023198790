//! Ctrl-C: the first one asks to finish with what there is, the second one ends the process.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a process that Ctrl-C ended exits with: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;

/// Whether somebody pressed Ctrl-C.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. Called once per process; if that is not possible, Ctrl-C ends the process as usual.
    pub fn listen() -> Self {
        let pressed = Self::default();
        let flag = pressed.clone();
        let handler = move || {
            if flag.0.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        };
        // A second handler in one process is a mistake that costs no more than the courtesy.
        let _ = ctrlc::set_handler(handler);
        pressed
    }

    /// Whether to go on.
    pub fn control(&self) -> ControlFlow<()> {
        match self.pressed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// True once it was pressed.
    pub fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
