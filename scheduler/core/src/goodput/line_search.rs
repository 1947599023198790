//! A line search that meets the strong Wolfe conditions.
//!
//! Source: Moré and Thuente, "Line search algorithms with guaranteed sufficient decrease", ACM Transactions on Mathematical
//! Software 20 (1994), sections 2 to 4, with the constants that L-BFGS-B 3.0 uses.

/// Sufficient decrease.
const DECREASE: f64 = 1e-3;
/// Curvature: the slope must shrink to this share.
const CURVATURE: f64 = 0.9;
/// Relative width of an interval that is not worth dividing.
const WIDTH: f64 = 0.1;
/// How far beyond the newest step an unbracketed search goes, at least and at most.
const FURTHER: (f64, f64) = (1.1, 4.0);

/// Value and slope at a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) step: f64,
    pub(super) value: f64,
    pub(super) slope: f64,
}

/// What to do after a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    /// Evaluate here.
    Try(f64),
    /// The last step is good, or as good as it gets.
    Accept,
}

/// A search under way.
#[derive(Debug)]
pub(super) struct LineSearch {
    start: Sample,
    most: f64,
    bracketed: bool,
    auxiliary: bool,
    best: Sample,
    other: Sample,
    bounds: (f64, f64),
    width: f64,
    width_before: f64,
}

impl LineSearch {
    /// From a point with this value and slope (negative), to try `step` first and nothing beyond `most`.
    pub(super) fn new(value: f64, slope: f64, step: f64, most: f64) -> Self {
        let start = Sample {
            step: 0.0,
            value,
            slope,
        };
        Self {
            start,
            most,
            bracketed: false,
            auxiliary: true,
            best: start,
            other: start,
            bounds: (0.0, step + FURTHER.1 * step),
            width: most,
            width_before: 2.0 * most,
        }
    }

    /// Takes the sample at the step that was to be tried.
    pub(super) fn next(&mut self, at: Sample) -> Next {
        let descent = DECREASE * self.start.slope;
        let enough = self.start.value + at.step * descent;
        if self.auxiliary && at.value <= enough && at.slope >= 0.0 {
            self.auxiliary = false;
        }
        let (low, high) = self.bounds;
        let exhausted =
            self.bracketed && (at.step <= low || at.step >= high || high - low <= WIDTH * high);
        let at_most = at.step == self.most && at.value <= enough && at.slope <= descent;
        let at_least = at.step == 0.0 && (at.value > enough || at.slope >= descent);
        let converged = at.value <= enough && at.slope.abs() <= CURVATURE * -self.start.slope;
        if exhausted || at_most || at_least || converged {
            return Next::Accept;
        }
        // The first stage works on the function less the line of sufficient decrease.
        let lowered = match self.auxiliary && at.value <= self.best.value && at.value > enough {
            true => descent,
            false => 0.0,
        };
        let step = self.interpolate(at, lowered);
        self.narrow(step)
    }

    fn interpolate(&mut self, at: Sample, lowered: f64) -> f64 {
        let shift = |s: Sample, by: f64| Sample {
            step: s.step,
            value: s.value - s.step * by,
            slope: s.slope - by,
        };
        let (mut best, mut other) = (shift(self.best, lowered), shift(self.other, lowered));
        let at = shift(at, lowered);
        let step = trial(&mut best, &mut other, at, &mut self.bracketed, self.bounds);
        self.best = shift(best, -lowered);
        self.other = shift(other, -lowered);
        step
    }

    fn narrow(&mut self, mut step: f64) -> Next {
        let (best, other) = (self.best.step, self.other.step);
        if self.bracketed {
            if (other - best).abs() >= 0.66 * self.width_before {
                step = best + 0.5 * (other - best);
            }
            self.width_before = self.width;
            self.width = (other - best).abs();
            self.bounds = (best.min(other), best.max(other));
        } else {
            let beyond = step - best;
            self.bounds = (step + FURTHER.0 * beyond, step + FURTHER.1 * beyond);
        }
        let mut step = step.max(0.0).min(self.most);
        let (low, high) = self.bounds;
        if self.bracketed && (step <= low || step >= high || high - low <= WIDTH * high) {
            step = best;
        }
        Next::Try(step)
    }
}

/// The next step from the best one, the other end of the interval and the newest one; replaces the ends.
fn trial(
    best: &mut Sample,
    other: &mut Sample,
    at: Sample,
    bracketed: &mut bool,
    bounds: (f64, f64),
) -> f64 {
    let turns = at.slope * (best.slope / best.slope.abs()) < 0.0;
    let next = if at.value > best.value {
        *bracketed = true;
        let cubic = cubic_between(*best, at);
        let run = at.step - best.step;
        let fall = (best.value - at.value) / run + best.slope;
        let quadratic = best.step + best.slope / fall / 2.0 * run;
        match (cubic - best.step).abs() < (quadratic - best.step).abs() {
            true => cubic,
            false => cubic + (quadratic - cubic) / 2.0,
        }
    } else if turns {
        *bracketed = true;
        farther(at, cubic_back(at, *best), secant(at, *best))
    } else if at.slope.abs() < best.slope.abs() {
        flattening(*best, *other, at, *bracketed, bounds)
    } else if *bracketed {
        cubic_back(at, *other)
    } else if at.step > best.step {
        bounds.1
    } else {
        bounds.0
    };
    if at.value > best.value {
        *other = at;
    } else {
        if turns {
            *other = *best;
        }
        *best = at;
    }
    next
}

/// The slope keeps its sign and shrinks: the cubic may have no minimum ahead, so the secant has a say.
fn flattening(best: Sample, other: Sample, at: Sample, bracketed: bool, bounds: (f64, f64)) -> f64 {
    let run = best.step - at.step;
    let theta = 3.0 * (best.value - at.value) / (at.step - best.step) + best.slope + at.slope;
    let scale = theta.abs().max(best.slope.abs()).max(at.slope.abs());
    let under = (theta / scale).powi(2) - best.slope / scale * (at.slope / scale);
    let mut gamma = scale * under.max(0.0).sqrt();
    if at.step > best.step {
        gamma = -gamma;
    }
    let ratio = (gamma - at.slope + theta) / (gamma + (best.slope - at.slope) + gamma);
    let cubic = if ratio < 0.0 && gamma != 0.0 {
        at.step + ratio * run
    } else if at.step > best.step {
        bounds.1
    } else {
        bounds.0
    };
    let secant = secant(at, best);
    if bracketed {
        let next = match (cubic - at.step).abs() < (secant - at.step).abs() {
            true => cubic,
            false => secant,
        };
        let limit = at.step + 0.66 * (other.step - at.step);
        return match at.step > best.step {
            true => next.min(limit),
            false => next.max(limit),
        };
    }
    farther(at, cubic, secant).max(bounds.0).min(bounds.1)
}

fn farther(at: Sample, cubic: f64, secant: f64) -> f64 {
    match (cubic - at.step).abs() > (secant - at.step).abs() {
        true => cubic,
        false => secant,
    }
}

fn secant(at: Sample, best: Sample) -> f64 {
    at.step + at.slope / (at.slope - best.slope) * (best.step - at.step)
}

/// Minimiser of the cubic through both, `at` being the higher one.
fn cubic_between(best: Sample, at: Sample) -> f64 {
    let theta = 3.0 * (best.value - at.value) / (at.step - best.step) + best.slope + at.slope;
    let scale = theta.abs().max(best.slope.abs()).max(at.slope.abs());
    let under = (theta / scale).powi(2) - best.slope / scale * (at.slope / scale);
    let mut gamma = scale * under.sqrt();
    if at.step < best.step {
        gamma = -gamma;
    }
    let ratio = (gamma - best.slope + theta) / (gamma - best.slope + gamma + at.slope);
    best.step + ratio * (at.step - best.step)
}

/// Minimiser of the cubic through both, looking back from `at`.
fn cubic_back(at: Sample, from: Sample) -> f64 {
    let theta = 3.0 * (from.value - at.value) / (at.step - from.step) + from.slope + at.slope;
    let scale = theta.abs().max(from.slope.abs()).max(at.slope.abs());
    let under = (theta / scale).powi(2) - from.slope / scale * (at.slope / scale);
    let mut gamma = scale * under.sqrt();
    if at.step > from.step {
        gamma = -gamma;
    }
    let ratio = (gamma - at.slope + theta) / (gamma - at.slope + gamma + from.slope);
    at.step + ratio * (from.step - at.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(f: impl Fn(f64) -> (f64, f64), first: f64, most: f64) -> (f64, usize) {
        let (value, slope) = f(0.0);
        let mut search = LineSearch::new(value, slope, first, most);
        let mut step = first;
        for tried in 1..50 {
            let (value, slope) = f(step);
            match search.next(Sample { step, value, slope }) {
                Next::Accept => return (step, tried),
                Next::Try(next) => step = next,
            }
        }
        panic!("no end of the search");
    }

    #[test]
    fn a_parabola_is_left_with_a_tenth_of_its_slope_at_most() {
        let f = |x: f64| ((x - 3.0).powi(2), 2.0 * (x - 3.0));
        for first in [0.001, 1.0, 100.0] {
            let (step, tried) = search(f, first, 1e10);
            assert!(f(step).0 < f(0.0).0 && f(step).1.abs() <= 0.9 * 6.0);
            assert!(tried < 12, "{tried} tries from {first}");
        }
    }

    #[test]
    fn a_function_that_only_falls_goes_as_far_as_it_may() {
        let (step, _) = search(|x| (-x, -1.0), 1.0, 7.0);
        assert_eq!(step, 7.0);
    }

    #[test]
    fn a_kink_is_found() {
        let f = |x: f64| ((x - 2.0).abs(), (x - 2.0).signum());
        let (step, _) = search(f, 10.0, 1e10);
        assert!(f(step).0 < 2.0);
    }
}
