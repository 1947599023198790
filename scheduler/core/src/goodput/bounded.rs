//! Minimises a smooth function of a few variables within bounds: quasi-Newton with gradient projection.
//!
//! Source: Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization", SIAM Journal on
//! Scientific Computing 16 (1995), with the projection of Morales and Nocedal, "Remark on Algorithm 778", ACM
//! Transactions on Mathematical Software 38 (2011). With as few variables as here, the matrix that the paper keeps in
//! compact form is simply written out. The rules when to stop, skip and start over are those of L-BFGS-B 3.0, so that
//! results agree with it also where it stops early.

use std::collections::VecDeque;

use super::line_search::{LineSearch, Next, Sample};

/// Pairs of steps and gradient changes kept.
const MEMORY: usize = 10;
/// Most iterations.
const MAX_ITERATIONS: usize = 500;
/// Most evaluations along one direction.
const MAX_TRIES: usize = 20;

/// Function value and gradient.
pub(super) type Value<const N: usize> = (f64, [f64; N]);

/// Bounds of the variables; a variable with equal ones stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<const N: usize> {
    pub(super) low: [f64; N],
    pub(super) high: [f64; N],
}

/// Minimises `f` from `x`; ends once an iteration gains less than `tolerance` relative to the larger of the value and 1,
/// or no component of the projected gradient is larger than that.
pub(super) fn minimise<const N: usize>(
    mut f: impl FnMut(&[f64; N]) -> Value<N>,
    mut x: [f64; N],
    bounds: &Bounds<N>,
    tolerance: f64,
) -> [f64; N] {
    for (x, (low, high)) in x.iter_mut().zip(bounds.low.iter().zip(&bounds.high)) {
        *x = x.max(*low).min(*high);
    }
    let mut memory = Memory::<N>::default();
    let mut at = f(&x);
    let mut moved = false;
    for _ in 0..MAX_ITERATIONS {
        if !at.0.is_finite() || projected_norm(&x, &at.1, bounds) <= tolerance {
            break;
        }
        let target = target(&x, &at.1, bounds, &memory);
        let found = target.and_then(|z| along(&mut f, &x, at, &z, bounds, !moved));
        let Some(found) = found else {
            if memory.pairs.is_empty() {
                break;
            }
            memory = Memory::default();
            continue;
        };
        let gained = at.0 - found.value.0;
        let scale = at.0.abs().max(found.value.0.abs()).max(1.0);
        memory.learn(&x, &at.1, &found);
        (x, at, moved) = (found.x, found.value, true);
        if gained <= tolerance * scale {
            break;
        }
    }
    x
}

struct Found<const N: usize> {
    x: [f64; N],
    value: Value<N>,
    /// Slope along the step at its start, times its length.
    descent: f64,
}

/// Curvature seen, as the matrix it amounts to.
struct Memory<const N: usize> {
    pairs: VecDeque<([f64; N], [f64; N])>,
    matrix: [[f64; N]; N],
}

impl<const N: usize> Default for Memory<N> {
    fn default() -> Self {
        Self {
            pairs: VecDeque::new(),
            matrix: diagonal(1.0),
        }
    }
}

impl<const N: usize> Memory<N> {
    fn learn(&mut self, x: &[f64; N], gradient: &[f64; N], found: &Found<N>) {
        let step: [f64; N] = std::array::from_fn(|i| found.x[i] - x[i]);
        let change: [f64; N] = std::array::from_fn(|i| found.value.1[i] - gradient[i]);
        let curvature = dot(&step, &change);
        if curvature <= f64::EPSILON * -found.descent {
            return;
        }
        if self.pairs.len() == MEMORY {
            self.pairs.pop_front();
        }
        self.pairs.push_back((step, change));
        self.matrix = diagonal(dot(&change, &change) / curvature);
        for (step, change) in &self.pairs {
            let bent = times(&self.matrix, step);
            let (along, curvature) = (dot(step, &bent), dot(step, change));
            for (row, (bent_i, change_i)) in
                self.matrix.iter_mut().zip(bent.iter().zip(change.iter()))
            {
                for (cell, (bent_j, change_j)) in row.iter_mut().zip(bent.iter().zip(change.iter()))
                {
                    *cell += change_i * change_j / curvature - bent_i * bent_j / along;
                }
            }
        }
    }
}

/// Where the quadratic model has its minimum within the bounds, roughly: on the projected gradient's path first, then
/// among the variables that are free there. `None` if the matrix is not positive definite.
fn target<const N: usize>(
    x: &[f64; N],
    gradient: &[f64; N],
    bounds: &Bounds<N>,
    memory: &Memory<N>,
) -> Option<[f64; N]> {
    let (cauchy, free) = cauchy_point(x, gradient, bounds, &memory.matrix);
    if memory.pairs.is_empty() || !free.contains(&true) {
        return Some(cauchy);
    }
    let offset: [f64; N] = std::array::from_fn(|i| cauchy[i] - x[i]);
    let bent = times(&memory.matrix, &offset);
    let residual: [f64; N] = std::array::from_fn(|i| -(bent[i] + gradient[i]));
    let step = solve(&memory.matrix, &residual, &free)?;
    let projected: [f64; N] =
        std::array::from_fn(|i| (cauchy[i] + step[i]).max(bounds.low[i]).min(bounds.high[i]));
    let hit = (0..N)
        .any(|i| free[i] && (projected[i] == bounds.low[i] || projected[i] == bounds.high[i]));
    let slope: f64 = (0..N).map(|i| (projected[i] - x[i]) * gradient[i]).sum();
    if !hit || slope <= 0.0 {
        return Some(projected);
    }
    Some(truncated(&cauchy, &step, &free, bounds))
}

/// As far towards the step's end as the bounds allow.
fn truncated<const N: usize>(
    from: &[f64; N],
    step: &[f64; N],
    free: &[bool; N],
    bounds: &Bounds<N>,
) -> [f64; N] {
    let (mut share, mut stopped) = (1.0, None);
    for i in (0..N).filter(|&i| free[i]) {
        let room = match step[i] {
            s if s < 0.0 => (bounds.low[i] - from[i]).min(0.0) / s,
            s if s > 0.0 => (bounds.high[i] - from[i]).max(0.0) / s,
            _ => continue,
        };
        if room < share {
            (share, stopped) = (room, Some(i));
        }
    }
    std::array::from_fn(|i| match (stopped == Some(i), step[i] > 0.0) {
        (true, true) => bounds.high[i],
        (true, false) => bounds.low[i],
        (false, _) => from[i] + share * step[i],
    })
}

/// First minimum of the quadratic model along the projected gradient, and which variables are free there.
fn cauchy_point<const N: usize>(
    x: &[f64; N],
    gradient: &[f64; N],
    bounds: &Bounds<N>,
    matrix: &[[f64; N]; N],
) -> ([f64; N], [bool; N]) {
    let mut free = [true; N];
    let mut direction = [0.0; N];
    let mut stops: Vec<(f64, usize)> = Vec::with_capacity(N);
    for i in 0..N {
        let down = -gradient[i];
        let held = bounds.low[i] >= bounds.high[i]
            || (x[i] <= bounds.low[i] && down <= 0.0)
            || (x[i] >= bounds.high[i] && down >= 0.0);
        free[i] = !held;
        if held {
            continue;
        }
        direction[i] = down;
        let stop = match down {
            d if d < 0.0 => (bounds.low[i] - x[i]) / d,
            d if d > 0.0 => (bounds.high[i] - x[i]) / d,
            _ => f64::INFINITY,
        };
        if stop.is_finite() {
            stops.push((stop, i));
        }
    }
    stops.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut offset = [0.0; N];
    let mut since = 0.0;
    let mut point = *x;
    let first_bend = dot(&direction, &times(matrix, &direction));
    let mut best = slope_to_bottom(gradient, &direction, &offset, matrix, first_bend);
    for (stop, i) in stops {
        if best < stop - since {
            break;
        }
        for j in 0..N {
            offset[j] += (stop - since) * direction[j];
        }
        since = stop;
        point[i] = if direction[i] > 0.0 {
            bounds.high[i]
        } else {
            bounds.low[i]
        };
        offset[i] = point[i] - x[i];
        direction[i] = 0.0;
        free[i] = false;
        best = match direction.iter().all(|d| *d == 0.0) {
            true => 0.0,
            false => slope_to_bottom(gradient, &direction, &offset, matrix, first_bend),
        };
    }
    let end = since + best.max(0.0);
    for j in (0..N).filter(|&j| direction[j] != 0.0) {
        point[j] = x[j] + end * direction[j];
    }
    (point, free)
}

/// How far the model falls along the direction.
fn slope_to_bottom<const N: usize>(
    gradient: &[f64; N],
    direction: &[f64; N],
    offset: &[f64; N],
    matrix: &[[f64; N]; N],
    first_bend: f64,
) -> f64 {
    let bent = times(matrix, direction);
    let slope = dot(gradient, direction) + dot(offset, &bent);
    let bend = dot(direction, &bent).max(f64::EPSILON * first_bend);
    if bend > 0.0 { -slope / bend } else { 0.0 }
}

/// Searches the way to the target.
fn along<const N: usize>(
    f: &mut impl FnMut(&[f64; N]) -> Value<N>,
    x: &[f64; N],
    at: Value<N>,
    target: &[f64; N],
    bounds: &Bounds<N>,
    is_first: bool,
) -> Option<Found<N>> {
    let direction: [f64; N] = std::array::from_fn(|i| target[i] - x[i]);
    let slope = dot(&at.1, &direction);
    if slope >= 0.0 || !slope.is_finite() {
        return None;
    }
    let most = if is_first {
        1.0
    } else {
        room(x, &direction, bounds)
    };
    let mut step = match is_first {
        true => (1.0 / dot(&direction, &direction).sqrt()).min(most),
        false => 1.0,
    };
    if step > most {
        return None;
    }
    let mut search = LineSearch::new(at.0, slope, step, most);
    for _ in 0..MAX_TRIES {
        let tried: [f64; N] = match step == 1.0 {
            true => *target,
            false => std::array::from_fn(|i| x[i] + step * direction[i]),
        };
        let value = f(&tried);
        let sample = Sample {
            step,
            value: value.0,
            slope: dot(&value.1, &direction),
        };
        if !sample.value.is_finite() || !sample.slope.is_finite() {
            return None;
        }
        match search.next(sample) {
            Next::Accept => {
                return Some(Found {
                    x: tried,
                    value,
                    descent: slope * step,
                });
            }
            Next::Try(next) => step = next,
        }
    }
    None
}

/// How often the direction fits between here and the bounds.
fn room<const N: usize>(x: &[f64; N], direction: &[f64; N], bounds: &Bounds<N>) -> f64 {
    let mut most: f64 = 1e10;
    for i in 0..N {
        let limit = match direction[i] {
            d if d < 0.0 => (bounds.low[i] - x[i]).min(0.0) / d,
            d if d > 0.0 => (bounds.high[i] - x[i]).max(0.0) / d,
            _ => continue,
        };
        most = most.min(limit);
    }
    most
}

fn projected_norm<const N: usize>(x: &[f64; N], gradient: &[f64; N], bounds: &Bounds<N>) -> f64 {
    let components = (0..N).map(|i| {
        let down = match gradient[i] {
            g if g < 0.0 => (x[i] - bounds.high[i]).max(g),
            g => (x[i] - bounds.low[i]).min(g),
        };
        down.abs()
    });
    components.fold(0.0, f64::max)
}

/// Solves for the free variables; others stay 0. `None` unless the matrix is positive definite among them.
fn solve<const N: usize>(
    matrix: &[[f64; N]; N],
    right: &[f64; N],
    free: &[bool; N],
) -> Option<[f64; N]> {
    let mut factor = [[0.0; N]; N];
    let mut solution = [0.0; N];
    for i in (0..N).filter(|&i| free[i]) {
        for j in (0..=i).filter(|&j| free[j]) {
            let inner: f64 = (0..j).map(|k| factor[i][k] * factor[j][k]).sum();
            let rest = matrix[i][j] - inner;
            if i == j {
                if rest <= 0.0 || !rest.is_finite() {
                    return None;
                }
                factor[i][i] = rest.sqrt();
            } else {
                factor[i][j] = rest / factor[j][j];
            }
        }
        let inner: f64 = (0..i).map(|k| factor[i][k] * solution[k]).sum();
        solution[i] = (right[i] - inner) / factor[i][i];
    }
    for i in (0..N).rev().filter(|&i| free[i]) {
        let inner: f64 = ((i + 1)..N).map(|k| factor[k][i] * solution[k]).sum();
        solution[i] = (solution[i] - inner) / factor[i][i];
    }
    Some(solution)
}

fn diagonal<const N: usize>(value: f64) -> [[f64; N]; N] {
    std::array::from_fn(|i| std::array::from_fn(|j| if i == j { value } else { 0.0 }))
}

fn times<const N: usize>(matrix: &[[f64; N]; N], vector: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|i| dot(&matrix[i], vector))
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley.
    fn valley(x: &[f64; 2]) -> Value<2> {
        let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
        let value = a * a + 100.0 * b * b;
        (value, [-2.0 * a - 400.0 * x[0] * b, 200.0 * b])
    }

    fn near(a: [f64; 2], b: [f64; 2]) {
        let is_near = (0..2).all(|i| (a[i] - b[i]).abs() < 1e-4);
        assert!(is_near, "{a:?} is not {b:?}");
    }

    const OPEN: Bounds<2> = Bounds {
        low: [f64::NEG_INFINITY; 2],
        high: [f64::INFINITY; 2],
    };

    #[test]
    fn the_bottom_of_a_bent_valley_is_found() {
        near(minimise(valley, [-1.2, 1.0], &OPEN, 1e-12), [1.0, 1.0]);
    }

    #[test]
    fn a_bound_holds_the_minimum() {
        let bounds = Bounds {
            low: [-5.0, -5.0],
            high: [0.5, 5.0],
        };
        near(minimise(valley, [-1.2, 1.0], &bounds, 1e-12), [0.5, 0.25]);
        let bounds = Bounds {
            low: [1.5, 0.0],
            high: [3.0, f64::INFINITY],
        };
        near(minimise(valley, [2.0, 0.0], &bounds, 1e-12), [1.5, 2.25]);
    }

    #[test]
    fn a_variable_with_equal_bounds_stays() {
        let bounds = Bounds {
            low: [2.0, -10.0],
            high: [2.0, 10.0],
        };
        near(minimise(valley, [0.0, 0.0], &bounds, 1e-12), [2.0, 4.0]);
    }

    #[test]
    fn what_is_no_number_ends_it_where_it_began() {
        let x = minimise(|_| (f64::NAN, [0.0; 2]), [1.0, 2.0], &OPEN, 1e-5);
        assert_eq!(x, [1.0, 2.0]);
    }
}
