//! Pod lists, orders of arrival, and, where the recorded traces are there, FGD's published figures.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read the environment

use berth_sim::input::{InputError, Source, traces_dir};
use berth_sim::load::openb::{Arrivals, load, load_packing};
use berth_sim::load::{Limits, Loaded};
use berth_sim::reproduce::openb::{Cell, LOADS, POLICIES, Packing, Published, cells};
use berth_types::NodeSpec;
use berth_world::twin::{Cluster, End, Rigid, Truth};

const PODS: &str = "\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p2,4000,1024,2,1000,T4|A10,LS,Failed,10,40,20
p1,1000,0,1,460,,LS,Running,5,25,5
p3,2000,512,0,0,,BE,Pending,12,30,
";

const ORDER: &str =
    "node_rank\t7\t1 2 0\npod_order\t7\t2 0 1 0\nnode_rank\t8\t0 1 2\npod_order\t8\t0\n";

fn source(name: &str, text: &str) -> Source {
    Source::memory(name, text).expect("it is plain text")
}

fn arrivals(text: &str, seed: u64) -> Result<Arrivals, InputError> {
    Arrivals::read(source("order.tsv", text), seed)
}

fn pods(text: &str) -> Result<Loaded, InputError> {
    load(source("pods.csv", text), &Limits::none())
}

fn told<T: std::fmt::Debug>(result: Result<T, InputError>) -> String {
    result.expect_err("it is not sound").to_string()
}

#[test]
fn pods_come_at_their_own_times_with_what_they_ask_for() {
    let trace = pods(PODS).expect("it is sound").trace;
    let keys: Vec<&str> = trace.jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!(keys, ["p1", "p2", "p3"], "by creation");
    let asked = |at: usize| &trace.jobs[at].spec.groups[0].resources;
    assert_eq!((asked(0).milligpu, asked(0).millicpu), (460, 1_000));
    assert_eq!(asked(1).milligpu, 2_000);
    assert_eq!(asked(1).mem_bytes, 1 << 30);
    assert_eq!(asked(1).gpu_types, ["T4", "A10"]);
    assert_eq!(asked(2).milligpu, 0);
    let truth = |run_ms, end| Truth::Rigid(Rigid { run_ms, end });
    assert_eq!(trace.jobs[1].submit_ms, 5_000, "from the first one");
    assert_eq!(trace.jobs[1].truth, truth(20_000, End::Failed));
    assert_eq!(
        trace.jobs[2].truth,
        truth(18_000, End::Completed),
        "never started: from its creation"
    );
    assert!(trace.jobs.iter().all(|job| !job.spec.start_now));
}

#[test]
fn an_order_repeats_pods_that_never_leave() {
    let order = arrivals(ORDER, 7).expect("it is sound");
    let pods = source("pods.csv", PODS);
    let loaded = load_packing(pods, &order).expect("it is sound");
    let keys: Vec<&str> = (loaded.trace.jobs.iter())
        .map(|job| job.key.as_str())
        .collect();
    assert_eq!(keys, ["p3", "p1", "p2", "p1.2"], "indexes by name");
    assert_eq!(loaded.typical.len(), 3, "the list itself");
    let mut last = None;
    for job in &loaded.trace.jobs {
        assert!(job.spec.start_now && last < Some(job.submit_ms));
        last = Some(job.submit_ms);
        let Truth::Rigid(truth) = &job.truth else {
            panic!("a pod has a fixed size");
        };
        assert_eq!(truth.run_ms, u64::MAX);
    }
}

#[test]
fn nodes_register_in_the_order_of_their_ranks() {
    let named = |name: &str| NodeSpec {
        name: name.into(),
        ..NodeSpec::default()
    };
    let mut cluster = Cluster {
        nodes: ["n2", "n0", "n1"].map(named).to_vec(),
        ..Cluster::default()
    };
    let order = arrivals(ORDER, 7).expect("it is sound");
    order
        .arrange(&mut cluster)
        .expect("three ranks, three nodes");
    let names: Vec<&str> = cluster.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["n2", "n0", "n1"], "ranks 1, 2, 0 by name");
    cluster.nodes.pop();
    assert_eq!(
        told(order.arrange(&mut cluster)),
        "order.tsv:1: column `node_rank`: 3 ranks for a cluster of 2 nodes; \
         hint: these orders were drawn for the cluster `openb`"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let order = arrivals("node_rank\t7\t0\npod_order\t7\t0 x\n", 7);
    assert!(told(order).starts_with("order.tsv:2: column `numbers`: `x` is no whole number"));
    assert!(told(arrivals(ORDER, 9)).contains("seed 9 has no pod_order"));
    assert!(told(arrivals("ranks\t7\t0\n", 7)).starts_with("order.tsv:1: column `kind`"));
    let double = arrivals("node_rank\t7\t0 0\npod_order\t7\t0\n", 7).expect("it can be read");
    assert!(told(double.arrange(&mut Cluster::default())).contains("each once"));

    let twice = PODS.replace("p3,", "p1,");
    assert!(told(pods(&twice)).starts_with("pods.csv:4: column `name`: pod `p1` was on line 3"));
    let half = PODS.replace("2,1000,T4", "2,500,T4");
    assert!(told(pods(&half)).starts_with("pods.csv:2: column `gpu_milli`"));
    let backwards = PODS.replace("10,40,20", "10,15,20");
    assert!(told(pods(&backwards)).starts_with("pods.csv:2: column `deletion_time`"));
    let timeless = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,1,1000\n";
    assert!(told(pods(timeless)).contains("--arrivals"));

    let order = arrivals("node_rank\t7\t0\npod_order\t7\t3\n", 7).expect("it can be read");
    let beyond = load_packing(source("pods.csv", PODS), &order);
    assert!(
        told(beyond).starts_with("order.tsv:2: column `pod_order`: pod 3 where the list has 3")
    );
}

#[test]
fn ranks_of_another_origin_stay_as_they_are() {
    let mut order = arrivals(ORDER, 7).expect("it is sound");
    let list = load_packing(source("pods.csv", PODS), &order)
        .expect("it is sound")
        .typical;
    let before = order.clone();
    assert!(!order.as_published(7, &list, 3_000));
    assert_eq!(order, before);
}

/// Run by run, and at every load.
#[test]
fn the_published_figures_of_the_default_list_come_out() {
    let Some(traces) = traces_dir() else {
        eprintln!("SKIPPED: BERTH_TRACES does not name the folder of recorded traces");
        return;
    };
    let published = Published::read(&traces).expect("the published figures are there");
    let packing = Packing::read(&traces, "default", 43).expect("it is there");
    for (policy, called, _) in POLICIES {
        let ran = packing.run(policy, 0).expect("it runs");
        let cells = cells(&published, "default", policy, &[(43, ran.clone())]);
        assert_eq!(cells.len(), LOADS.len());
        if policy == "random" {
            // One draw; the figures are compared by the mean of several.
            let off = |cell: &Cell| (cell.measured - cell.published).abs();
            assert!(cells.iter().all(|cell| off(cell) < 1.5), "{cells:?}");
            continue;
        }
        // The published figures have two digits; two policies leave some of the last ones to chance.
        let band = if ["fgd", "dot-product"].contains(&policy) {
            0.2
        } else {
            0.011
        };
        for (load, share) in ran {
            let Some(there) = published.at("default", called, 43, load) else {
                continue;
            };
            assert!(
                (share - there).abs() < band,
                "{policy} at {load} %: {share}, published {there}"
            );
        }
    }
}
