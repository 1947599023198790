//! One scenario per promise.

use berth_raft::{Config, Membership, MembershipChange, ProgressKind, ProposeError, Role};

use crate::harness::Cluster;

fn cluster(size: u64) -> Cluster {
    Cluster::new(
        size,
        Config {
            snapshot_timeout_ticks: 50,
            ..Config::default()
        },
    )
}

fn with_leader(size: u64) -> (Cluster, u64) {
    let mut c = cluster(size);
    assert!(c.run_until(100, |c| c.leader().is_some()));
    c.settle();
    let leader = c.leader().unwrap();
    (c, leader)
}

fn applied(c: &Cluster, id: u64) -> u64 {
    c.nodes[&id].applied.last().map_or(0, |(i, _)| *i)
}

#[test]
fn a_lost_leader_is_replaced_within_two_election_timeouts() {
    for size in [3, 5] {
        let (mut c, leader) = with_leader(size);
        c.propose(leader, "before").unwrap();
        c.settle();
        c.crash(leader);
        assert!(
            c.run_until(2 * 10, |c| c.leader().is_some_and(|l| l != leader)),
            "of {size}"
        );
        let next = c.leader().unwrap();
        c.propose(next, "after").unwrap();
        c.settle();
        assert_eq!(c.nodes[&next].applied.last().unwrap().1, "after");
        c.restart(leader);
        assert!(c.run_until(10, |c| applied(c, leader) == applied(c, next)));
    }
}

#[test]
fn a_follower_answers_only_when_its_disk_has_flushed() {
    let (mut c, leader) = with_leader(3);
    c.instant_disks = false;
    let before = applied(&c, leader);
    c.propose(leader, "x").unwrap();
    c.settle();
    c.flush(leader, 1);
    c.settle();
    assert_eq!(applied(&c, leader), before, "one flush is no majority");
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    assert_eq!(c.nodes[&follower].unflushed.len(), 1);
    c.flush(follower, 1);
    c.settle();
    assert_eq!(applied(&c, leader), before + 1);
}

#[test]
fn several_batches_are_in_flight_and_one_answer_covers_them() {
    let (mut c, leader) = with_leader(3);
    c.instant_disks = false;
    let before = applied(&c, leader);
    for i in 0..5 {
        c.propose(leader, &format!("{i}")).unwrap();
        c.settle();
    }
    for id in 1..=3 {
        assert_eq!(c.nodes[&id].unflushed.len(), 5);
        c.flush(id, 5);
    }
    c.settle();
    assert_eq!(applied(&c, leader), before + 5);
}

#[test]
fn a_member_that_lags_past_the_tail_gets_a_snapshot() {
    let (mut c, leader) = with_leader(3);
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    c.crash(slow);
    for i in 0..50 {
        c.propose(leader, &format!("{i}")).unwrap();
        c.settle();
    }
    assert!(c.compact(leader, 5));
    assert!(!c.compact(leader, 5), "the same snapshot twice");
    assert_eq!(
        c.raft(leader).status().first_index,
        applied(&c, leader) - 5 + 1
    );
    c.restart(slow);
    assert!(c.run_until(20, |c| applied(c, slow) == applied(c, leader)));
    assert_eq!(c.installs, 1);
    let state = c.nodes[&leader].applied.clone();
    assert_eq!(c.nodes[&slow].applied, state);
    c.crash(slow);
    c.restart(slow);
    assert!(
        c.run_until(20, |c| applied(c, slow) == applied(c, leader)),
        "it lives on after a snapshot"
    );
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let (mut c, leader) = with_leader(3);
    let slow = (1..=3).find(|id| *id != leader).unwrap();
    c.crash(slow);
    for i in 0..20 {
        c.propose(leader, &format!("{i}")).unwrap();
        c.settle();
    }
    c.compact(leader, 0);
    c.restart(slow);
    let mut lost = false;
    for _ in 0..40 {
        c.tick_all();
        while let Some(m) = c.queue.pop_front() {
            if m.snapshot_data().is_some() && !lost {
                lost = true;
            } else {
                c.deliver(m);
            }
        }
    }
    assert!(lost);
    let peer = c
        .raft(leader)
        .status()
        .peers
        .iter()
        .find(|p| p.id == slow)
        .copied()
        .unwrap();
    assert_eq!(peer.state, ProgressKind::Snapshot);
    assert!(
        c.run_until(60, |c| applied(c, slow) == applied(c, leader)),
        "the timeout has it sent again"
    );
}

#[test]
fn a_member_joins_learns_votes_and_another_leaves() {
    let (mut c, leader) = with_leader(3);
    c.propose(leader, "old").unwrap();
    c.settle();
    c.add_blank(4);
    c.change(leader, MembershipChange::AddLearner(4)).unwrap();
    let second = c.change(leader, MembershipChange::AddLearner(5));
    assert_eq!(second, Err(ProposeError::Busy));
    c.settle();
    assert!(c.run_until(20, |c| applied(c, 4) == applied(c, leader)));
    assert_eq!(c.raft(4).membership(), Membership::new([1, 2, 3], [4]));
    assert_eq!(c.nodes[&4].applied, c.nodes[&leader].applied);
    c.change(leader, MembershipChange::Promote(4)).unwrap();
    c.settle();
    assert!(c.run_until(20, |c| applied(c, 4) == applied(c, leader)));
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    c.change(leader, MembershipChange::Remove(gone)).unwrap();
    c.settle();
    assert!(c.run_until(20, |c| applied(c, 4) == applied(c, leader)));
    let members = c.raft(leader).membership();
    assert_eq!(members.voters.len(), 3);
    assert!(members.voters.contains(&4) && !members.contains(gone));
    // The change survives restarts of everybody, from the log alone.
    for id in members.voters.clone() {
        c.crash(id);
    }
    for id in members.voters.clone() {
        c.restart(id);
    }
    assert!(c.run_until(100, |c| c.leader().is_some()));
    let leader = c.leader().unwrap();
    assert!(c.run_until(20, |c| applied(c, 4) == applied(c, leader)));
    assert_eq!(c.raft(4).membership(), members);
    assert_eq!(c.raft(gone).role(), Role::Follower);
}

#[test]
fn a_member_joins_by_snapshot() {
    let (mut c, leader) = with_leader(3);
    for i in 0..30 {
        c.propose(leader, &format!("{i}")).unwrap();
        c.settle();
    }
    c.compact(leader, 0);
    c.add_blank(9);
    c.change(leader, MembershipChange::AddLearner(9)).unwrap();
    assert!(c.run_until(30, |c| applied(c, 9) == applied(c, leader)));
    assert_eq!(
        (c.installs, c.raft(9).membership()),
        (1, Membership::new([1, 2, 3], [9]))
    );
}

#[test]
fn senseless_membership_changes_are_refused() {
    let (mut c, leader) = with_leader(3);
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    for change in [
        MembershipChange::AddLearner(2),
        MembershipChange::Promote(2),
        MembershipChange::Remove(7),
        MembershipChange::Remove(leader),
    ] {
        assert!(
            matches!(c.change(leader, change), Err(ProposeError::Invalid(_))),
            "{change:?}"
        );
    }
    let refused = c.change(follower, MembershipChange::AddLearner(4));
    assert_eq!(
        refused,
        Err(ProposeError::NotLeader {
            leader: Some(leader)
        })
    );
    c.change(leader, MembershipChange::AddLearner(4)).unwrap();
    c.settle();
    // Member 4 does not exist yet; the change is committed by the voters.
    assert!(c.raft(leader).membership().learners.contains(&4));
}

#[test]
fn leadership_moves_when_asked_to() {
    let (mut c, leader) = with_leader(3);
    let to = (1..=3).find(|id| *id != leader).unwrap();
    c.raft(leader).transfer_leader(to);
    c.execute(leader);
    assert_eq!(c.propose(leader, "x"), Err(ProposeError::Busy));
    c.settle();
    assert_eq!(c.leader(), Some(to));
    assert_eq!(
        c.propose(leader, "x"),
        Err(ProposeError::NotLeader { leader: Some(to) })
    );
    c.propose(to, "y").unwrap();
    c.settle();
    assert_eq!(c.nodes[&to].applied.last().unwrap().1, "y");
}

#[test]
fn a_cut_off_leader_serves_no_read_and_steps_down() {
    let (mut c, old) = with_leader(3);
    c.propose(old, "x").unwrap();
    c.settle();
    for other in 1..=3 {
        c.cut.insert((old.min(other), old.max(other)));
    }
    let served = c.reads_served;
    c.read(old).unwrap();
    assert!(c.run_until(60, |c| c.leader().is_some_and(|l| l != old)));
    let new = c.leader().unwrap();
    c.propose(new, "y").unwrap();
    c.settle();
    assert_eq!(c.reads_served, served);
    assert!(
        c.run_until(30, |c| c.nodes[&old].raft.as_ref().unwrap().role()
            == Role::Follower)
    );
    c.read(new).unwrap();
    c.settle();
    assert_eq!(c.reads_served, served + 1);
    // Once healed it follows without disturbing the new leader.
    c.cut.clear();
    let term = c.raft(new).term();
    assert!(c.run_until(30, |c| applied(c, old) == applied(c, new)));
    assert_eq!((c.leader(), c.raft(new).term()), (Some(new), term));
}

#[test]
fn too_many_uncommitted_bytes_make_the_leader_busy() {
    let config = Config {
        max_uncommitted_bytes: 4_096,
        max_size_per_msg: 1_024,
        ..Config::default()
    };
    let mut c = Cluster::new(3, config);
    assert!(c.run_until(100, |c| c.leader().is_some()));
    c.settle();
    let leader = c.leader().unwrap();
    c.instant_disks = false;
    let taken = (0..100)
        .take_while(|_| c.propose(leader, &"x".repeat(256)).is_ok())
        .count();
    assert_eq!(taken, 16);
    for _ in 0..20 {
        c.settle();
        (1..=3).for_each(|id| c.flush(id, usize::MAX));
    }
    assert!(c.propose(leader, "again").is_ok());
}
