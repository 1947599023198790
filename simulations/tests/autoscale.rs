//! Pools that follow the load: what a reactive autoscaler gets and what it costs.

use std::sync::Arc;

use berth_policy::registry;
use berth_sim::cluster;
use berth_sim::input::Source;
use berth_sim::load::{self, Extras, Format, Limits};
use berth_world::twin::{self, Outcome, Setting};

const CLUSTER: &str = r#"
[gpu_models.a]

[[pools]]
name = "dear"
gpu = "a"
nodes = 0
max_nodes = 8
gpus_per_node = 4
boot_delay = "2m"
price_per_hour = 9

[[pools]]
name = "cheap"
gpu = "a"
nodes = 1
max_nodes = 3
gpus_per_node = 4
boot_delay = "5m"
price_per_hour = 2
"#;

const HEADER: &str = "job_id,submit_s,user,family,gpus,run_s,end,expected_s\n";

fn run(cluster: &str, jobs: &[(u64, u32, u64)], policy: &str) -> Outcome {
    let cluster = cluster::read("c.toml", cluster)
        .expect("it is sound")
        .cluster;
    let rows = jobs
        .iter()
        .enumerate()
        .map(|(id, (submit_s, gpus, run_s))| {
            format!("{id},{submit_s},u,f,{gpus},{run_s},completed,0\n")
        });
    let table = HEADER.to_owned() + &rows.collect::<String>();
    let source = Source::memory("jobs.csv", table).expect("it is in memory");
    let limits = Limits::of(&cluster);
    let loaded = load::load(Format::BerthCsv, source, &Extras::default(), &limits);
    let trace = loaded.expect("it is sound").trace;
    let mut setting = Setting::new(Arc::new(cluster), Arc::new(trace));
    setting.checks = true;
    let mut policy = registry::by_name(policy).expect("it is listed");
    twin::run(&setting, &mut *policy, &mut twin::unwatched).expect("it runs")
}

fn ends_s(outcome: &Outcome) -> Vec<Option<u64>> {
    let ends = outcome.jobs.iter().map(|job| job.end_ms);
    ends.map(|end| end.map(|ms| ms / 1_000)).collect()
}

#[test]
fn what_waits_gets_the_cheapest_nodes_and_idle_ones_go() {
    // The first fills what there is; the gang of two nodes needs both cheap ones.
    let jobs = [(0, 4, 7_200), (60, 8, 600), (20_000, 1, 10)];
    let scaled = run(CLUSTER, &jobs, "autoscale+fifo");
    assert_eq!(
        ends_s(&scaled),
        [Some(7_200), Some(60 + 300 + 600), Some(20_010)]
    );
    let of = |name: &str| scaled.nodes.iter().find(|used| used.pool == name).unwrap();
    assert_eq!((of("dear").most, of("dear").granted), (0, 0));
    let cheap = of("cheap");
    assert_eq!((cheap.most, cheap.granted), (3, 2));
    // Two nodes for boot, run and ten idle minutes.
    assert_eq!(cheap.held_ms, (20_010 + 2 * (300 + 600 + 600)) * 1_000);
    let fixed = run(CLUSTER, &jobs, "fifo");
    assert_eq!(ends_s(&fixed)[1], None, "nobody asked for more nodes");
}

#[test]
fn a_gang_beyond_the_cheap_pool_takes_what_it_needs_of_both() {
    let outcome = run(CLUSTER, &[(0, 24, 100)], "autoscale:idle=60+fifo");
    assert_eq!(ends_s(&outcome), [Some(400)], "the slower boot counts");
    let held: Vec<u32> = outcome.nodes.iter().map(|used| used.most).collect();
    assert_eq!(held, [3, 3]);
}

#[test]
fn scans_are_seconds_apart() {
    let jobs = [(0, 4, 1_000), (3, 4, 1_000), (5, 4, 1_000), (7, 4, 1_000)];
    let outcome = run(CLUSTER, &jobs, "autoscale:scan=30+fifo");
    let starts: Vec<u64> = outcome
        .jobs
        .iter()
        .filter_map(|job| job.first_start_ms)
        .collect();
    // The first round scans and wants nothing; the next scan is 30 s later and sees all three.
    assert_eq!(starts, [0, 150_000, 330_000, 330_000]);
}

#[test]
fn a_pool_that_is_denied_leaves_the_work_to_another() {
    let denied = CLUSTER.replace(
        "nodes = 1\nmax_nodes = 3",
        "nodes = 1\nmax_nodes = 3\nquota_nodes = 1",
    );
    let outcome = run(&denied, &[(0, 4, 1_000), (0, 4, 1_000)], "autoscale+fifo");
    let cheap = outcome
        .nodes
        .iter()
        .find(|used| used.pool == "cheap")
        .unwrap();
    assert_eq!((cheap.granted, cheap.denied > 0), (0, true));
    let dear = outcome
        .nodes
        .iter()
        .find(|used| used.pool == "dear")
        .unwrap();
    assert_eq!(dear.granted, 1);
    assert_eq!(outcome.unfinished, 0);
}
