//! What was going on over time, in a bounded number of equally wide steps: means over each step's time.

/// Most points kept. With one more, two neighbours each become one.
const MAX_POINTS: usize = 2_048;
/// Width of a point at first.
const FIRST_WIDTH_MS: u64 = 1_000;

/// Means over a step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Begin of the step.
    pub at_ms: u64,
    /// Jobs that waited.
    pub waiting: f64,
    /// Jobs with an attempt.
    pub placed: f64,
    /// Thousandths of GPUs held.
    pub used_milligpu: f64,
    /// Thousandths of GPUs free on nodes in service.
    pub free_milligpu: f64,
    /// Thousandths of GPUs free where a random job of the trace cannot use them.
    pub stranded_milligpu: f64,
}

/// What is going on at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Level {
    pub(super) waiting: u64,
    pub(super) placed: u64,
    pub(super) used_milligpu: u64,
    pub(super) free_milligpu: u64,
    /// Scaled by the number of jobs in the trace, so that it is an integer; see `fragmentation`.
    pub(super) stranded: u64,
}

/// Levels times milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums([u128; 5]);

impl Sums {
    fn add(&mut self, level: &Level, time_ms: u64) {
        let levels = [
            level.waiting,
            level.placed,
            level.used_milligpu,
            level.free_milligpu,
            level.stranded,
        ];
        for (sum, level) in self.0.iter_mut().zip(levels) {
            *sum += u128::from(level) * u128::from(time_ms);
        }
    }
}

/// Levels over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    width_ms: u64,
    begin_ms: Option<u64>,
    now_ms: u64,
    steps: Vec<Sums>,
    all: Sums,
    /// What `stranded` is scaled by.
    scale: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self::scaled_by(1)
    }
}

impl Series {
    pub(super) fn scaled_by(scale: u64) -> Self {
        Self {
            width_ms: FIRST_WIDTH_MS,
            begin_ms: None,
            now_ms: 0,
            steps: Vec::new(),
            all: Sums::default(),
            scale: scale.max(1),
        }
    }

    /// The level was this since the last call. The first call says when it begins.
    pub(super) fn on_time(&mut self, now_ms: u64, level: &Level) {
        let begin_ms = *self.begin_ms.get_or_insert_with(|| {
            self.now_ms = now_ms;
            now_ms
        });
        self.all.add(level, now_ms.saturating_sub(self.now_ms));
        while self.now_ms < now_ms {
            let index = (self.now_ms - begin_ms) / self.width_ms;
            if index >= MAX_POINTS as u64 {
                self.halve();
                continue;
            }
            let step_end_ms = begin_ms + (index + 1) * self.width_ms;
            let until_ms = step_end_ms.min(now_ms);
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if self.steps.len() <= index {
                self.steps.resize(index + 1, Sums::default());
            }
            self.steps[index].add(level, until_ms - self.now_ms);
            self.now_ms = until_ms;
        }
    }

    fn halve(&mut self) {
        self.width_ms *= 2;
        let halved = self.steps.chunks(2).map(|pair| {
            let mut sum = Sums::default();
            for step in pair {
                for (sum, part) in sum.0.iter_mut().zip(step.0) {
                    *sum += part;
                }
            }
            sum
        });
        self.steps = halved.collect();
    }

    /// Thousandths of GPUs times milliseconds that were held or free.
    pub(super) fn capacity(&self) -> u128 {
        self.all.0[2] + self.all.0[3]
    }

    /// Share of the free GPU time that was stranded.
    pub(super) fn fragmentation(&self) -> f64 {
        let free = self.all.0[3];
        if free == 0 {
            return 0.0;
        }
        self.all.0[4] as f64 / self.scale as f64 / free as f64
    }

    /// Width of a step.
    pub fn width_ms(&self) -> u64 {
        self.width_ms
    }

    /// The steps, in order of time; the last one may be cut short by the run's end.
    pub fn points(&self) -> Vec<Point> {
        let begin_ms = self.begin_ms.unwrap_or(0);
        let points = (0u64..).zip(&self.steps).map(|(index, step)| {
            let at_ms = begin_ms + index * self.width_ms;
            let time_ms = self.width_ms.min(self.now_ms.saturating_sub(at_ms)).max(1) as f64;
            let [waiting, placed, used, free, stranded] = step.0.map(|sum| sum as f64 / time_ms);
            Point {
                at_ms,
                waiting,
                placed,
                used_milligpu: used,
                free_milligpu: free,
                stranded_milligpu: stranded / self.scale as f64,
            }
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_survive_the_merging_of_steps() {
        let mut series = Series::scaled_by(1);
        let level = |waiting| Level {
            waiting,
            ..Level::default()
        };
        series.on_time(500, &level(9));
        series.on_time(500 + 1_000, &level(4));
        series.on_time(500 + 4_000_000, &level(2));
        let points = series.points();
        assert!(points.len() <= MAX_POINTS, "{} points", points.len());
        assert_eq!(series.width_ms(), 2_000);
        assert_eq!(
            (points[0].at_ms, points[0].waiting, points[1].waiting),
            (500, 3.0, 2.0)
        );
    }
}
