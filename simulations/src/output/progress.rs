//! A progress bar that shows itself only if it is worth it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less time than this needs no bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// Progress on standard error, with what is left to go, after two seconds; nothing if that is no terminal.
#[derive(Debug)]
pub struct Bar {
    begun: Instant,
    bar: ProgressBar,
    shown: bool,
}

impl Bar {
    /// Hidden for now. `unit` is what is counted.
    pub fn new(total: u64, unit: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style =
            format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{elapsed}} so far, {{eta}} to go {{msg}}");
        let bar = match ProgressStyle::with_template(&style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self {
            begun: Instant::now(),
            bar,
            shown: false,
        }
    }

    /// So many are done.
    pub fn at(&mut self, done: u64) {
        if !self.shown && self.begun.elapsed() >= PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_position(done);
    }

    /// Something to tell behind it.
    pub fn tell(&self, message: String) {
        self.bar.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
