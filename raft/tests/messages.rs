//! Peer messages: the wire form, and that nothing a peer sends brings a member down.
#![allow(clippy::unwrap_used)]

use berth_raft::{
    Config, Membership, Message, MessageKind, Raft, RaftError, Recovered, Role, Snapshot,
    SnapshotMeta,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

/// Protobuf by hand: a number field.
fn number(out: &mut Vec<u8>, tag: u64, value: u64) {
    varint(out, tag << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(out: &mut Vec<u8>, tag: u64, value: &[u8]) {
    varint(out, tag << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The fields of a message, mostly plausible, so that the checks behind the decoder are reached.
#[derive(Debug, Clone)]
struct Fields {
    kind: u64,
    from: u64,
    to: u64,
    term: u64,
    log_term: u64,
    index: u64,
    entries: Vec<(u64, u64, u64, Vec<u8>)>,
    commit: u64,
    snapshot: Option<(u64, u64, Vec<u64>, Vec<u64>)>,
    reject: bool,
    reject_hint: u64,
    request_snapshot: u64,
    commit_term: u64,
    context: Vec<u8>,
}

impl Fields {
    fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        for (tag, value) in [
            (1, self.kind),
            (2, self.to),
            (3, self.from),
            (4, self.term),
            (5, self.log_term),
            (6, self.index),
            (8, self.commit),
            (10, u64::from(self.reject)),
            (11, self.reject_hint),
            (13, self.request_snapshot),
            (15, self.commit_term),
        ] {
            number(&mut out, tag, value);
        }
        for (kind, term, index, data) in &self.entries {
            let mut entry = Vec::new();
            number(&mut entry, 1, *kind);
            number(&mut entry, 2, *term);
            number(&mut entry, 3, *index);
            bytes_field(&mut entry, 4, data);
            bytes_field(&mut out, 7, &entry);
        }
        if let Some((index, term, voters, learners)) = &self.snapshot {
            let (mut conf, mut meta, mut snapshot) = (Vec::new(), Vec::new(), Vec::new());
            voters.iter().for_each(|v| number(&mut conf, 1, *v));
            learners.iter().for_each(|l| number(&mut conf, 2, *l));
            bytes_field(&mut meta, 1, &conf);
            number(&mut meta, 2, *index);
            number(&mut meta, 3, *term);
            bytes_field(&mut snapshot, 1, b"state");
            bytes_field(&mut snapshot, 2, &meta);
            bytes_field(&mut out, 9, &snapshot);
        }
        bytes_field(&mut out, 12, &self.context);
        out.into()
    }
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn fields() -> impl Strategy<Value = Fields> {
    let entry = (0..4u64, small(), small(), vec(any::<u8>(), 0..20));
    let consecutive = (small(), 1..6u64, 0..4u64).prop_map(|(from, term, n)| {
        (1..=n)
            .map(|i| (0, term, from.wrapping_add(i), b"x".to_vec()))
            .collect::<Vec<_>>()
    });
    let entries = prop_oneof![3 => consecutive, 1 => vec(entry, 0..4)];
    let snapshot = (small(), small(), vec(0..6u64, 0..4), vec(0..6u64, 0..3));
    (
        (
            0..20u64,
            0..5u64,
            prop_oneof![9 => Just(1u64), 1 => small()],
            small(),
            small(),
            small(),
        ),
        (
            entries,
            small(),
            proptest::option::of(snapshot),
            any::<bool>(),
            small(),
        ),
        (
            prop_oneof![9 => Just(0u64), 1 => small()],
            small(),
            vec(any::<u8>(), 0..18),
        ),
    )
        .prop_map(|(a, b, c)| Fields {
            kind: a.0,
            from: a.1,
            to: a.2,
            term: a.3,
            log_term: a.4,
            index: a.5,
            entries: b.0,
            commit: b.1,
            snapshot: b.2,
            reject: b.3,
            reject_hint: b.4,
            request_snapshot: c.0,
            commit_term: c.1,
            context: c.2,
        })
}

/// Member 1 of three, or the only member and leader.
fn member(leader: bool) -> Raft {
    let voters = if leader {
        Membership::new([1], [2])
    } else {
        Membership::of_voters([1, 2, 3])
    };
    let mut raft = Raft::new(
        Config {
            id: 1,
            ..Config::default()
        },
        Recovered::bootstrap(voters),
    )
    .unwrap();
    for _ in 0..40 {
        raft.tick();
        drain(&mut raft);
    }
    assert_eq!(raft.role() == Role::Leader, leader);
    raft
}

fn drain(raft: &mut Raft) {
    loop {
        let ready = raft.ready();
        if ready.is_empty() {
            return;
        }
        if let Some(snapshot) = ready.install {
            raft.on_applied(snapshot.meta.index);
        }
        for entry in ready.committed {
            if entry.kind == berth_raft::EntryKind::Membership
                && raft.apply_membership(&entry).is_err()
            {
                return;
            }
            raft.on_applied(entry.index);
        }
        if let Some(batch) = ready.persist {
            raft.persisted(batch.number).unwrap();
        }
    }
}

/// Panics inside raft-rs are caught; this tells that one happened.
fn panicked(raft: &Raft) -> bool {
    raft.failure()
        .is_some_and(|f| !f.contains("lost acknowledged") && !f.contains("membership"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_message(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(m) = Message::decode(bytes.into()) {
            let mut raft = member(false);
            let _ = raft.step(m);
            drain(&mut raft);
            prop_assert!(!panicked(&raft));
        }
    }

    #[test]
    fn messages_survive_the_wire(fields in fields()) {
        let m = Message::decode(fields.encode()).unwrap();
        prop_assert_eq!((m.from, m.to, m.term()), (fields.from, fields.to, fields.term));
        let again = Message::decode(m.encode()).unwrap();
        prop_assert_eq!(m, again);
    }

    #[test]
    fn no_sequence_of_messages_brings_a_member_down(leader in any::<bool>(), messages in vec(fields(), 1..20)) {
        let mut raft = member(leader);
        for (i, fields) in messages.iter().enumerate() {
            let m = Message::decode(fields.encode()).unwrap();
            let _ = raft.step(m);
            if i % 3 == 0 {
                raft.tick();
            }
            if i % 2 == 0 {
                drain(&mut raft);
            }
            prop_assert!(!panicked(&raft), "{:?} by {:?}", raft.failure(), fields);
        }
    }
}

fn plain(kind: u64) -> Fields {
    Fields {
        kind,
        from: 2,
        to: 1,
        term: 1,
        log_term: 0,
        index: 0,
        entries: Vec::new(),
        commit: 0,
        snapshot: None,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        commit_term: 0,
        context: Vec::new(),
    }
}

/// Messages that no member sends, whatever they carry.
fn malformed() -> Vec<(Fields, &'static str)> {
    vec![
        (Fields { to: 2, ..plain(8) }, "addressed to another member"),
        (
            Fields {
                from: 0,
                ..plain(8)
            },
            "no valid sender",
        ),
        (
            Fields {
                from: 1,
                ..plain(8)
            },
            "no valid sender",
        ),
        (
            Fields {
                term: 0,
                ..plain(8)
            },
            "number out of range",
        ),
        (
            Fields {
                index: u64::MAX,
                ..plain(3)
            },
            "number out of range",
        ),
        (
            Fields {
                index: 4,
                ..plain(3)
            },
            "a position that no log has",
        ),
        (plain(2), "unknown kind of message"),
        (plain(15), "unknown kind of message"),
        (plain(99), "unknown kind of message"),
    ]
}

/// Messages whose payload makes no sense.
fn senseless() -> Vec<(Fields, &'static str)> {
    vec![
        (plain(7), "snapshot without metadata"),
        (
            Fields {
                snapshot: Some((5, 1, vec![], vec![])),
                ..plain(7)
            },
            "snapshot with an invalid membership",
        ),
        (
            Fields {
                snapshot: Some((5, 1, vec![1, 2], vec![2])),
                ..plain(7)
            },
            "snapshot with an invalid membership",
        ),
        (
            Fields {
                snapshot: Some((5, 9, vec![1, 2], vec![])),
                ..plain(7)
            },
            "snapshot position out of range",
        ),
        (
            Fields {
                entries: vec![(0, 1, 2, vec![])],
                ..plain(3)
            },
            "entries are not consecutive",
        ),
        (
            Fields {
                entries: vec![(0, 2, 1, vec![])],
                ..plain(3)
            },
            "entries are not in the order of their terms",
        ),
        (
            Fields {
                entries: vec![(1, 1, 1, vec![])],
                ..plain(3)
            },
            "unknown kind of entry",
        ),
        (
            Fields {
                entries: vec![(0, 1, 1, vec![])],
                ..plain(8)
            },
            "carries what its kind never carries",
        ),
        (
            Fields {
                request_snapshot: 1,
                ..plain(4)
            },
            "asks for a snapshot, which this version never does",
        ),
    ]
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let cases = malformed().into_iter().chain(senseless());
    for (fields, reason) in cases {
        let mut raft = member(false);
        let before = raft.status();
        match raft.step(Message::decode(fields.encode()).unwrap()) {
            Err(RaftError::Refused { reason: given, .. }) => {
                assert_eq!(given, reason, "{fields:?}")
            }
            other => panic!("{other:?} for {fields:?}"),
        }
        assert_eq!(raft.status(), before);
    }
}

#[test]
fn a_member_that_lost_its_log_stops() {
    let mut raft = member(false);
    let heartbeat = Fields {
        commit: 7,
        ..plain(8)
    };
    let error = raft
        .step(Message::decode(heartbeat.encode()).unwrap())
        .unwrap_err();
    assert!(
        matches!(
            error,
            RaftError::LostLog {
                leader: 2,
                acknowledged: 7,
                last_index: 0
            }
        ),
        "{error}"
    );
    let again = raft
        .step(Message::decode(plain(8).encode()).unwrap())
        .unwrap_err();
    assert!(matches!(again, RaftError::Fatal(_)));
    assert!(raft.ready().is_empty() && raft.propose(Bytes::new()).is_err());
}

#[test]
fn a_snapshot_payload_travels_apart() {
    let membership = Membership::new([1], [2]);
    let recovered = Recovered {
        hard_state: berth_raft::HardState {
            term: 3,
            vote: 1,
            commit: 9,
        },
        snapshot: Some(Snapshot {
            meta: SnapshotMeta {
                index: 9,
                term: 3,
                membership: membership.clone(),
            },
            data: Bytes::from_static(b"the state"),
        }),
        membership,
        entries: Vec::new(),
    };
    let mut raft = Raft::new(
        Config {
            id: 1,
            ..Config::default()
        },
        recovered,
    )
    .unwrap();
    let mut sent = None;
    for _ in 0..60 {
        raft.tick();
        let ready = raft.ready();
        if let Some(batch) = &ready.persist {
            raft.persisted(batch.number).unwrap();
        }
        for m in ready.messages.into_iter().chain(raft.ready().messages) {
            if m.snapshot_data().is_some() {
                sent = Some(m);
            } else if m.kind() == MessageKind::Append {
                // The learner has nothing.
                let answer = Fields {
                    term: m.term(),
                    reject: true,
                    index: 9,
                    ..plain(4)
                };
                raft.step(Message::decode(answer.encode()).unwrap())
                    .unwrap();
            }
        }
    }
    let mut m = sent.expect("a snapshot for the learner");
    assert_eq!(m.kind(), MessageKind::Snapshot);
    let whole = m.clone();
    let data = m.take_snapshot_data().unwrap();
    assert_eq!(
        (&data[..], m.encoded_len() < whole.encoded_len()),
        (&b"the state"[..], true)
    );
    m.put_snapshot_data(data);
    assert_eq!(m, whole);
}
