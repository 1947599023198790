//! Values that contradict themselves are told apart from sound ones, field by field.

use std::collections::BTreeMap;

use berth_types::job::{MAX_GRACE_MS, MAX_GROUPS, MAX_ITEMS, MAX_TEXT_BYTES, MAX_WORKERS};
use berth_types::node::{MAX_GPUS, MAX_MILLICPU};
use berth_types::{GpuInfo, GroupSpec, JobSpec, NodeSpec, Resources};
use proptest::prelude::*;

fn group(name: &str) -> GroupSpec {
    GroupSpec {
        name: name.into(),
        command: vec!["python3".into(), "train.py".into()],
        min_workers: 1,
        max_workers: 2,
        gang: true,
        resources: Resources {
            milligpu: 1000,
            ..Resources::default()
        },
        node_labels: BTreeMap::new(),
    }
}

fn job() -> JobSpec {
    JobSpec {
        name: "digits".into(),
        user: "ann".into(),
        groups: vec![group("worker")],
        ..JobSpec::default()
    }
}

/// The fields at fault after a change to a sound job.
fn fields(change: impl FnOnce(&mut JobSpec)) -> Vec<String> {
    let mut spec = job();
    change(&mut spec);
    let mut fields: Vec<String> = spec.faults().into_iter().map(|f| f.field).collect();
    fields.dedup();
    fields
}

/// A change that breaks one field, and the field's name.
type Case = (&'static str, fn(&mut JobSpec));

#[test]
fn a_sound_job_has_no_fault() {
    assert_eq!(job().faults(), []);
    assert_eq!(fields(|s| s.groups[0].resources.milligpu = 500), [""; 0]);
    assert_eq!(fields(|s| s.groups[0].resources.milligpu = 3000), [""; 0]);
    assert_eq!(fields(|s| s.groups[0].max_workers = MAX_WORKERS), [""; 0]);
}

#[test]
fn each_fault_names_its_field() {
    let cases: &[Case] = &[
        ("name", |s| s.name.clear()),
        ("name", |s| s.name = "a/b".into()),
        ("name", |s| s.name = "..".into()),
        ("name", |s| s.name = "x".repeat(129)),
        ("user", |s| s.user = "a\nb".into()),
        ("queue", |s| s.queue.clear()),
        ("groups", |s| s.groups.clear()),
        ("groups", |s| s.groups = vec![group("g"); MAX_GROUPS + 1]),
        ("groups", |s| s.groups[0].max_workers = MAX_WORKERS + 1),
        ("groups[1].name", |s| s.groups.push(group("worker"))),
        ("groups[0].command", |s| s.groups[0].command.clear()),
        ("groups[0].command", |s| s.groups[0].command[0].clear()),
        ("groups[0].command", |s| {
            s.groups[0].command[1] = "a\0".into()
        }),
        ("groups[0].command", |s| {
            s.groups[0].command = vec!["x".into(); MAX_ITEMS + 1];
        }),
        ("groups[0].min_workers", |s| s.groups[0].min_workers = 0),
        ("groups[0].max_workers", |s| s.groups[0].min_workers = 3),
        ("groups[0].resources.gpus", |s| {
            s.groups[0].resources.milligpu = 1500
        }),
        ("groups[0].resources.gpus", |s| {
            s.groups[0].resources.milligpu = 0;
            s.groups[0].resources.gpu_mem_bytes = 1;
        }),
        ("env", |s| {
            s.env.insert("A=B".into(), String::new());
        }),
        ("env", |s| {
            s.env.insert("A".into(), "\0".into());
        }),
        ("env", |s| {
            s.env.insert("A".into(), "x".repeat(MAX_TEXT_BYTES));
        }),
        ("checkpoint.keep", |s| s.checkpoint.keep = 0),
        ("checkpoint.dir", |s| s.checkpoint.dir = "here".into()),
        ("work_dir", |s| s.work_dir = "here".into()),
        ("work_dir", |s| s.work_dir = "/\0".into()),
        ("grace", |s| s.grace_ms = MAX_GRACE_MS + 1),
    ];
    for (field, change) in cases {
        assert_eq!(fields(change), [*field]);
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let found = fields(|s| {
        s.name.clear();
        s.groups[0].min_workers = 0;
        s.checkpoint.keep = 0;
    });
    assert_eq!(found, ["name", "groups[0].min_workers", "checkpoint.keep"]);
}

fn node() -> NodeSpec {
    let gpu = |i| GpuInfo {
        uuid: format!("GPU-{i}"),
        model: "a100".into(),
        mem_bytes: 1 << 35,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: "n1".into(),
        address: "10.0.0.1".into(),
        gpus: (0..4).map(gpu).collect(),
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

/// A change that breaks one field of a node, and the field's name.
type NodeCase = (&'static str, fn(&mut NodeSpec));

#[test]
fn a_node_that_cannot_be_is_refused() {
    let cases: &[NodeCase] = &[
        ("name", |s| s.name.clear()),
        ("address", |s| s.address.clear()),
        ("gpus", |s| {
            let nameless = GpuInfo {
                uuid: String::new(),
                ..s.gpus[0].clone()
            };
            s.gpus = vec![nameless; MAX_GPUS + 1];
        }),
        ("gpus[1].uuid", |s| s.gpus[1].uuid = "GPU-0".into()),
        ("millicpu", |s| s.millicpu = MAX_MILLICPU + 1),
        ("mem_bytes", |s| s.mem_bytes = u64::MAX),
        ("labels", |s| s.rack = "x".repeat(1 << 20)),
        ("port_first", |s| s.port_first = 65_500),
        ("port_first", |s| s.port_first = 0),
    ];
    assert_eq!(node().faults(), []);
    for (field, change) in cases {
        let mut spec = node();
        change(&mut spec);
        let found: Vec<String> = spec.faults().into_iter().map(|f| f.field).collect();
        assert_eq!(found, [*field]);
    }
}

proptest! {
    /// Whatever numbers a job says, it is judged without a panic, and what passes is bounded.
    #[test]
    fn numbers_are_judged(min in any::<u32>(), max in any::<u32>(), milligpu in any::<u32>(), n in 0usize..40) {
        let mut spec = job();
        spec.groups = (0..n).map(|i| GroupSpec { min_workers: min, max_workers: max, ..group(&format!("g{i}")) }).collect();
        for group in &mut spec.groups {
            group.resources.milligpu = milligpu;
        }
        let sound = spec.faults().is_empty();
        prop_assert!(spec.min_workers() >= min.min(n as u32));
        if sound {
            prop_assert!(n > 0 && min > 0 && min <= max);
            prop_assert!(u64::from(max) * n as u64 <= u64::from(MAX_WORKERS));
            prop_assert!(milligpu <= 1000 || milligpu % 1000 == 0);
        }
    }

    /// Names pass only if they can be shown on one line and used in a path.
    #[test]
    fn names_are_judged(name in ".{0,140}") {
        let mut spec = job();
        spec.name.clone_from(&name);
        if spec.faults().is_empty() {
            prop_assert!(!name.is_empty() && name.len() <= 128);
            prop_assert!(!name.contains(|c: char| c.is_control() || c == '/'));
        }
    }
}
