//! Whether agents know a master that still is one. Those in contact must: leaders tell them. One that was out of contact while
//! all masters that it knew were replaced can know none, and an operator has to change its configuration.

use super::{Event, World};
use crate::chronicle::Actor;
use crate::host::{Host, Realm};
use crate::report::Violation;

/// In contact for so long, an agent has long been told of the masters.
const TOLD_WITHIN_MS: u64 = 5_000;
/// An operator notices a node that is away after this.
const NOTICED_AFTER_MS: u64 = 5_000;

impl World<'_> {
    /// Demands that leaders tell agents where the masters are, and helps those to whom no leader could.
    pub(crate) fn look_at_strangers(&mut self) {
        let now = self.now();
        for machine in 0..self.machines.len() {
            if self.machines[machine].agent.is_none() || self.knows_a_master(machine) {
                self.machines[machine].stranger_since_ms = None;
                continue;
            }
            let contact = self.contact_since(machine);
            let told = contact.is_none_or(|since| now < since + TOLD_WITHIN_MS);
            self.judge(Violation::unless(
                told,
                "an agent in contact knows where the masters are",
                || {
                    format!(
                        "machine {machine} knows {:?}",
                        self.machines[machine].masters
                    )
                },
            ));
            if contact.is_some() {
                self.machines[machine].stranger_since_ms = None;
                continue;
            }
            let since = &mut self.machines[machine].stranger_since_ms;
            if *since.get_or_insert(now) + NOTICED_AFTER_MS <= now {
                self.configure_anew(machine);
            }
        }
    }

    fn knows_a_master(&self, machine: usize) -> bool {
        let machine = &self.machines[machine];
        let masters = &self.newest.1.masters;
        let is_one = |address: &String| masters.values().any(|info| info.address == *address);
        let named = |host: &usize| is_one(&Host::address(*host).address);
        masters.is_empty()
            || machine.masters.addresses.iter().any(is_one)
            || machine.configured.iter().any(named)
    }

    /// Since when its agent has been heard by a leader of the cluster.
    fn contact_since(&self, machine: usize) -> Option<u64> {
        let session = self.machines[machine].session?;
        let stream = self.streams.open.get(&session)?;
        let real = self.hosts[stream.host].realm == Realm::Real;
        stream.good_since_ms.filter(|_| real)
    }

    /// The operator writes the masters of today into its file and starts the agent again.
    fn configure_anew(&mut self, machine: usize) {
        let masters = self.newest.1.masters.values();
        self.machines[machine].configured = masters.filter_map(Host::at_address).collect();
        self.machines[machine].stranger_since_ms = None;
        self.note(
            Actor::Machine(machine),
            "is told by the operator where the masters are",
            [0; 4],
        );
        self.crash_agent(machine);
        self.calendar.after(100, Event::AgentStarts(machine));
    }
}
