//! A group in one thread: messages in a queue, disks that lose what was not flushed, and the promises checked as it goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_raft::{
    Config, Entry, EntryKind, Membership, MembershipChange, Message, PeerId, Persist, ProposeError,
    Raft, Recovered, Role, Snapshot, SnapshotMeta,
};
use bytes::Bytes;

/// A small seeded generator (splitmix64).
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// A member with its disk.
pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) raft: Option<Raft>,
    /// What survives a crash.
    pub(crate) disk: Recovered,
    /// Handed to the disk and not flushed.
    pub(crate) unflushed: VecDeque<Persist>,
    /// Everything applied, in order: index and data. Rebuilt from snapshot and log after a crash.
    pub(crate) applied: Vec<(u64, Bytes)>,
    reads: BTreeMap<u64, u64>,
    term: u64,
}

/// The group and the network.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<PeerId, Node>,
    pub(crate) queue: VecDeque<Message>,
    /// Pairs that cannot talk.
    pub(crate) cut: BTreeSet<(PeerId, PeerId)>,
    /// Flush at once instead of when told to.
    pub(crate) instant_disks: bool,
    pub(crate) reads_served: usize,
    pub(crate) installs: usize,
    config: Config,
    leaders: BTreeMap<u64, PeerId>,
    history: BTreeMap<u64, (u64, Bytes)>,
    acknowledged: u64,
    next_read: u64,
}

impl Cluster {
    pub(crate) fn new(size: u64, config: Config) -> Cluster {
        let members = Membership::of_voters(1..=size);
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            cut: BTreeSet::new(),
            instant_disks: true,
            reads_served: 0,
            installs: 0,
            config,
            leaders: BTreeMap::new(),
            history: BTreeMap::new(),
            acknowledged: 0,
            next_read: 0,
        };
        for id in 1..=size {
            cluster.add(id, Recovered::bootstrap(members.clone()));
        }
        cluster
    }

    /// Adds a member with an empty disk, which waits to be taken in.
    pub(crate) fn add_blank(&mut self, id: PeerId) {
        self.add(id, Recovered::default());
    }

    fn add(&mut self, id: PeerId, disk: Recovered) {
        let node = Node {
            raft: None,
            disk,
            unflushed: VecDeque::new(),
            applied: Vec::new(),
            reads: BTreeMap::new(),
            term: 0,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    pub(crate) fn crash(&mut self, id: PeerId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.raft = None;
        node.unflushed.clear();
    }

    pub(crate) fn restart(&mut self, id: PeerId) {
        let config = Config {
            id,
            seed: id.wrapping_mul(7_919),
            ..self.config.clone()
        };
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk.check().unwrap();
        node.applied = node
            .disk
            .snapshot
            .as_ref()
            .map_or_else(Vec::new, |s| decode_state(&s.data));
        node.reads.clear();
        node.raft = Some(Raft::new(config, node.disk.clone()).unwrap());
    }

    pub(crate) fn raft(&mut self, id: PeerId) -> &mut Raft {
        self.nodes.get_mut(&id).unwrap().raft.as_mut().unwrap()
    }

    /// The live leader of the highest term.
    pub(crate) fn leader(&self) -> Option<PeerId> {
        let live = self
            .nodes
            .iter()
            .filter_map(|(id, n)| n.raft.as_ref().map(|r| (*id, r)));
        live.filter(|(_, r)| r.role() == Role::Leader)
            .max_by_key(|(_, r)| r.term())
            .map(|(id, _)| id)
    }

    pub(crate) fn tick(&mut self, id: PeerId) {
        if let Some(raft) = &mut self.nodes.get_mut(&id).unwrap().raft {
            raft.tick();
        }
        self.execute(id);
    }

    pub(crate) fn tick_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.tick(id);
        }
    }

    /// Delivers until nothing is under way.
    pub(crate) fn settle(&mut self) {
        while let Some(m) = self.queue.pop_front() {
            self.deliver(m);
        }
    }

    /// Ticks and delivers until `done`, for at most `ticks`.
    pub(crate) fn run_until(
        &mut self,
        ticks: usize,
        mut done: impl FnMut(&Cluster) -> bool,
    ) -> bool {
        for _ in 0..ticks {
            if done(self) {
                return true;
            }
            self.tick_all();
            self.settle();
        }
        done(self)
    }

    pub(crate) fn deliver(&mut self, m: Message) {
        let pair = (m.from.min(m.to), m.from.max(m.to));
        let to = m.to;
        if self.cut.contains(&pair) {
            return;
        }
        let m = Message::decode(m.encode()).unwrap();
        if let Some(raft) = self.nodes.get_mut(&to).and_then(|n| n.raft.as_mut()) {
            match raft.step(m) {
                // A member that was removed, or not yet taken in, may still answer.
                Ok(()) | Err(berth_raft::RaftError::Refused { .. }) => {}
                Err(e) => panic!("member {to}: {e}"),
            }
            self.execute(to);
        }
    }

    /// Flushes the oldest `count` batches of a member's disk.
    pub(crate) fn flush(&mut self, id: PeerId, count: usize) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut last = None;
        for _ in 0..count {
            let Some(batch) = node.unflushed.pop_front() else {
                break;
            };
            node.disk.apply(&batch);
            last = Some(batch.number);
        }
        if let (Some(number), Some(raft)) = (last, &mut node.raft) {
            node.disk.check().unwrap();
            raft.persisted(number).unwrap();
            self.execute(id);
        }
    }

    /// Executes what a member wants done.
    pub(crate) fn execute(&mut self, id: PeerId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &mut node.raft else { return };
        let ready = raft.ready();
        assert_eq!(raft.failure(), None, "member {id}");
        self.queue.extend(ready.messages);
        if let Some((role, term, _)) = ready.role_changed {
            node.reads.clear();
            node.term = term;
            if role == Role::Leader {
                let first = *self.leaders.entry(term).or_insert(id);
                assert_eq!(first, id, "two leaders in term {term}");
            }
        }
        if let Some(snapshot) = ready.install {
            node.applied = decode_state(&snapshot.data);
            raft.on_applied(snapshot.meta.index);
            self.installs += 1;
        }
        for read in ready.reads {
            let asked_at = node
                .reads
                .remove(&read.context)
                .expect("a read that was asked");
            assert!(read.index >= asked_at, "a stale read");
            self.reads_served += 1;
        }
        if let Some(batch) = ready.persist {
            node.unflushed.push_back(batch);
        }
        self.apply(id, ready.committed);
        if self.instant_disks {
            self.flush(id, usize::MAX);
        }
    }

    fn apply(&mut self, id: PeerId, committed: Vec<Entry>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let raft = node.raft.as_mut().unwrap();
        for entry in committed {
            let expected = node.applied.last().map_or(0, |(i, _)| *i) + 1;
            assert_eq!(entry.index, expected, "member {id} skips entries");
            if entry.kind == EntryKind::Membership {
                raft.apply_membership(&entry).unwrap();
            }
            raft.on_applied(entry.index);
            let agreed = self
                .history
                .entry(entry.index)
                .or_insert((entry.term, entry.data.clone()));
            assert_eq!(
                agreed,
                &(entry.term, entry.data.clone()),
                "member {id} disagrees at {}",
                entry.index
            );
            node.applied.push((entry.index, entry.data));
            if raft.role() == Role::Leader && entry.term == raft.term() {
                self.acknowledged = self.acknowledged.max(entry.index);
            }
        }
    }

    pub(crate) fn propose(&mut self, id: PeerId, data: &str) -> Result<(), ProposeError> {
        let outcome = self.raft(id).propose(Bytes::from(data.to_owned()));
        self.execute(id);
        outcome
    }

    pub(crate) fn change(
        &mut self,
        id: PeerId,
        change: MembershipChange,
    ) -> Result<(), ProposeError> {
        let outcome = self
            .raft(id)
            .propose_membership(change, Bytes::from(format!("{change:?}")));
        self.execute(id);
        outcome
    }

    /// Asks for a read; it must see everything acknowledged so far.
    pub(crate) fn read(&mut self, id: PeerId) -> Result<(), ProposeError> {
        self.next_read += 1;
        let (context, acknowledged) = (self.next_read, self.acknowledged);
        self.raft(id).read_index(context)?;
        self.nodes
            .get_mut(&id)
            .unwrap()
            .reads
            .insert(context, acknowledged);
        self.execute(id);
        Ok(())
    }

    /// Takes a snapshot of a member's state and compacts its log.
    pub(crate) fn compact(&mut self, id: PeerId, keep: u64) -> bool {
        let node = self.nodes.get_mut(&id).unwrap();
        let (Some(raft), Some((index, _))) = (&mut node.raft, node.applied.last()) else {
            return false;
        };
        let meta = SnapshotMeta {
            index: *index,
            ..SnapshotMeta::default()
        };
        let taken = raft.compact(
            Snapshot {
                meta,
                data: encode_state(&node.applied),
            },
            keep,
        );
        self.execute(id);
        taken
    }

    /// Log matching: where two durable logs have an entry of the same index and term, they are equal up to there.
    pub(crate) fn check_logs(&self) {
        let disks: Vec<&Recovered> = self.nodes.values().map(|n| &n.disk).collect();
        for (i, a) in disks.iter().enumerate() {
            for b in &disks[i + 1..] {
                let theirs: BTreeMap<u64, &Entry> =
                    b.entries.iter().map(|e| (e.index, e)).collect();
                let same = |e: &&Entry| theirs.get(&e.index).is_some_and(|t| t.term == e.term);
                let Some(last) = a.entries.iter().rev().find(same) else {
                    continue;
                };
                for e in a.entries.iter().filter(|e| e.index <= last.index) {
                    assert!(
                        theirs.get(&e.index).is_none_or(|t| *t == e),
                        "logs differ at {}",
                        e.index
                    );
                }
            }
        }
    }

    /// Everything acknowledged is in the state of every live member of the group.
    pub(crate) fn check_converged(&self, members: &Membership) {
        let live = members.members().map(|id| &self.nodes[&id]);
        let states: Vec<&Vec<(u64, Bytes)>> = live.map(|n| &n.applied).collect();
        for state in &states {
            assert_eq!(state, &states[0]);
            assert!(
                state.last().map_or(0, |(i, _)| *i) >= self.acknowledged,
                "an acknowledged entry is gone"
            );
        }
    }
}

fn encode_state(applied: &[(u64, Bytes)]) -> Bytes {
    let mut out = Vec::new();
    for (index, data) in applied {
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(data);
    }
    out.into()
}

fn decode_state(data: &Bytes) -> Vec<(u64, Bytes)> {
    let (mut at, mut applied) = (0, Vec::new());
    while at < data.len() {
        let index = u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
        let length = u32::from_le_bytes(data[at + 8..at + 12].try_into().unwrap()) as usize;
        applied.push((index, data.slice(at + 12..at + 12 + length)));
        at += 12 + length;
    }
    applied
}
