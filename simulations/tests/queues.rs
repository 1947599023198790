//! The published order of queueing policies holds on recorded workloads. Needs the recorded traces: set BERTH_TRACES to
//! their folder. `berth-sim reproduce queues` measures Venus, too.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use berth_sim::input::traces_dir;
use berth_sim::reproduce::queues::{self, CONTENDERS, Row};

/// How far above the better one a mean may lie where the published figures are closer than this themselves.
const TIE: f64 = 0.01;

fn traces() -> Option<PathBuf> {
    let folder = traces_dir().filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: BERTH_TRACES does not name the folder of recorded traces");
    }
    folder
}

fn print(rows: &[Row]) {
    println!("cluster policy    jobs  jct_s  published  queue_s  published evictions");
    for row in rows {
        let told = |figure: Option<f64>| figure.map_or("-".to_owned(), |s| format!("{s:.0}"));
        println!(
            "{:7} {:5} {:8} {:7.0} {:9} {:8.0} {:9} {:8}",
            row.cluster,
            row.policy,
            row.jobs,
            row.avg_jct_s,
            told(row.published_jct_s),
            row.avg_queue_s,
            told(row.published_queue_s),
            row.evictions,
        );
    }
}

/// The mean of a policy, by its published name.
fn jct(rows: &[Row], policy: &str) -> f64 {
    let row = rows.iter().find(|row| row.policy == policy);
    row.expect("each policy has a row").avg_jct_s
}

fn is_ordered(rows: &[Row]) {
    for pair in queues::ORDER.windows(2) {
        let (better, worse) = (jct(rows, pair[0]), jct(rows, pair[1]));
        assert!(
            better <= worse,
            "{}: {pair:?} {better} {worse}",
            rows[0].cluster
        );
    }
}

#[test]
fn philly_by_virtual_cluster() {
    let Some(traces) = traces() else { return };
    let rows = queues::philly(&traces, 1).expect("the lists are sound");
    print(&rows);
    let (all, single) = rows
        .split_last_chunk::<4>()
        .map(|(rest, all)| (all, rest))
        .expect("rows");
    is_ordered(all);
    for rows in single.chunks(CONTENDERS.len()) {
        for better in rows {
            for worse in rows {
                let (a, b) = (better.published_jct_s, worse.published_jct_s);
                let is_published = a.zip(b).is_some_and(|(a, b)| a * (1.0 + TIE) < b);
                let holds = better.avg_jct_s <= worse.avg_jct_s * (1.0 + TIE);
                let (cluster, better, worse) = (&better.cluster, better.policy, worse.policy);
                assert!(
                    !is_published || holds,
                    "{cluster}: {better} is worse than {worse}"
                );
            }
        }
    }
}
