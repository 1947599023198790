//! What the audience reads: a line when something happens, and the measured figures at the end.

use std::time::{Duration, Instant};

use berth_tests::figures;

/// The play's clock and notebook.
#[derive(Debug)]
pub(crate) struct Timeline {
    started: Instant,
    figures: Vec<Vec<String>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            figures: Vec::new(),
        }
    }

    /// Something happens.
    pub(crate) fn say(&self, what: &str) {
        println!("[{:>6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// A figure for the end.
    pub(crate) fn figure(&mut self, what: &str, value: impl ToString) {
        self.figures.push(vec![what.to_owned(), value.to_string()]);
    }

    /// A time for the end.
    pub(crate) fn time(&mut self, what: &str, time: Duration) {
        self.figure(what, figures::seconds(time));
    }

    /// Since the curtain rose.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Every figure so far.
    pub(crate) fn table(&self) -> String {
        figures::table(&["measured", "value"], &self.figures)
    }
}
