//! Health: what agents tell of their GPUs for it, what of that is kept as evidence, and what people are shown.
//!
//! A [`GpuDigest`] is a reading in short, in integers, for the leader's memory. An [`Evidence`] is what a leader made of
//! it, and goes into the log; that list is append-only.

use serde::{Deserialize, Serialize};

use crate::{Fault, GpuCondition};

/// Most bytes of free text in one piece of evidence.
pub const MAX_EVIDENCE_BYTES: usize = 200;

/// One GPU's readings in short. What the driver does not say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDigest {
    /// Index in the node's offer.
    pub gpu: u16,
    /// When the look began, by the node's clock.
    pub at_ms: u64,
    /// Whether it answers.
    pub condition: GpuCondition,
    /// How long the look took.
    pub took_us: Option<u64>,
    /// Part of the time with a kernel running.
    pub util_pct: Option<u64>,
    /// Memory that processes hold.
    pub mem_used_bytes: Option<u64>,
    /// All of its memory.
    pub mem_total_bytes: Option<u64>,
    /// Temperature of the chip.
    pub temp_c: Option<u64>,
    /// Temperature from which it slows itself down.
    pub slowdown_temp_c: Option<u64>,
    /// Temperature of the memory.
    pub mem_temp_c: Option<u64>,
    /// Power draw.
    pub power_mw: Option<u64>,
    /// Clock of the multiprocessors.
    pub sm_mhz: Option<u64>,
    /// The highest it can do.
    pub max_sm_mhz: Option<u64>,
    /// Why clocks are lower than they could be: NVML's bits.
    pub throttle: Option<u64>,
    /// Memory errors corrected since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    /// Memory errors not corrected since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Rows of memory replaced, ever.
    pub rows_replaced: Option<u64>,
    /// 1 if a replacement waits for a reset.
    pub rows_pending: Option<u64>,
    /// 1 if a replacement failed.
    pub rows_failed: Option<u64>,
    /// PCIe lanes in use.
    pub pcie_width: Option<u64>,
    /// PCIe lanes there are.
    pub pcie_max_width: Option<u64>,
    /// PCIe packets sent again.
    pub pcie_replays: Option<u64>,
    /// NVLinks there are.
    pub nvlinks: Option<u64>,
    /// Of them up.
    pub nvlinks_up: Option<u64>,
    /// NVLink errors of all kinds.
    pub nvlink_errors: Option<u64>,
    /// XIDs heard since the agent started.
    pub xids: Option<u64>,
}

/// What an agent tells of its GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuEvent {
    /// The driver announced an error. Repeated in each inventory.
    Xid {
        /// Index in the node's offer.
        gpu: u16,
        /// NVIDIA's number of the error.
        xid: u32,
        /// When it was heard, by the node's clock.
        at_ms: u64,
    },
    /// Newest readings of some or all GPUs.
    Digests(Vec<GpuDigest>),
    /// Answer to a [`HealthCheck`].
    Checked {
        /// What was asked.
        check: HealthCheck,
        /// Fit for work.
        passed: bool,
        /// What was found, for people.
        text: String,
    },
}

/// A test that an agent is asked for before something that was out of service is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HealthCheck {
    /// One GPU, by its index in the node's offer; the whole node if absent.
    pub gpu: Option<u16>,
    /// Tells this test from earlier ones of the same thing.
    pub number: u64,
}

/// A GPU that cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outage {
    /// Calls to its driver do not return.
    Unresponsive,
    /// It fell off the bus, or the driver no longer lists it.
    Lost,
    /// The driver wants it reset.
    ResetRequired,
}

/// What a reading gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sign {
    /// Memory errors that could not be corrected.
    UncorrectedErrors,
    /// Very many memory errors that were corrected.
    CorrectedErrors,
    /// A row of memory is replaced at the next reset.
    RowsPending,
    /// No rows are left to replace a bad one.
    RowsFailed,
    /// Fewer PCIe lanes than there are.
    PcieWidth,
    /// Many PCIe packets sent again.
    PcieReplays,
    /// An NVLink is down.
    NvlinkDown,
    /// Many errors on NVLinks.
    NvlinkErrors,
    /// As hot as where it slows itself down.
    Hot,
    /// Hardware holds its clocks down.
    Slowed,
    /// Looking at it takes very long.
    SlowToAnswer,
}

/// A piece of evidence about a GPU or a node. Written to the log: the list is append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// The driver announced an error.
    Xid {
        /// NVIDIA's number.
        xid: u32,
        /// When, by the node's clock: one that is repeated counts once.
        at_ms: u64,
    },
    /// It cannot be used.
    Out(Outage),
    /// It can be used again, as far as its driver says.
    Back,
    /// A reading gave something away.
    Sign {
        /// What.
        sign: Sign,
        /// How much that adds to the score.
        points: u32,
        /// The reading, for people.
        text: String,
    },
    /// It will probably fail soon.
    Forecast {
        /// How probably, in thousandths.
        per_mille: u32,
        /// From what, for people.
        text: String,
    },
    /// A test was answered.
    Checked {
        /// Which test.
        number: u64,
        /// Fit for work.
        passed: bool,
        /// What was found.
        text: String,
    },
}

/// A piece of evidence and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// One GPU, by its index in the node's offer; the whole node if absent.
    pub gpu: Option<u16>,
    /// What.
    pub evidence: Evidence,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthOrder {
    /// Take it out of service until it is returned by hand.
    Quarantine {
        /// Why, for people.
        reason: String,
    },
    /// Test it now, and use it again if it passes.
    Return,
}

/// Whether something can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HealthStage {
    /// Used.
    #[default]
    Healthy,
    /// Used, but there is evidence against it.
    Suspect,
    /// Takes no new tasks; what runs there moves away at its next checkpoint.
    Leaving,
    /// Takes no tasks until it has cooled down.
    Quarantined,
    /// Takes no tasks until it has passed a test.
    Testing,
}

impl HealthStage {
    /// True if new tasks may be placed there.
    pub fn is_usable(self) -> bool {
        match self {
            HealthStage::Healthy | HealthStage::Suspect => true,
            HealthStage::Leaving | HealthStage::Quarantined | HealthStage::Testing => false,
        }
    }

    /// For people and scripts. Stable.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStage::Healthy => "healthy",
            HealthStage::Suspect => "suspect",
            HealthStage::Leaving => "leaving",
            HealthStage::Quarantined => "quarantined",
            HealthStage::Testing => "testing",
        }
    }
}

/// The health of a GPU, or of a node as a whole, as shown to people and scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// One GPU, by its index in the node's offer; the whole node if absent.
    pub gpu: Option<u16>,
    /// Whether it can be used.
    pub stage: HealthStage,
    /// Weight of the evidence against it: 1000 is too much.
    pub score: u32,
    /// How often it was taken out of service, less what good time has made up for.
    pub strikes: u32,
    /// When it is tested; 0 if it is not out of service, 0 also if only an operator returns it.
    pub until_ms: u64,
    /// True if only an operator returns it.
    pub by_hand: bool,
    /// Newest evidence first.
    pub evidence: Vec<HealthNote>,
    /// Changes of stage, newest first.
    pub history: Vec<HealthNote>,
}

/// A line of evidence or history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNote {
    /// When, in state time.
    pub at_ms: u64,
    /// What, for people.
    pub text: String,
}

impl HealthOrder {
    /// Every fault of it.
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            HealthOrder::Quarantine { reason } if reason.trim().is_empty() => {
                let hint = "say why, for whoever finds it out of service";
                vec![Fault::new("reason", "empty", hint)]
            }
            HealthOrder::Quarantine { .. } | HealthOrder::Return => Vec::new(),
        }
    }
}
