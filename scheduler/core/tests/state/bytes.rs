//! Bytes: what was written once reads the same for ever, and nothing that is read can hurt.
//!
//! `tests/golden/entries.txt` holds one entry per command in hexadecimal. It only ever grows: a line that changes means
//! that old logs can no longer be read. `UPDATE_GOLDEN=1` adds new lines and refuses to change old ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use berth_core::apply::apply;
use berth_core::codec::{
    CodecError, MAX_COMMANDS, MAX_ENTRY_BYTES, decode_entry, decode_finished, decode_state,
    encode_entry, encode_finished, encode_state,
};
use berth_core::command::ProposalTag;
use berth_core::{Bundle, Command, Eviction, LogEntry, Start};
use berth_types::api::{Drain, MasterInfo, Progress};
use berth_types::{
    CheckpointRecord, Epoch, Evidence, Finding, GpuShare, Grant, HealthOrder, Identity, JobId,
    JoinToken, MasterId, NodeId, Outage, Rank, Role, Sign, TaskExit, TaskInventory, TaskKey,
    TaskPlacement,
};
use proptest::prelude::*;

use crate::make;
use crate::script::Script;

/// One command of each kind, with every field set.
fn commands() -> Vec<(&'static str, Command)> {
    let mut all = cluster_commands();
    all.extend(job_commands());
    all.extend(certificate_commands());
    all.extend(health_commands());
    all
}

/// Every kind of evidence.
fn record_health(node: NodeId) -> Command {
    let evidence = [
        Evidence::Xid {
            xid: 79,
            at_ms: 5_000,
        },
        Evidence::Out(Outage::Lost),
        Evidence::Back,
        Evidence::Sign {
            sign: Sign::SlowToAnswer,
            points: 100,
            text: "slow".into(),
        },
        Evidence::Forecast {
            per_mille: 900,
            text: "errors grow".into(),
        },
        Evidence::Checked {
            number: 2,
            passed: true,
            text: "sound".into(),
        },
    ];
    let findings = evidence.into_iter().map(|evidence| Finding {
        gpu: Some(1),
        evidence,
    });
    Command::RecordHealth {
        node,
        findings: findings.collect(),
    }
}

fn cluster_commands() -> Vec<(&'static str, Command)> {
    let info = MasterInfo {
        address: "127.0.0.1:7001".into(),
    };
    let mut spec = make::node("n1", 2);
    spec.labels.insert("disk".into(), "fast".into());
    spec.rack = "r1".into();
    spec.agent_version = "0.1.0".into();
    let drain = Some(Drain {
        reason: "maintenance".into(),
        evict: true,
    });
    let node = NodeId(7);
    vec![
        (
            "Bootstrap",
            Command::Bootstrap {
                cluster_id: 0x1234_5678_9abc_def0,
                masters: vec![(MasterId(1), info.clone())],
            },
        ),
        (
            "RegisterNode",
            Command::RegisterNode {
                spec: Arc::new(spec),
                incarnation: 99,
            },
        ),
        (
            "MarkNodeLost",
            Command::MarkNodeLost {
                node,
                reason: "silent".into(),
            },
        ),
        (
            "FenceNode",
            Command::FenceNode {
                node,
                by_operator: true,
            },
        ),
        ("SetDrain", Command::SetDrain { node, drain }),
        ("SetDrain none", Command::SetDrain { node, drain: None }),
        (
            "SetMaster",
            Command::SetMaster {
                id: MasterId(2),
                info: Some(info),
            },
        ),
        (
            "SetMaster none",
            Command::SetMaster {
                id: MasterId(2),
                info: None,
            },
        ),
        (
            "SetClusterVersion",
            Command::SetClusterVersion { version: 3 },
        ),
    ]
}

fn health_commands() -> Vec<(&'static str, Command)> {
    let node = NodeId(7);
    vec![
        ("RecordHealth", record_health(node)),
        (
            "OrderHealth",
            Command::OrderHealth {
                node,
                gpu: Some(3),
                order: HealthOrder::Quarantine {
                    reason: "smells".into(),
                },
            },
        ),
        ("ReviewHealth", Command::ReviewHealth { node, gpu: None }),
    ]
}

fn certificate_commands() -> Vec<(&'static str, Command)> {
    let identity = Identity {
        role: Role::Node,
        name: "gpu-01".into(),
    };
    let issue = |grant| Command::IssueCertificate {
        identity: identity.clone(),
        lifetime_ms: 604_800_000,
        grant,
    };
    let token = JoinToken {
        id: 0xfeed_beef,
        uses: 3,
        expires_ms: 1_700_000_600_000,
        exact: true,
    };
    vec![
        ("IssueCertificate token", issue(Grant::Token(token))),
        (
            "IssueCertificate renewal",
            issue(Grant::Renewal { serial: 300 }),
        ),
        (
            "RevokeCertificates",
            Command::RevokeCertificates {
                identity: identity.clone(),
            },
        ),
    ]
}

fn plan() -> Command {
    let share = |gpu, milligpu| GpuShare { gpu, milligpu };
    let placement = TaskPlacement {
        rank: Rank(0),
        group: 1,
        node: NodeId(7),
        gpus: vec![share(0, 1000), share(3, 1000)],
    };
    Command::ApplyPlan {
        plan: 5,
        bundles: vec![Bundle {
            evictions: vec![Eviction {
                job: JobId(300),
                epoch: Epoch(2),
                reason: "room".into(),
            }],
            starts: vec![Start {
                job: JobId(301),
                epoch: Epoch(1),
                placements: vec![placement],
                master_port: 20_001,
                because: "fits".into(),
            }],
        }],
    }
}

/// A node's word on a task in each state.
fn reports(job: JobId, epoch: Epoch) -> Command {
    let key = |rank| TaskKey {
        job,
        epoch,
        rank: Rank(rank),
    };
    let exit = TaskExit {
        code: -1,
        at_ms: 1_700_000_000_000,
        reason: "no such file".into(),
        node_fault: true,
    };
    Command::RecordTasks {
        node: NodeId(7),
        tasks: vec![
            (key(0), TaskInventory::Preparing),
            (key(1), TaskInventory::Running { since_ms: 9 }),
            (key(2), TaskInventory::Ended(exit)),
        ],
    }
}

fn job_commands() -> Vec<(&'static str, Command)> {
    let (job, epoch) = (JobId(300), Epoch(2));
    let mut spec = make::job("digits", 2);
    spec.env.insert("A".into(), "b".into());
    spec.labels.insert("team".into(), "x".into());
    spec.groups[0].resources.gpu_types = vec!["a100".into()];
    spec.groups[0]
        .node_labels
        .insert("disk".into(), "fast".into());
    spec.priority = -5;
    let record = CheckpointRecord {
        epoch,
        step: 1200,
        path: "/ckpt".into(),
        bytes: 1 << 33,
        manifest_sha256: "ab".repeat(32),
        save_ms: 1500,
    };
    let progress = Progress {
        step: 5,
        samples: 640,
        loss_micros: Some(-3),
        step_us: Some(900),
        at_ms: 1_700_000_000_000,
    };
    let reason = String::from("damaged");
    vec![
        (
            "SubmitJob",
            make::submit(make::key(1_700_000_000_000, 42), spec),
        ),
        (
            "CancelJob",
            Command::CancelJob {
                job,
                user: "bob".into(),
            },
        ),
        ("ApplyPlan", plan()),
        ("RecordTasks", reports(job, epoch)),
        (
            "RecordCheckpoint",
            Command::RecordCheckpoint { job, record },
        ),
        (
            "RejectCheckpoint",
            Command::RejectCheckpoint {
                job,
                epoch,
                step: 1200,
                reason: reason.clone(),
            },
        ),
        (
            "RecordProgress",
            Command::RecordProgress {
                progress: vec![(job, epoch, progress)],
            },
        ),
        ("ExpireAttempt", Command::ExpireAttempt { job, epoch }),
        ("RejectJob", Command::RejectJob { job, reason }),
    ]
}

fn golden_entry(command: Command) -> LogEntry {
    LogEntry {
        tag: ProposalTag {
            proposer: 0xfeed,
            seq: 3,
        },
        stamp_ms: 1_700_000_000_123,
        commands: vec![command],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn golden_entries_read_and_write_the_same() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/entries.txt");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let mut golden: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, hex)| (name, hex.to_owned()))
        .collect();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut numbers = Vec::new();
    for (name, command) in commands() {
        let entry = golden_entry(command);
        let bytes = encode_entry(&entry);
        let is = hex(&bytes);
        if update {
            golden.entry(name).or_insert_with(|| is.clone());
        }
        let should = golden.get(name);
        assert_eq!(Some(&is), should, "{name} is written differently");
        assert_eq!(decode_entry(&bytes).expect(name), entry, "{name}");
        // Behind version, tag (3 + 1 bytes), stamp (6) and count (1) comes the command's number.
        numbers.push(bytes[12]);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(
        numbers,
        (0..21).collect::<Vec<u8>>(),
        "a command without golden bytes"
    );
    if update {
        let lines: Vec<String> = golden.iter().map(|(n, h)| format!("{n}: {h}\n")).collect();
        fs::write(&path, lines.concat()).expect("writable");
    }
}

#[test]
fn what_a_newer_binary_wrote_is_named() {
    let mut bytes = encode_entry(&golden_entry(plan())).to_vec();
    bytes[12] = 21;
    assert!(matches!(
        decode_entry(&bytes),
        Err(CodecError::UnknownCommand(21))
    ));
    bytes[0] = 2;
    assert!(matches!(
        decode_entry(&bytes),
        Err(CodecError::Version {
            found: 2,
            known: 1,
            ..
        })
    ));
}

#[test]
fn damage_is_named() {
    let bytes = encode_entry(&golden_entry(plan())).to_vec();
    assert!(matches!(decode_entry(&[]), Err(CodecError::Empty(_))));
    let cut = &bytes[..bytes.len() - 1];
    assert!(matches!(decode_entry(cut), Err(CodecError::Damaged { .. })));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(
        decode_entry(&longer),
        Err(CodecError::Trailing { bytes: 1, .. })
    ));
    let long = vec![1; MAX_ENTRY_BYTES + 1];
    assert!(matches!(decode_entry(&long), Err(CodecError::TooLong(_))));
    let many = golden_entry(plan());
    let many = LogEntry {
        commands: vec![Command::SetClusterVersion { version: 1 }; MAX_COMMANDS + 1],
        ..many
    };
    let many = encode_entry(&many);
    assert!(matches!(
        decode_entry(&many),
        Err(CodecError::TooManyCommands(_))
    ));
}

/// A state with something of everything, and a job that has finished.
fn busy() -> (Script, Vec<berth_core::state::FinishedJob>) {
    let mut script = Script::new();
    for line in [
        "node n1 gpus=4 label=disk:fast",
        "node n2 gpus=4",
        "submit a workers=2 rule=fence",
        "submit b",
        "submit c prio=3",
        "start 1 n1:0 n2:0",
        "start 2 n1:1",
        "running 2",
        "checkpoint 1 10",
        "progress 2 5",
        "evict 2 room then start 3 n1:1",
        "lost n2",
    ] {
        script.line(line);
    }
    let cancel = Command::CancelJob {
        job: JobId(3),
        user: "bob".into(),
    };
    let entry = make::entry(0, vec![cancel]);
    let finished = apply(&mut script.state, 1, &entry).finished;
    (script, finished)
}

#[test]
fn states_and_finished_jobs_survive_their_bytes() {
    let (script, finished) = busy();
    let bytes = encode_state(&script.state);
    let read = decode_state(&bytes).expect("own bytes");
    assert_eq!(read, script.state);
    assert_eq!(read.digest(), script.state.digest());
    let [job] = finished.as_slice() else {
        panic!("one job was cancelled: {finished:?}");
    };
    assert_eq!(
        decode_finished(&encode_finished(job)).expect("own bytes"),
        *job
    );
}

#[test]
fn a_state_from_before_certificates_and_health_is_read() {
    let (mut script, _) = busy();
    script.state.health.clear();
    let mut bytes = encode_state(&script.state).to_vec();
    // Behind everything else: the health of no node.
    assert_eq!(bytes.pop(), Some(0));
    bytes[0] = 2;
    assert_eq!(decode_state(&bytes).expect("an old state"), script.state);
    // Before that: no number, three empty maps, never pruned.
    assert_eq!(bytes[bytes.len() - 5..], [0; 5]);
    bytes.truncate(bytes.len() - 5);
    bytes[0] = 1;
    assert_eq!(decode_state(&bytes).expect("an older state"), script.state);
    bytes[0] = 3;
    assert!(decode_state(&bytes).is_err());
}

#[test]
fn the_digest_sees_every_record() {
    let (script, _) = busy();
    let mut other = script.state.clone();
    other.keys_from_ms += 1;
    assert_ne!(other.digest(), script.state.digest());
}

proptest! {
    /// Any bytes are refused or read, and what is read is applied without a panic and leaves a sound state.
    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_entry(&bytes);
        let _ = decode_state(&bytes);
        let _ = decode_finished(&bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(entry) = decode_entry(&bytes) {
            let (mut script, _) = busy();
            apply(&mut script.state, 1, &entry);
            prop_assert_eq!(script.state.check(), Ok(()));
        }
        let _ = decode_state(&bytes);
        let _ = decode_finished(&bytes);
    }

    /// Entries with a few bytes changed: far more often read, and as harmless.
    #[test]
    fn changed_entries_do_no_harm(
        which in 0usize..21,
        changes in proptest::collection::vec((11usize..200, any::<u8>()), 0..4),
    ) {
        let all = commands();
        let (_, command) = all[which % all.len()].clone();
        let mut bytes = encode_entry(&golden_entry(command)).to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            if at >= 11 {
                bytes[at] = byte;
            }
        }
        if let Ok(entry) = decode_entry(&bytes) {
            let (mut script, _) = busy();
            apply(&mut script.state, 1, &entry);
            prop_assert_eq!(script.state.check(), Ok(()));
        }
    }
}
