//! The shortest way through the facade.
#![allow(clippy::unwrap_used)]

use berth_raft::{Config, EntryKind, Membership, Raft, Ready, Recovered, Role};
use bytes::Bytes;

/// Executes everything at once, with a disk that never fails; returns what was applied.
fn settle(nodes: &mut [(Raft, Recovered)], applied: &mut [Vec<(u64, Bytes)>]) {
    loop {
        let mut idle = true;
        for i in 0..nodes.len() {
            let ready: Ready = nodes[i].0.ready();
            if ready.is_empty() {
                continue;
            }
            idle = false;
            if let Some(batch) = &ready.persist {
                nodes[i].1.apply(batch);
                nodes[i].0.persisted(batch.number).unwrap();
            }
            for entry in ready.committed {
                if entry.kind == EntryKind::Membership {
                    nodes[i].0.apply_membership(&entry).unwrap();
                }
                nodes[i].0.on_applied(entry.index);
                applied[i].push((entry.index, entry.data));
            }
            for m in ready.messages {
                let to = m.to as usize - 1;
                let m = berth_raft::Message::decode(m.encode()).unwrap();
                if let Some(node) = nodes.get_mut(to) {
                    node.0.step(m).unwrap();
                }
            }
        }
        if idle {
            return;
        }
    }
}

#[test]
fn three_members_elect_a_leader_and_agree() {
    let members = Membership::of_voters([1, 2, 3]);
    let mut nodes: Vec<(Raft, Recovered)> = (1..=3)
        .map(|id| {
            let config = Config {
                id,
                seed: id,
                ..Config::default()
            };
            let recovered = Recovered::bootstrap(members.clone());
            (Raft::new(config, recovered.clone()).unwrap(), recovered)
        })
        .collect();
    let mut applied = vec![Vec::new(); 3];
    let leader = loop {
        if let Some(leader) = nodes.iter().position(|n| n.0.role() == Role::Leader) {
            break leader;
        }
        for n in &mut nodes {
            n.0.tick();
        }
        settle(&mut nodes, &mut applied);
    };
    assert!(nodes[leader].0.ready_to_lead());
    nodes[leader].0.propose(Bytes::from_static(b"a")).unwrap();
    settle(&mut nodes, &mut applied);
    for _ in 0..3 {
        nodes[leader].0.tick();
        settle(&mut nodes, &mut applied);
    }
    for log in &applied {
        assert_eq!(log.last().unwrap(), &(2, Bytes::from_static(b"a")));
    }
    nodes[leader].0.read_index(7).unwrap();
    let mut read = None;
    for _ in 0..10 {
        for i in 0..3 {
            let ready = nodes[i].0.ready();
            read = ready.reads.first().copied().or(read);
            for m in ready.messages {
                nodes[m.to as usize - 1].0.step(m).unwrap();
            }
        }
    }
    let read = read.unwrap();
    assert_eq!((read.context, read.index), (7, 2));
}

#[test]
fn a_single_member_leads_itself() {
    let recovered = Recovered::bootstrap(Membership::of_voters([1]));
    let raft = Raft::new(
        Config {
            id: 1,
            ..Config::default()
        },
        recovered.clone(),
    )
    .unwrap();
    let mut nodes = vec![(raft, recovered)];
    let mut applied = vec![Vec::new()];
    for _ in 0..30 {
        nodes[0].0.tick();
        settle(&mut nodes, &mut applied);
    }
    assert_eq!(nodes[0].0.role(), Role::Leader);
    nodes[0]
        .0
        .propose_all(["x", "y"].map(|s| Bytes::from(s.to_owned())))
        .unwrap();
    settle(&mut nodes, &mut applied);
    assert_eq!(applied[0].len(), 3);
    let again = Raft::new(
        Config {
            id: 1,
            ..Config::default()
        },
        nodes[0].1.clone(),
    )
    .unwrap();
    assert_eq!((again.term(), again.status().last_index), (1, 3));
}
