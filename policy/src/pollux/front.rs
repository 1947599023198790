//! Ranks of solutions with two objectives, both to be made small.
//!
//! Source: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
//! Transactions on Evolutionary Computation 6 (2002), section III.

/// Two objectives.
pub(super) type Values = [f64; 2];

/// True if the first is no worse in both and better in one.
pub(super) fn dominates(a: Values, b: Values) -> bool {
    a[0] <= b[0] && a[1] <= b[1] && a != b
}

/// Indices by front, the best front first. In each front, ascending by the first objective.
pub(super) fn fronts(values: &[Values]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| {
        let first = values[a][0].total_cmp(&values[b][0]);
        first
            .then(values[a][1].total_cmp(&values[b][1]))
            .then(a.cmp(&b))
    });
    let mut fronts: Vec<Vec<usize>> = Vec::new();
    for index in order {
        // The last of a front has the least second objective of it, and no larger first one than this.
        let free = |front: &Vec<usize>| {
            front
                .last()
                .is_some_and(|&last| !dominates(values[last], values[index]))
        };
        let at = fronts.partition_point(|front| !free(front));
        match fronts.get_mut(at) {
            Some(front) => front.push(index),
            None => fronts.push(vec![index]),
        }
    }
    fronts
}

/// How lonely each member of a front is; its ends are lonelier than all others, and repeated values are not lonely at all.
pub(super) fn crowding(values: &[Values], front: &[usize]) -> Vec<f64> {
    let mut distance = vec![0.0; front.len()];
    // In a front, ascending in one objective is descending in the other.
    let mut distinct: Vec<usize> = Vec::with_capacity(front.len());
    for at in 0..front.len() {
        let is_new = distinct
            .last()
            .is_none_or(|&last| values[front[last]] != values[front[at]]);
        if is_new {
            distinct.push(at);
        }
    }
    let (Some(&first), Some(&last)) = (distinct.first(), distinct.last()) else {
        return distance;
    };
    distance[first] = f64::INFINITY;
    distance[last] = f64::INFINITY;
    for objective in [0, 1] {
        let of = |at: usize| values[front[at]][objective];
        let range = (of(last) - of(first)).abs();
        if range > 0.0 {
            for near in distinct.windows(3) {
                distance[near[1]] += (of(near[2]) - of(near[0])).abs() / range;
            }
        }
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_peel_off_one_after_the_other() {
        let values = [
            [1.0, 3.0],
            [2.0, 2.0],
            [3.0, 1.0],
            [2.0, 3.0],
            [3.0, 3.0],
            [2.0, 2.0],
        ];
        assert_eq!(fronts(&values), [vec![0, 1, 5, 2], vec![3], vec![4]]);
    }

    #[test]
    fn every_front_is_free_of_dominance_and_dominated_by_the_one_before() {
        let value = |i: u32| [f64::from(i * 7919 % 23), f64::from(i * 104_729 % 19)];
        let values: Vec<Values> = (0..60).map(value).collect();
        let fronts = fronts(&values);
        for (rank, front) in fronts.iter().enumerate() {
            for &a in front {
                assert!(!front.iter().any(|&b| dominates(values[b], values[a])));
                if let Some(before) = rank.checked_sub(1) {
                    assert!(
                        fronts[before]
                            .iter()
                            .any(|&b| dominates(values[b], values[a]))
                    );
                }
            }
        }
    }

    #[test]
    fn ends_are_lonely_and_copies_are_not() {
        let values = [[0.0, 4.0], [1.0, 1.0], [1.0, 1.0], [4.0, 0.0]];
        let distance = crowding(&values, &[0, 1, 2, 3]);
        assert_eq!(distance, [f64::INFINITY, 2.0, 0.0, f64::INFINITY]);
    }
}
