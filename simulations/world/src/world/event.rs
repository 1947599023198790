//! Everything that can happen in a world.

use berth_agent_core::Input as AgentInput;
use berth_core::planner::Plan;
use berth_core::replica::PeerMessage;
use berth_core::state::FinishedJob;
use berth_types::api::{Request, Response};
use berth_types::{MasterId, TaskKey};
use bytes::Bytes;

use crate::host::Caller;
use crate::machine::MachineBoot;
use crate::options::FaultKind;
use crate::stream::Frame;

/// A master's process: the host, and which of its starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostBoot {
    /// The host.
    pub(crate) host: usize,
    /// Which start.
    pub(crate) boot: u64,
}

/// A machine's start, so that what was meant for an earlier one is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerOn {
    /// The machine.
    pub(crate) machine: usize,
    /// Which start.
    pub(crate) boot: u64,
}

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A master's tick is due.
    Tick(HostBoot),
    /// A message between masters arrives.
    PeerArrives {
        /// Where.
        host: usize,
        /// From whom.
        from: MasterId,
        /// Whose process sent it, if it wants to know that a snapshot arrived.
        report_to: Option<HostBoot>,
        /// What.
        message: Box<PeerMessage>,
    },
    /// A message with a snapshot was delivered or not.
    SnapshotFate {
        /// The sender.
        sender: HostBoot,
        /// The receiver.
        to: MasterId,
        /// Delivered.
        ok: bool,
    },
    /// A message could not be delivered.
    PeerUnreachable {
        /// The sender.
        sender: HostBoot,
        /// The receiver.
        to: MasterId,
    },
    /// A flush is done.
    DiskDone(HostBoot),
    /// The policy has answered, or not.
    PolicyAnswers {
        /// Whose.
        host: HostBoot,
        /// Which round.
        round: u64,
        /// What.
        plan: Option<Box<Plan>>,
    },
    /// A state is encoded.
    SnapshotTaken {
        /// Whose.
        host: HostBoot,
        /// Its index.
        index: u64,
        /// The bytes.
        data: Bytes,
    },
    /// The history was read.
    HistoryAnswers {
        /// Whose.
        host: HostBoot,
        /// The question.
        token: u64,
        /// What was found.
        jobs: Vec<FinishedJob>,
    },
    /// A master fetches history that it lacks.
    HistoryFetch(HostBoot),
    /// A master's process dies.
    MasterDies {
        /// Which.
        host: HostBoot,
        /// How long it stays dead.
        pause_ms: u64,
    },
    /// A master's process starts.
    MasterStarts(usize),
    /// An agent tries to connect.
    Dial(MachineBoot),
    /// It could, to this start of a host, or could not.
    Dialed {
        /// The agent.
        machine: MachineBoot,
        /// The host.
        host: HostBoot,
        /// Connected.
        ok: bool,
    },
    /// Something arrives on a stream.
    FrameArrives {
        /// Which stream.
        session: u64,
        /// Agent to master.
        up: bool,
        /// What.
        frame: Box<Frame>,
    },
    /// One end of a stream notices that it is gone.
    EndNotices {
        /// Which stream.
        session: u64,
        /// The agent's end, else the master's.
        agent: bool,
    },
    /// An agent's tick is due.
    AgentTick(MachineBoot),
    /// An agent's process starts.
    AgentStarts(usize),
    /// A fact for an agent.
    AgentHears {
        /// Which agent.
        machine: MachineBoot,
        /// What.
        input: Box<AgentInput>,
    },
    /// An agent's order reaches the keeper.
    KeeperActs {
        /// Which agent.
        machine: MachineBoot,
        /// Over which socket.
        socket: u64,
        /// What.
        order: Box<berth_agent_core::Effect>,
    },
    /// An agent has connected to a new keeper and hears what it has.
    KeeperAnswers {
        /// Which agent.
        machine: MachineBoot,
        /// Over which socket.
        socket: u64,
    },
    /// A machine gets its power back.
    MachineStarts(usize),
    /// A process ends.
    ProcessEnds {
        /// Where.
        machine: PowerOn,
        /// Which.
        key: TaskKey,
        /// Only if this still is its end.
        version: u64,
    },
    /// A process tells its agent something.
    ProcessSpeaks {
        /// Where.
        machine: PowerOn,
        /// Which.
        key: TaskKey,
        /// A checkpoint, else progress.
        checkpoint: bool,
    },
    /// A keeper looks at its lease.
    KeeperLease(PowerOn),
    /// A client does something.
    ClientActs(usize),
    /// A client's call arrives.
    CallArrives {
        /// Where.
        host: usize,
        /// Whose.
        caller: Caller,
        /// What.
        request: Box<Request>,
    },
    /// An answer arrives.
    ReplyArrives {
        /// Whose.
        caller: Caller,
        /// What.
        response: Box<Response>,
    },
    /// A client waits no longer.
    CallTimesOut(Caller),
    /// A fault strikes.
    Strike {
        /// Which kind.
        kind: FaultKind,
        /// Mean time to the next.
        pace_ms: u64,
    },
    /// A fault that lasts is over.
    Relief(Relief),
    /// Checks and sweeps.
    Look,
}

/// The end of a fault that lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Relief {
    /// Links of a master work again.
    MendMaster(usize),
    /// Links of a machine work again.
    MendMachine(usize),
    /// The storm is over.
    Calm,
    /// A disk is fast again.
    DiskRecovers(usize),
    /// A machine has all its GPUs again.
    GpusReturn(usize),
    /// A node is put back into service.
    Undrain(usize),
    /// An impostor goes away.
    ImpostorLeaves(usize),
}
