//! Agents' connections: dialling, frames in order, stalls, and breaks that each end notices for itself.

use berth_agent_core::Input as AgentInput;
use berth_core::replica::Input;
use berth_types::api::MasterInfo;

use super::{Event, HostBoot, World};
use crate::chronicle::Actor;
use crate::host::Host;
use crate::machine::MachineBoot;
use crate::network::Place;
use crate::stream::{Frame, Stream};

/// A stream on which something waits for so long is given up by both ends (HTTP/2 keepalive).
const KEEPALIVE_MS: u64 = 3_000;
/// A connection that nobody answers.
const CONNECT_TIMEOUT_MS: u64 = 1_000;
/// A lost segment is sent again after this.
const RETRANSMIT_MS: u64 = 200;

impl World<'_> {
    /// The running agent of a machine.
    pub(crate) fn agent_of(&self, machine: usize) -> MachineBoot {
        let agent_boot = self.machines.get(machine).map_or(0, |m| m.agent_boot);
        MachineBoot {
            machine,
            agent_boot,
        }
    }

    /// True if that agent still runs.
    pub(crate) fn agent_runs(&self, at: MachineBoot) -> bool {
        self.machines
            .get(at.machine)
            .is_some_and(|m| m.agent_boot == at.agent_boot && m.agent.is_some())
    }

    pub(crate) fn on_dial(&mut self, at: MachineBoot) {
        if !self.agent_runs(at) {
            return;
        }
        let machine = &mut self.machines[at.machine];
        let wanted = machine.agent.as_ref().is_some_and(|a| a.wants_connection());
        let target = machine.next_host();
        let Some(target) = target.filter(|_| wanted) else {
            machine.dialing = false;
            return;
        };
        let there = Place::Master(target);
        let host = self.boot_of(target);
        let reachable = self.network.talks(Place::Machine(at.machine), there);
        let delay = self.network.delay(&mut self.fates.network);
        let (wait, ok) = match (reachable, self.runs(host)) {
            (true, true) => (2 * delay, true),
            (true, false) => (2 * delay, false),
            (false, _) => (CONNECT_TIMEOUT_MS, false),
        };
        let machine = at;
        self.calendar
            .after(wait, Event::Dialed { machine, host, ok });
    }

    pub(crate) fn on_dialed(&mut self, at: MachineBoot, host: HostBoot, ok: bool) {
        if !self.agent_runs(at) {
            return;
        }
        if !ok || !self.runs(host) {
            self.machines[at.machine].left(host.host);
            let pause = self.fates.machine.between(100, 500);
            self.calendar.after(pause, Event::Dial(at));
            return;
        }
        let session = self.streams.add(at, host.host, host.boot);
        let machine = &mut self.machines[at.machine];
        machine.dialing = false;
        machine.session = Some(session);
        self.note(
            Actor::Machine(at.machine),
            "connects to host {} as session {}",
            [host.host as u64, session, 0, 0],
        );
        self.step_agent(at.machine, AgentInput::Connected { session });
    }

    /// Agent to master.
    pub(crate) fn send_up(&mut self, session: u64, frame: Frame) {
        self.send_frame(session, true, frame);
    }

    /// Master to agent.
    pub(crate) fn send_down(&mut self, session: u64, frame: Frame) {
        self.send_frame(session, false, frame);
    }

    fn send_frame(&mut self, session: u64, up: bool, frame: Frame) {
        let now = self.calendar.now_ms();
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        let passes = way_is_open(&self.network, stream, up);
        let lane = if up { &mut stream.up } else { &mut stream.down };
        if !passes || !lane.held.is_empty() {
            lane.held.push_back(frame);
            lane.stalled_ms.get_or_insert(now);
            return;
        }
        let mut delay = self.network.delay(&mut self.fates.network);
        let loss = self.network.rates.loss_per_mille + self.network.storm_per_mille;
        if self.fates.network.chance(loss) {
            delay += RETRANSMIT_MS;
        }
        lane.arrives_ms = lane.arrives_ms.max(now + delay);
        let (at, frame) = (lane.arrives_ms, Box::new(frame));
        self.calendar
            .at(at, Event::FrameArrives { session, up, frame });
    }

    pub(crate) fn on_frame_arrives(&mut self, session: u64, up: bool, frame: Frame) {
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        let (machine, host) = (stream.machine, stream.host);
        let host_boot = HostBoot {
            host,
            boot: stream.host_boot,
        };
        if up {
            if matches!(frame, Frame::Register { .. }) && stream.agent_open {
                stream.master_open = true;
            }
            if stream.master_open && self.runs(host_boot) {
                self.host_hears(host, session, machine.machine, frame);
            }
            return;
        }
        if !stream.agent_open || !self.agent_runs(machine) {
            return;
        }
        match frame {
            Frame::Directive(directive) => {
                let input = AgentInput::Directive {
                    session,
                    directive: *directive,
                };
                self.step_agent(machine.machine, input);
            }
            Frame::Close(hint) => {
                self.on_end_notices(session, true);
                self.machines[machine.machine].sent_on(host, hint);
            }
            Frame::Register { .. } | Frame::Report(_) => {}
        }
    }

    fn host_hears(&mut self, host: usize, session: u64, machine: usize, frame: Frame) {
        let input = match frame {
            Frame::Register {
                incarnation,
                cluster_id,
                inventory,
            } => {
                self.hosts[host].sessions.insert(session);
                Input::AgentConnected {
                    session,
                    spec: self.machines[machine].spec.clone(),
                    incarnation,
                    cluster_id,
                    inventory,
                }
            }
            Frame::Report(report) => Input::AgentReport { session, report },
            Frame::Directive(_) | Frame::Close(_) => return,
        };
        self.step_master(host, input);
    }

    /// A master ends a stream.
    pub(crate) fn close_agent(&mut self, session: u64, reason: &str, leader: Option<MasterInfo>) {
        let hint = leader.as_ref().and_then(Host::at_address);
        self.send_down(session, Frame::Close(hint));
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        stream.master_open = false;
        let (host, machine) = (stream.host, stream.machine.machine as u64);
        self.hosts[host].sessions.remove(&session);
        self.say(
            Actor::Master(host),
            "closes session {} of machine {}",
            [session, machine, 0, 0],
            reason,
        );
    }

    /// The master's end is gone with its process: the agent hears of it soon, if the way is open.
    pub(crate) fn host_end_lost(&mut self, session: u64) {
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        stream.master_open = false;
        let delay = if way_is_open(&self.network, stream, false) {
            self.network.delay(&mut self.fates.network)
        } else {
            KEEPALIVE_MS
        };
        self.calendar.after(
            delay,
            Event::EndNotices {
                session,
                agent: true,
            },
        );
    }

    /// The agent's end is gone. `silent`: the machine is, so nobody says so.
    pub(crate) fn agent_end_lost(&mut self, session: u64, silent: bool) {
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        stream.agent_open = false;
        let delay = if !silent && way_is_open(&self.network, stream, true) {
            self.network.delay(&mut self.fates.network)
        } else {
            KEEPALIVE_MS
        };
        self.calendar.after(
            delay,
            Event::EndNotices {
                session,
                agent: false,
            },
        );
    }

    /// The agent's end finds the stream broken: nobody has sent it on, so somebody else is to be tried first.
    pub(crate) fn on_stream_breaks(&mut self, session: u64) {
        if let Some(stream) = self.streams.open.get(&session).filter(|s| s.agent_open) {
            let (machine, host) = (stream.machine, stream.host);
            if self.agent_runs(machine) {
                self.machines[machine.machine].left(host);
            }
        }
        self.on_end_notices(session, true);
    }

    pub(crate) fn on_end_notices(&mut self, session: u64, agent: bool) {
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        let host = HostBoot {
            host: stream.host,
            boot: stream.host_boot,
        };
        let machine = stream.machine;
        if agent && std::mem::take(&mut stream.agent_open) {
            if self.agent_runs(machine) {
                self.machines[machine.machine].session = None;
                self.note(
                    Actor::Machine(machine.machine),
                    "loses session {}",
                    [session, 0, 0, 0],
                );
                self.step_agent(machine.machine, AgentInput::Disconnected { session });
            }
        } else if !agent && std::mem::take(&mut stream.master_open) && self.runs(host) {
            self.hosts[host.host].sessions.remove(&session);
            self.step_master(host.host, Input::AgentGone { session });
        }
    }

    /// Sends what had to wait, breaks what waited for too long, and notes which streams are good.
    pub(crate) fn look_at_streams(&mut self) {
        let now = self.now();
        let sessions: Vec<u64> = self.streams.open.keys().copied().collect();
        for session in sessions {
            self.flush_lane(session, true);
            self.flush_lane(session, false);
            let Some(stream) = self.streams.open.get_mut(&session) else {
                continue;
            };
            let stalled = |since: Option<u64>| since.is_some_and(|s| s + KEEPALIVE_MS <= now);
            let broken = stalled(stream.up.stalled_ms) || stalled(stream.down.stalled_ms);
            let quiet = stream.up.stalled_ms.is_none() && stream.down.stalled_ms.is_none();
            let open = stream.agent_open && stream.master_open && quiet;
            let host = &self.hosts[stream.host];
            if open && host.leads.is_some() && host.boot == stream.host_boot {
                stream.good_since_ms.get_or_insert(now);
            } else {
                stream.good_since_ms = None;
            }
            if broken {
                self.on_stream_breaks(session);
                self.on_end_notices(session, false);
            }
        }
        self.streams.sweep();
    }

    fn flush_lane(&mut self, session: u64, up: bool) {
        let Some(stream) = self.streams.open.get_mut(&session) else {
            return;
        };
        if !way_is_open(&self.network, stream, up) {
            return;
        }
        let lane = if up { &mut stream.up } else { &mut stream.down };
        lane.stalled_ms = None;
        for frame in std::mem::take(&mut lane.held) {
            self.send_frame(session, up, frame);
        }
    }
}

/// True if frames pass in that direction.
fn way_is_open(network: &crate::network::Network, stream: &Stream, up: bool) -> bool {
    let machine = Place::Machine(stream.machine.machine);
    let host = Place::Master(stream.host);
    if up {
        network.passes(machine, host)
    } else {
        network.passes(host, machine)
    }
}
