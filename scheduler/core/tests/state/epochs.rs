//! Epochs after a restore: what the old cluster started after the backup is never taken for what starts now.

use std::sync::Arc;

use berth_core::apply::{CommandResult, apply};
use berth_core::command::{Bundle, Start};
use berth_core::{Command, State};
use berth_types::{Epoch, GpuShare, JobId, NodeId, Rank, TaskPlacement};

use crate::make;

fn start_as(state: &mut State, epoch: u32) -> bool {
    let placement = TaskPlacement {
        rank: Rank(0),
        group: 0,
        node: NodeId(1),
        gpus: vec![GpuShare {
            gpu: 0,
            milligpu: 1000,
        }],
    };
    let start = Start {
        job: JobId(1),
        epoch: Epoch(epoch),
        placements: vec![placement],
        master_port: 20_000,
        because: String::new(),
    };
    let bundles = vec![Bundle {
        evictions: Vec::new(),
        starts: vec![start],
    }];
    let command = Command::ApplyPlan { plan: 1, bundles };
    let results = apply(state, 2, &make::entry(1_001, vec![command])).results;
    matches!(&results[..], [CommandResult::Bundles(bundles)] if bundles[0].is_ok())
}

fn with_a_job(epoch_floor: u32) -> State {
    let mut state = State::new();
    state.epoch_floor = epoch_floor;
    let node = Command::RegisterNode {
        spec: Arc::new(make::node("n1", 1)),
        incarnation: 1,
    };
    let submit = make::submit(make::key(1_000, 1), make::job("j", 1));
    apply(&mut state, 1, &make::entry(1_000, vec![node, submit]));
    state
}

#[test]
fn attempts_start_above_the_floor() {
    let mut state = with_a_job(1_000);
    assert!(!start_as(&mut state, 1), "a number of the old cluster");
    assert!(start_as(&mut state, 1_001));
    assert_eq!(state.check(), Ok(()));
    assert!(start_as(&mut with_a_job(0), 1));
}
