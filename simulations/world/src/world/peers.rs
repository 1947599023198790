//! Messages between masters, and the history that one fetches from another.

use berth_core::replica::{Input, PeerMessage};
use berth_core::state::FinishedJob;
use berth_types::MasterId;

use super::{Event, HostBoot, World};
use crate::chronicle::Actor;
use crate::host::{Host, Realm};
use crate::network::Place;
use crate::report::Violation;

impl World<'_> {
    /// Sends a message between masters, if the sender knows where the receiver is.
    pub(crate) fn send_peer(&mut self, from: usize, to: MasterId, message: PeerMessage) {
        let sender = self.boot_of(from);
        let (realm, id) = (self.hosts[from].realm, self.hosts[from].id);
        let Some(host) = self.address_of(from, to) else {
            self.calendar
                .after(1, Event::PeerUnreachable { sender, to });
            return;
        };
        if realm == Realm::Impostor {
            return;
        }
        let message = self.over_the_wire(message);
        let carries_state = match &message {
            PeerMessage::Raft(raft) => raft.snapshot_data().is_some(),
            _ => false,
        };
        let ways = (Place::Master(from), Place::Master(host));
        let arrivals = self.network.send(ways.0, ways.1, &mut self.fates.network);
        let slow = if carries_state {
            self.fates.network.between(10, 300)
        } else {
            0
        };
        if carries_state {
            let ok = arrivals[0].is_some();
            let delay = arrivals[0].unwrap_or(500) + slow;
            self.calendar
                .after(delay, Event::SnapshotFate { sender, to, ok });
        } else if arrivals[0].is_none() && self.fates.network.chance(300) {
            self.calendar
                .after(50, Event::PeerUnreachable { sender, to });
        }
        for delay in arrivals.into_iter().flatten() {
            let event = Event::PeerArrives {
                host,
                from: id,
                report_to: carries_state.then_some(sender),
                message: Box::new(message.clone()),
            };
            self.calendar.after(delay + slow, event);
        }
    }

    /// Where `from` believes that `to` is.
    fn address_of(&self, from: usize, to: MasterId) -> Option<usize> {
        let host = self.hosts.get(from)?;
        let known = host.peers.get(&to).or_else(|| host.heard.get(&to));
        let number = known.and_then(Host::at_address)?;
        let there = self.hosts.get(number)?;
        (there.id == to && there.realm == host.realm).then_some(number)
    }

    /// Encodes and decodes, in seeds that do so.
    fn over_the_wire(&mut self, message: PeerMessage) -> PeerMessage {
        if !self.options.encode_peers {
            return message;
        }
        match PeerMessage::decode(message.encode()) {
            Ok(same) if same == message => same,
            Ok(other) => {
                let text = format!("{message:?} became {other:?}");
                self.judge(Err(Violation::new(
                    "a message means the same after the wire",
                    text,
                )));
                message
            }
            Err(error) => {
                self.judge(Err(Violation::new(
                    "a message means the same after the wire",
                    error,
                )));
                message
            }
        }
    }

    pub(crate) fn on_peer_arrives(
        &mut self,
        host: usize,
        from: MasterId,
        report_to: Option<HostBoot>,
        message: PeerMessage,
    ) {
        if !self.hosts[host].is_up() {
            if let Some(sender) = report_to.filter(|sender| self.runs(*sender)) {
                let to = self.hosts[host].id;
                self.calendar.after(
                    1,
                    Event::SnapshotFate {
                        sender,
                        to,
                        ok: false,
                    },
                );
            }
            return;
        }
        if report_to.is_some() {
            self.note(
                Actor::Master(host),
                "gets a snapshot from master {}",
                [from.0, 0, 0, 0],
            );
        }
        if let Some(sender) = self.host_of.get(&(Realm::Real, from)) {
            // Masters say where they listen.
            let address = Host::address(*sender);
            self.hosts[host].heard.insert(from, address);
        }
        self.step_master(host, Input::Peer { from, message });
    }

    pub(crate) fn on_snapshot_fate(&mut self, sender: HostBoot, to: MasterId, ok: bool) {
        self.note(
            Actor::Master(sender.host),
            "hears that its snapshot for master {} arrived: {}",
            [to.0, u64::from(ok), 0, 0],
        );
        if self.runs(sender) {
            self.step_master(sender.host, Input::SnapshotSent { to, ok });
        }
    }

    pub(crate) fn on_peer_unreachable(&mut self, sender: HostBoot, to: MasterId) {
        if self.runs(sender) {
            self.step_master(sender.host, Input::PeerUnreachable(to));
        }
    }

    pub(crate) fn on_history_answers(
        &mut self,
        host: HostBoot,
        token: u64,
        jobs: Vec<FinishedJob>,
    ) {
        if !self.runs(host) {
            return;
        }
        if jobs.is_empty() && self.hosts[host.host].history_gap.is_some() {
            // What is asked for may be in the part that is still being fetched; the caller's deadline bounds this.
            return;
        }
        self.step_master(host.host, Input::HistoryFound { token, jobs });
    }

    pub(crate) fn on_history_fetch(&mut self, at: HostBoot) {
        if !self.runs(at) {
            return;
        }
        let Some(through) = self.hosts[at.host].history_gap else {
            return;
        };
        let here = Place::Master(at.host);
        let mut found: Vec<FinishedJob> = Vec::new();
        let own = self.hosts[at.host].disk.history();
        for seq in (1..=through).filter(|seq| !own.contains_key(seq)) {
            let holder = self.hosts.iter().find_map(|host| {
                let reachable = host.realm == Realm::Real
                    && host.is_up()
                    && self.network.talks(here, Place::Master(host.number));
                reachable.then(|| host.disk.history().get(&seq).map(|job| (*job).clone()))?
            });
            found.extend(holder);
        }
        drop(own);
        if !found.is_empty() {
            let flush = self.hosts[at.host]
                .disk
                .append_history(found, &mut self.fates.disk);
            self.schedule_flush(at, flush);
        }
        let host = &mut self.hosts[at.host];
        host.history_gap = super::masters::missing_history(host, through);
        if host.history_gap.is_some() {
            self.calendar.after(200, Event::HistoryFetch(at));
        }
    }
}
