//! How fast an application runs on one GPU model: measured step times by placement and batch.
//!
//! Source: the profiles of the Sia artifact (Jayaram Subramanya et al., SOSP 2023), which extend those of Pollux (OSDI
//! 2021). What was not measured is interpolated between what was.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Times of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// Seconds of a step with one micro-batch, synchronisation included.
    pub step_s: f64,
    /// Seconds of the synchronisation alone.
    pub synchronise_s: f64,
}

/// Times of a step by the samples of a worker's micro-batch; between two points it is a line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    points: Vec<(f64, StepTime)>,
}

/// How fast an application runs on one GPU model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The GPU model's name, as nodes report it.
    pub gpu_model: Arc<str>,
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// Nodes that a job can span for its speed to be known; GPUs on more are taken to be on so many.
    pub nodes_most: u32,
    /// Smallest micro-batch of a worker.
    pub local_least: u32,
    /// Largest micro-batch of a worker, on any placement.
    pub local_most: u32,
    /// Measured, by GPUs per node; of all rotations the lexicographically smallest.
    pub placements: BTreeMap<Vec<u8>, Arc<Curve>>,
    /// Measured or interpolated by nodes and GPUs, for placements that were not measured by themselves.
    pub spans: BTreeMap<(u32, u32), Arc<Curve>>,
    /// Largest micro-batch measured by nodes and GPUs, beyond what `placements` has.
    pub most_by_span: Vec<(u32, u32, u32)>,
    /// Everything that was measured: nodes, GPUs, micro-batch, times. Of several at the same configuration the last counts.
    pub measured: Vec<(u32, u32, u32, StepTime)>,
}

impl Curve {
    /// From points in any order; of several at the same batch the last counts.
    pub fn new(mut points: Vec<(u32, StepTime)>) -> Self {
        points.sort_by_key(|point| point.0);
        let mut curve = Self::default();
        for (samples, time) in points {
            let samples = f64::from(samples);
            match curve.points.last_mut() {
                Some(last) if last.0 == samples => last.1 = time,
                _ => curve.points.push((samples, time)),
            }
        }
        curve
    }

    /// Smallest and largest micro-batch that it knows; `None` if it is empty.
    pub fn range(&self) -> Option<(u32, u32)> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        Some((first.0 as u32, last.0 as u32))
    }

    /// Times at this micro-batch; `None` beyond what is known.
    pub fn at(&self, samples: u32) -> Option<StepTime> {
        let samples = f64::from(samples);
        let above = self.points.partition_point(|point| point.0 < samples);
        let (x1, high) = *self.points.get(above)?;
        if x1 == samples {
            return Some(high);
        }
        let (x0, low) = *self.points.get(above.checked_sub(1)?)?;
        Some(low.towards(high, (samples - x0) / (x1 - x0)))
    }

    /// Part of the way towards another curve, where both are known.
    fn towards(&self, other: &Curve, share: f64) -> Curve {
        let all = self.points.iter().chain(&other.points);
        let points = all.filter_map(|(samples, _)| {
            let samples = *samples as u32;
            Some((
                samples,
                self.at(samples)?.towards(other.at(samples)?, share),
            ))
        });
        Curve::new(points.collect())
    }
}

impl StepTime {
    /// Part of the way towards another one.
    fn towards(self, other: StepTime, share: f64) -> StepTime {
        let between = |a: f64, b: f64| a + (b - a) * share;
        StepTime {
            step_s: between(self.step_s, other.step_s),
            synchronise_s: between(self.synchronise_s, other.synchronise_s),
        }
    }
}

impl Profile {
    /// GPUs per node as the profile knows them: without zeros, on no more nodes than were measured.
    pub fn folded(&self, placement: &[u32]) -> Vec<u8> {
        let gpus: u32 = placement.iter().sum();
        let nodes = placement.iter().filter(|&&gpus| gpus > 0).count() as u32;
        let each = match nodes > self.nodes_most && self.nodes_most > 0 {
            true => gpus.div_ceil(self.nodes_most),
            false => 0,
        };
        let clamp = |gpus: u32| u8::try_from(gpus).unwrap_or(u8::MAX);
        if each == 0 {
            return placement
                .iter()
                .filter(|&&g| g > 0)
                .map(|&g| clamp(g))
                .collect();
        }
        let mut left = gpus;
        std::iter::from_fn(|| {
            let here = each.min(left);
            left -= here;
            (here > 0).then(|| clamp(here))
        })
        .collect()
    }

    /// The curve of a placement; `None` if it is beyond everything that was measured.
    pub fn curve(&self, placement: &[u32]) -> Option<Arc<Curve>> {
        let folded = self.folded(placement);
        if let Some(curve) = self.placements.get(&smallest_rotation(&folded)) {
            return Some(Arc::clone(curve));
        }
        let nodes = folded.len() as u32;
        let gpus = folded.iter().map(|&gpus| u32::from(gpus)).sum();
        self.span(nodes, gpus)
    }

    /// So many GPUs on so many nodes: known, or between the nearest that are, over GPUs first and then over nodes.
    fn span(&self, nodes: u32, gpus: u32) -> Option<Arc<Curve>> {
        if let Some(curve) = self.spans.get(&(nodes, gpus)) {
            return Some(Arc::clone(curve));
        }
        if let Some(curve) = self.over_gpus(nodes, gpus) {
            return Some(curve);
        }
        let below = (1..nodes)
            .rev()
            .find_map(|n| Some((n, self.over_gpus(n, gpus)?)));
        let most = self.spans.keys().map(|(nodes, _)| *nodes).max()?;
        let above = (nodes + 1..=most).find_map(|n| Some((n, self.over_gpus(n, gpus)?)));
        match (below, above) {
            (Some((n0, low)), Some((n1, high))) => {
                let share = f64::from(nodes - n0) / f64::from(n1 - n0);
                Some(Arc::new(low.towards(&high, share)))
            }
            (one, other) => one.or(other).map(|(_, curve)| curve),
        }
    }

    fn over_gpus(&self, nodes: u32, gpus: u32) -> Option<Arc<Curve>> {
        if let Some(curve) = self.spans.get(&(nodes, gpus)) {
            return Some(Arc::clone(curve));
        }
        let (low, low_curve) = self.spans.range((nodes, 0)..(nodes, gpus)).next_back()?;
        let (high, high_curve) = self.spans.range((nodes, gpus)..=(nodes, u32::MAX)).next()?;
        let share = f64::from(gpus - low.1) / f64::from(high.1 - low.1);
        Some(Arc::new(low_curve.towards(high_curve, share)))
    }

    /// Largest micro-batch on this placement.
    pub fn local_most_on(&self, placement: &[u32]) -> Option<u32> {
        let folded = self.folded(placement);
        if let Some(curve) = self.placements.get(&smallest_rotation(&folded)) {
            return Some(curve.range()?.1);
        }
        let nodes = folded.len() as u32;
        let gpus: u32 = folded.iter().map(|&gpus| u32::from(gpus)).sum();
        let enough = self
            .most_by_span
            .iter()
            .filter(|(n, g, _)| *n >= nodes && *g >= gpus);
        let most = enough.map(|(.., samples)| *samples).max();
        most.or_else(|| Some(self.curve(placement)?.range()?.1))
    }

    /// Largest micro-batch measured with so many workers, however placed; `None` if none was.
    pub fn local_most_with(&self, workers: u32) -> Option<u32> {
        let with = self.placements.iter().filter(|(placement, _)| {
            placement.iter().map(|&gpus| u32::from(gpus)).sum::<u32>() == workers
        });
        with.filter_map(|(_, curve)| Some(curve.range()?.1)).max()
    }

    /// Samples per second of one GPU: the largest micro-batch over the longest step, as Sia's bootstrap takes it.
    pub fn single_gpu(&self) -> f64 {
        let Some(curve) = self.placements.get([1].as_slice()) else {
            return 0.0;
        };
        let most = curve.points.last().map_or(0.0, |point| point.0);
        let longest = curve
            .points
            .iter()
            .map(|point| point.1.step_s)
            .fold(0.0, f64::max);
        if longest > 0.0 { most / longest } else { 0.0 }
    }
}

/// The placement that stands for all its rotations.
pub fn smallest_rotation(placement: &[u8]) -> Vec<u8> {
    let rotate = |by: usize| {
        let mut rotated = placement.to_vec();
        rotated.rotate_left(by);
        rotated
    };
    (0..placement.len()).map(rotate).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(step_s: f64) -> StepTime {
        StepTime {
            step_s,
            synchronise_s: step_s / 10.0,
        }
    }

    fn curve(factor: f64) -> Arc<Curve> {
        Arc::new(Curve::new(vec![
            (64, time(6.0 * factor)),
            (32, time(3.0 * factor)),
        ]))
    }

    fn profile() -> Profile {
        Profile {
            gpu_model: "t4".into(),
            gpus_per_node: 4,
            nodes_most: 16,
            local_least: 32,
            local_most: 64,
            placements: [(vec![1], curve(1.0)), (vec![1, 3], curve(2.0))].into(),
            spans: [
                ((4, 16), curve(3.0)),
                ((6, 12), curve(4.0)),
                ((6, 20), curve(6.0)),
            ]
            .into(),
            most_by_span: vec![(6, 12, 64), (6, 20, 48)],
            measured: Vec::new(),
        }
    }

    #[test]
    fn a_curve_is_a_line_between_points_and_ends_with_them() {
        let curve = curve(1.0);
        assert_eq!(curve.at(32), Some(time(3.0)));
        assert!((curve.at(48).expect("between").step_s - 4.5).abs() < 1e-12);
        assert_eq!((curve.at(31), curve.at(65)), (None, None));
        assert_eq!(curve.range(), Some((32, 64)));
    }

    #[test]
    fn all_rotations_are_one_placement() {
        let profile = profile();
        assert_eq!(profile.curve(&[3, 0, 1]), profile.curve(&[1, 3]));
        assert_eq!(profile.local_most_on(&[3, 1]), Some(64));
        assert_eq!(profile.local_most_with(4), Some(64));
        assert_eq!(profile.local_most_with(5), None);
    }

    #[test]
    fn what_was_not_measured_lies_between_what_was() {
        let profile = profile();
        // 16 GPUs: 3 on four nodes, between 4 and 6 on six, so half way to 5 on five.
        let five = profile.curve(&[4, 3, 3, 3, 3]).expect("between");
        assert!((five.at(32).expect("known").step_s - 3.0 * 4.0).abs() < 1e-9);
        assert_eq!(profile.local_most_on(&[4, 3, 3, 3, 3]), Some(48));
        assert_eq!(profile.curve(&[4; 30]), None);
    }

    #[test]
    fn more_nodes_than_were_measured_are_folded() {
        let profile = Profile {
            nodes_most: 2,
            ..profile()
        };
        assert_eq!(profile.folded(&[1, 1, 1, 0, 2]), [3, 2]);
        assert_eq!(profile.folded(&[4, 0, 4]), [4, 4]);
    }

    #[test]
    fn one_gpu_is_measured_by_its_largest_batch() {
        assert!((profile().single_gpu() - 64.0 / 6.0).abs() < 1e-12);
        assert_eq!(Profile::default().single_gpu(), 0.0);
    }
}
