//! Chaos from a seed: loss, duplication, reordering, partitions, crashes that lose unflushed batches, slow disks,
//! snapshots, membership changes. The harness checks safety at every step; at the end everything heals and must go on.

use berth_raft::{Config, Membership, MembershipChange, Role};

use crate::harness::{Cluster, Rng};

const STEPS: usize = 4_000;

struct Chaos {
    c: Cluster,
    rng: Rng,
    proposals: u64,
    next_member: u64,
    /// Of a hundred occasions to crash, how many are taken.
    crashes: u64,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let mut rng = Rng(seed);
        let size = [1, 3, 3, 3, 5][rng.below(5)];
        let config = Config {
            max_size_per_msg: [0, 64, 1 << 20][rng.below(3)],
            max_inflight_msgs: [1, 4, 256][rng.below(3)],
            tail_max_bytes: [0, 200, 1 << 20][rng.below(3)],
            snapshot_timeout_ticks: 40,
            broadcast_commits: rng.chance(50),
            ..Config::default()
        };
        let crashes = [5, 30, 100][rng.below(3)];
        let mut c = Cluster::new(size, config);
        c.instant_disks = false;
        Chaos {
            c,
            rng,
            proposals: 0,
            next_member: 10,
            crashes,
        }
    }

    fn any_node(&mut self) -> u64 {
        let ids: Vec<u64> = self.c.nodes.keys().copied().collect();
        ids[self.rng.below(ids.len())]
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..45 => self.network(),
            45..65 => {
                let id = self.any_node();
                self.c.tick(id);
            }
            65..82 => {
                let (id, count) = (self.any_node(), 1 + self.rng.below(4));
                self.c.flush(id, count);
            }
            82..92 => self.client(),
            92..95 => {
                let (id, keep) = (self.any_node(), self.rng.below(8) as u64);
                self.c.compact(id, keep);
            }
            95 => self.membership(),
            96 => self.partition(),
            97 => self.hint(),
            _ => self.crash_or_restart(),
        }
    }

    fn network(&mut self) {
        if self.c.queue.is_empty() {
            return;
        }
        let at = if self.rng.chance(70) {
            0
        } else {
            self.rng.below(self.c.queue.len())
        };
        let m = self.c.queue.remove(at).unwrap();
        match self.rng.below(20) {
            0 => {}
            1 => {
                self.c.queue.push_back(m.clone());
                self.c.deliver(m);
            }
            _ => self.c.deliver(m),
        }
    }

    fn client(&mut self) {
        let Some(leader) = self.c.leader() else {
            return;
        };
        if self.rng.chance(30) {
            let _ = self.c.read(leader);
        } else {
            self.proposals += 1;
            let _ = self.c.propose(leader, &format!("p{}", self.proposals));
        }
    }

    fn membership(&mut self) {
        let Some(leader) = self.c.leader() else {
            return;
        };
        let members = self.c.raft(leader).membership();
        let change = match self.rng.below(3) {
            0 if members.learners.is_empty() && members.voters.len() < 6 => {
                MembershipChange::AddLearner(self.next_member)
            }
            1 if !members.learners.is_empty() => MembershipChange::Promote(members.learners[0]),
            2 if members.voters.len() > 1 => {
                MembershipChange::Remove(members.voters[self.rng.below(members.voters.len())])
            }
            _ => return,
        };
        if self.c.change(leader, change).is_ok()
            && change == MembershipChange::AddLearner(self.next_member)
        {
            self.c.add_blank(self.next_member);
            self.next_member += 1;
        }
    }

    fn partition(&mut self) {
        if self.rng.chance(60) {
            self.c.cut.clear();
            return;
        }
        let (a, b) = (self.any_node(), self.any_node());
        self.c.cut.insert((a.min(b), a.max(b)));
    }

    fn hint(&mut self) {
        let Some(leader) = self.c.leader() else {
            return;
        };
        let other = self.any_node();
        match self.rng.below(3) {
            0 => self.c.raft(leader).transfer_leader(other),
            1 => self.c.raft(leader).report_unreachable(other),
            _ => {
                let ok = self.rng.chance(50);
                self.c.raft(leader).report_snapshot(other, ok);
            }
        }
        self.c.execute(leader);
    }

    fn crash_or_restart(&mut self) {
        let id = self.any_node();
        if self.c.nodes[&id].raft.is_none() {
            self.c.restart(id);
        } else if self.rng.chance(self.crashes) {
            self.c.crash(id);
        }
    }

    /// No more faults: a leader must emerge, take a proposal, and everybody must have it.
    fn heal(&mut self, seed: u64) {
        self.c.cut.clear();
        let ids: Vec<u64> = self.c.nodes.keys().copied().collect();
        for id in ids {
            if self.c.nodes[&id].raft.is_none() {
                self.c.restart(id);
            }
            self.c.flush(id, usize::MAX);
        }
        self.c.instant_disks = true;
        let ready = |c: &Cluster| {
            c.leader()
                .is_some_and(|l| c.nodes[&l].raft.as_ref().unwrap().ready_to_lead())
        };
        assert!(
            self.c.run_until(400, ready),
            "seed {seed}: no leader after the heal"
        );
        let taken = self.c.run_until(100, |_| true) && {
            let leader = self.c.leader().unwrap();
            self.c.raft(leader).status().transferring_to.is_some()
                || self.c.propose(leader, "final").is_ok()
        };
        assert!(taken, "seed {seed}");
        let converged = |c: &Cluster| {
            let Some(leader) = c.leader() else {
                return false;
            };
            let leader = &c.nodes[&leader];
            let members = leader.raft.as_ref().unwrap().membership();
            members
                .members()
                .all(|id| c.nodes[&id].applied.len() == leader.applied.len())
                && leader.applied.len() as u64 == leader.raft.as_ref().unwrap().status().last_index
        };
        assert!(
            self.c.run_until(400, converged),
            "seed {seed}: the members do not converge"
        );
        let leader = self.c.leader().unwrap();
        assert_eq!(self.c.raft(leader).role(), Role::Leader);
        let members: Membership = self.c.raft(leader).membership();
        self.c.check_converged(&members);
        self.c.check_logs();
    }
}

fn run(seed: u64) -> Chaos {
    println!("seed {seed}");
    let mut chaos = Chaos::new(seed);
    for step in 0..STEPS {
        chaos.step();
        if step % 500 == 0 {
            chaos.c.check_logs();
        }
    }
    chaos.heal(seed);
    chaos
}

#[test]
fn promises_hold_through_chaos_and_progress_resumes() {
    let number = |set: Option<&str>, or| set.map_or(or, |n| n.parse().unwrap());
    let first: u64 = number(option_env!("BERTH_RAFT_FIRST_SEED"), 0);
    let seeds: u64 = number(option_env!("BERTH_RAFT_SEEDS"), 300);
    let (mut proposals, mut reads, mut installs, mut members) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let chaos = run(seed);
        proposals += chaos.proposals;
        reads += chaos.c.reads_served;
        installs += chaos.c.installs;
        members += chaos.next_member - 10;
    }
    // The chaos must have been some: a test that never gets to a snapshot proves nothing about it.
    println!(
        "{proposals} proposals, {reads} reads, {installs} snapshots installed, {members} members added"
    );
    assert!(
        proposals > seeds
            && reads as u64 > seeds / 10
            && installs as u64 > seeds / 10
            && members > seeds / 10
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let state = |seed| {
        let chaos = run(seed);
        let nodes = chaos
            .c
            .nodes
            .values()
            .map(|n| (n.applied.clone(), n.disk.clone()));
        nodes.collect::<Vec<_>>()
    };
    assert!(state(7) == state(7));
    assert!(state(7) != state(8));
}
