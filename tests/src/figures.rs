//! What was measured, and how it is printed.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Times of something that was done often.
#[derive(Clone, Debug, Default)]
pub struct Times {
    sorted: Vec<Duration>,
}

/// The figures of [`Times`], in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Half took at most this long.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let at = self.sorted.partition_point(|other| *other <= time);
        self.sorted.insert(at, time);
    }

    /// The smallest time that at least `share` (0 to 1) of all do not exceed: the nearest rank, no interpolation.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        let at = rank.max(1) - 1;
        self.sorted.get(at).copied().unwrap_or_default()
    }

    /// Its figures.
    pub fn spread(&self) -> Spread {
        let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        Spread {
            count: self.sorted.len(),
            p50_ms: ms(self.quantile(0.5)),
            p99_ms: ms(self.quantile(0.99)),
            max_ms: ms(self.sorted.last().copied().unwrap_or_default()),
        }
    }
}

/// A table with a heading; numbers stand to the right.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(heading);
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        let mut cells = rows.iter().filter_map(|row| row.get(at));
        if cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit())) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Seconds for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_rank() {
        let mut times = Times::default();
        assert_eq!(times.spread().max_ms, 0.0);
        for ms in (1..=100).rev() {
            times.add(Duration::from_millis(ms));
        }
        let spread = times.spread();
        assert_eq!(
            (spread.count, spread.p50_ms, spread.p99_ms, spread.max_ms),
            (100, 50.0, 99.0, 100.0)
        );
    }
}
