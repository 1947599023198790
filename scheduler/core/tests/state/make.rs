//! Small specs, nodes and entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::command::ProposalTag;
use berth_core::{Command, LogEntry};
use berth_types::{GpuInfo, GroupSpec, JobSpec, NodeSpec, Resources};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn group(name: &str, workers: u32) -> GroupSpec {
    GroupSpec {
        name: name.into(),
        command: vec!["train".into()],
        min_workers: workers,
        max_workers: workers,
        gang: true,
        resources: Resources {
            milligpu: 1000,
            millicpu: 1000,
            mem_bytes: GIB,
            ..Resources::default()
        },
        node_labels: BTreeMap::new(),
    }
}

pub(crate) fn job(name: &str, workers: u32) -> JobSpec {
    JobSpec {
        name: name.into(),
        user: "ann".into(),
        groups: vec![group("worker", workers)],
        ..JobSpec::default()
    }
}

pub(crate) fn node(name: &str, gpus: u16) -> NodeSpec {
    let gpu = |i| GpuInfo {
        uuid: format!("{name}-{i}"),
        model: "a100".into(),
        mem_bytes: 40 * GIB,
        nvlink_group: 0,
        numa: 0,
    };
    NodeSpec {
        name: name.into(),
        address: "127.0.0.1".into(),
        millicpu: 16_000,
        mem_bytes: 64 * GIB,
        gpus: (0..gpus).map(gpu).collect(),
        simulated_gpus: true,
        port_first: 20_000,
        port_count: 100,
        ..NodeSpec::default()
    }
}

/// A UUIDv7 drawn at this time.
pub(crate) fn key(at_ms: u64, random: u64) -> u128 {
    let time = u128::from(at_ms & 0xffff_ffff_ffff) << 80;
    let random = u128::from(random & 0x3fff_ffff_ffff_ffff);
    time | (7 << 76) | (0b10 << 62) | random
}

pub(crate) fn entry(stamp_ms: u64, commands: Vec<Command>) -> LogEntry {
    LogEntry {
        tag: ProposalTag::default(),
        stamp_ms,
        commands,
    }
}

pub(crate) fn submit(key: u128, spec: JobSpec) -> Command {
    Command::SubmitJob {
        key,
        hash: berth_core::codec::spec_hash(&spec),
        spec: Arc::new(spec),
    }
}
