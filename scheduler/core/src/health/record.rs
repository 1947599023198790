//! The replicated record of one GPU's or one node's health, and what evidence does to it. Integers only.
//!
//! Evidence weighs points that halve every [`HALF_LIFE_MS`]. Each time something is taken out of service is a strike; it
//! cools down twice as long as the time before, and good time takes strikes back one by one (the back-off of failing
//! hosts that Borg describes for task restarts, applied to machines: Verma et al., "Large-scale cluster management at
//! Google with Borg", EuroSys 2015, section 4).

use std::collections::BTreeMap;

use berth_types::health::MAX_EVIDENCE_BYTES;
use berth_types::{Evidence, HealthNote, HealthStage, HealthView, Outage};
use serde::{Deserialize, Serialize};

use super::failures::Failure;
use super::xid::{self, XidClass};

/// Points from which something is suspect.
pub const SUSPECT_POINTS: u32 = 300;
/// Points from which it is taken out of service.
pub const TOO_MUCH_POINTS: u32 = 1_000;
/// A suspect is forgiven below this.
const FORGIVEN_POINTS: u32 = 150;
/// Points halve in this time.
const HALF_LIFE_MS: u64 = 6 * 3_600_000;
/// Newest evidence kept.
const MAX_EVIDENCE: usize = 8;
/// Newest changes of stage kept.
const MAX_CHANGES: usize = 16;
/// A failure within this time of an XID that is not the program's is the XID's.
pub(crate) const BLAME_MS: u64 = 60_000;
/// Strikes beyond this make no difference.
const MAX_STRIKES: u32 = 32;
/// Returned by hand only.
const BY_HAND: u64 = u64::MAX;
/// Nobody answers a test that long: it is asked again.
const TEST_AGAIN_MS: u64 = 120_000;

/// How long something cools down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// After the first strike.
    pub first_ms: u64,
    /// At most.
    pub most_ms: u64,
    /// Good time that takes one strike back.
    pub forget_ms: u64,
}

/// Cooling of a GPU and of a node as a whole. A GPU seldom mends itself; a node's trouble is often a full disk or a
/// mount that comes back.
pub const COOLED: (Cooling, Cooling) = (
    Cooling {
        first_ms: 300_000,
        most_ms: 24 * 3_600_000,
        forget_ms: 24 * 3_600_000,
    },
    Cooling {
        first_ms: 60_000,
        most_ms: 6 * 3_600_000,
        forget_ms: 6 * 3_600_000,
    },
);

/// The records of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// The node as a whole.
    pub machine: Health,
    /// GPUs that there was ever anything to say of, by their index in the offer.
    pub gpus: BTreeMap<u16, Health>,
    /// Jobs whose tasks failed here lately, oldest first.
    pub failures: Vec<Failure>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is used.
    pub stage: HealthStage,
    /// Since when.
    pub since_ms: u64,
    /// Weight of the evidence at `score_ms`; see [`Health::score`].
    pub score: u32,
    /// When that was weighed.
    pub score_ms: u64,
    /// Strikes at `strike_ms`; see [`Health::strikes`].
    pub strikes: u32,
    /// When the newest was.
    pub strike_ms: u64,
    /// Not tested before this; `u64::MAX` if an operator returns it.
    pub until_ms: u64,
    /// It cannot be used at the moment, as its driver says.
    pub out: Option<Outage>,
    /// When an XID was noted that is not the program's fault, in state time; 0 for never.
    pub blamed_ms: u64,
    /// Newest XIDs with their time by the node's clock: one that is repeated counts once.
    pub xids: Vec<(u64, u32)>,
    /// Tests asked for so far; the number of the newest.
    pub tests: u64,
    /// Newest evidence, oldest first.
    pub evidence: Vec<HealthNote>,
    /// Changes of stage, oldest first.
    pub changes: Vec<HealthNote>,
}

/// What evidence asks for beyond the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// Nothing.
    None,
    /// The stage changed, for this reason.
    Changed(String),
    /// What runs there has lost it, for this reason.
    Fatal(String),
    /// The machine as a whole is concerned, for this reason.
    Machine(String),
}

impl NodeHealth {
    /// True if nothing new may be placed on the node.
    pub fn is_resting(&self) -> bool {
        !self.machine.stage.is_usable()
    }

    /// True if nothing may be placed on this GPU.
    pub fn is_blocked(&self, gpu: u16) -> bool {
        self.gpus.get(&gpu).is_some_and(|g| !g.stage.is_usable())
    }

    /// A record.
    pub fn of(&self, gpu: Option<u16>) -> Option<&Health> {
        match gpu {
            Some(gpu) => self.gpus.get(&gpu),
            None => Some(&self.machine),
        }
    }

    pub(crate) fn of_mut(&mut self, gpu: Option<u16>) -> &mut Health {
        match gpu {
            Some(gpu) => self.gpus.entry(gpu).or_default(),
            None => &mut self.machine,
        }
    }
}

impl Health {
    /// True if there is nothing to say of it.
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// Weight of the evidence now: halves every six hours, straight in between.
    pub fn score(&self, now_ms: u64) -> u32 {
        let passed = now_ms.saturating_sub(self.score_ms);
        let halved = passed / HALF_LIFE_MS;
        let whole = u64::from(self.score)
            .checked_shr(u32::try_from(halved).unwrap_or(u32::MAX))
            .unwrap_or(0);
        let part = whole * (passed % HALF_LIFE_MS) / (2 * HALF_LIFE_MS);
        u32::try_from(whole - part).unwrap_or(u32::MAX)
    }

    /// Strikes that good time has not taken back yet.
    pub fn strikes(&self, now_ms: u64, cooling: Cooling) -> u32 {
        let good = now_ms.saturating_sub(self.strike_ms) / cooling.forget_ms.max(1);
        self.strikes
            .saturating_sub(u32::try_from(good).unwrap_or(u32::MAX))
    }

    /// Takes a piece of evidence.
    pub(crate) fn take(
        &mut self,
        evidence: &Evidence,
        cooling: Cooling,
        now_ms: u64,
    ) -> Consequence {
        match evidence {
            Evidence::Xid { xid, at_ms } => self.on_xid(*xid, *at_ms, cooling, now_ms),
            Evidence::Out(outage) => self.on_out(*outage, cooling, now_ms),
            Evidence::Back => {
                if self.out.take().is_some() {
                    self.note("answers again", now_ms);
                }
                Consequence::None
            }
            Evidence::Sign { points, text, .. } => {
                self.note(text, now_ms);
                self.weigh(*points, text, cooling, now_ms)
            }
            Evidence::Forecast { per_mille, text } => {
                let text = format!(
                    "will probably fail soon ({}.{} %): {text}",
                    per_mille / 10,
                    per_mille % 10
                );
                self.note(&text, now_ms);
                self.leave(&text, cooling, now_ms)
            }
            Evidence::Checked {
                number,
                passed,
                text,
            } => self.on_checked(*number, *passed, text, cooling, now_ms),
        }
    }

    fn on_xid(&mut self, xid: u32, at_ms: u64, cooling: Cooling, now_ms: u64) -> Consequence {
        let known = self.xids.contains(&(at_ms, xid));
        let full = self.xids.len() >= MAX_EVIDENCE;
        if known || (full && self.xids.first().is_some_and(|(oldest, _)| at_ms < *oldest)) {
            return Consequence::None;
        }
        if full {
            self.xids.remove(0);
        }
        self.xids.push((at_ms, xid));
        self.xids.sort_unstable();
        let name = xid::name(xid);
        self.note(&name, now_ms);
        match xid::class(xid) {
            XidClass::Harmless | XidClass::Application => Consequence::None,
            XidClass::Unlisted => self.weigh(100, &name, cooling, now_ms),
            XidClass::Contained => {
                self.blamed_ms = now_ms;
                self.weigh(400, &name, cooling, now_ms)
            }
            XidClass::Link => {
                self.blamed_ms = now_ms;
                self.weigh(500, &name, cooling, now_ms)
            }
            XidClass::ResetGpu => {
                self.blamed_ms = now_ms;
                self.quarantine(&name, cooling, now_ms);
                Consequence::Fatal(name)
            }
            XidClass::RestartMachine => {
                self.blamed_ms = now_ms;
                let text = format!("{name}, until the machine is restarted");
                self.quarantine(&text, cooling, now_ms);
                Consequence::Fatal(name)
            }
            XidClass::DrainMachine => {
                self.blamed_ms = now_ms;
                Consequence::Machine(name)
            }
        }
    }

    fn on_out(&mut self, outage: Outage, cooling: Cooling, now_ms: u64) -> Consequence {
        if self.out == Some(outage) {
            return Consequence::None;
        }
        self.out = Some(outage);
        let (text, fatal) = match outage {
            Outage::Unresponsive => ("does not answer: a call to its driver hangs", false),
            Outage::Lost => ("is gone: its driver no longer lists it", true),
            Outage::ResetRequired => ("needs a reset, says its driver", true),
        };
        self.note(text, now_ms);
        self.quarantine(text, cooling, now_ms);
        if fatal {
            self.blamed_ms = now_ms;
            return Consequence::Fatal(text.to_owned());
        }
        Consequence::Changed(text.to_owned())
    }

    /// Adds points.
    pub(crate) fn weigh(
        &mut self,
        points: u32,
        text: &str,
        cooling: Cooling,
        now_ms: u64,
    ) -> Consequence {
        self.score = self.score(now_ms).saturating_add(points);
        self.score_ms = now_ms;
        if self.score >= TOO_MUCH_POINTS {
            return self.leave(text, cooling, now_ms);
        }
        if self.score >= SUSPECT_POINTS && self.stage == HealthStage::Healthy {
            self.change(HealthStage::Suspect, text, now_ms);
            return Consequence::Changed(text.to_owned());
        }
        Consequence::None
    }

    /// Takes no new tasks any more.
    fn leave(&mut self, text: &str, cooling: Cooling, now_ms: u64) -> Consequence {
        if !self.stage.is_usable() {
            return Consequence::None;
        }
        self.strike(cooling, now_ms);
        self.change(HealthStage::Leaving, text, now_ms);
        Consequence::Changed(text.to_owned())
    }

    /// Out of service until it has cooled down. In the same spell more evidence only begins the time anew.
    pub(crate) fn quarantine(&mut self, text: &str, cooling: Cooling, now_ms: u64) {
        if self.stage == HealthStage::Quarantined {
            if self.until_ms != BY_HAND {
                let cool_ms = cool_ms(self.strikes(now_ms, cooling), cooling);
                self.until_ms = self.until_ms.max(now_ms.saturating_add(cool_ms));
            }
            return;
        }
        self.strike(cooling, now_ms);
        self.change(HealthStage::Quarantined, text, now_ms);
    }

    fn strike(&mut self, cooling: Cooling, now_ms: u64) {
        self.strikes = (self.strikes(now_ms, cooling) + 1).min(MAX_STRIKES);
        self.strike_ms = now_ms;
        self.until_ms = now_ms.saturating_add(cool_ms(self.strikes, cooling));
    }

    fn on_checked(
        &mut self,
        number: u64,
        passed: bool,
        text: &str,
        cooling: Cooling,
        now_ms: u64,
    ) -> Consequence {
        if self.stage != HealthStage::Testing || number != self.tests {
            return Consequence::None;
        }
        if passed {
            self.score = 0;
            self.out = None;
            self.until_ms = 0;
            let text = format!("passed its test: {text}");
            self.change(HealthStage::Healthy, &text, now_ms);
            return Consequence::Changed(text);
        }
        let text = format!("failed its test: {text}");
        self.note(&text, now_ms);
        self.quarantine(&text, cooling, now_ms);
        Consequence::Changed(text)
    }

    /// An operator takes it out of service.
    pub(crate) fn quarantine_by_hand(&mut self, reason: &str, now_ms: u64) {
        let text = format!("taken out of service by hand: {reason}");
        self.until_ms = BY_HAND;
        self.change(HealthStage::Quarantined, &text, now_ms);
    }

    /// An operator wants it back. True if it is tested first.
    pub(crate) fn return_by_hand(&mut self, now_ms: u64) -> bool {
        let tested = !self.stage.is_usable();
        if tested {
            self.test("returned by hand", now_ms);
        } else {
            self.score = 0;
            if self.stage == HealthStage::Suspect {
                self.change(HealthStage::Healthy, "cleared by hand", now_ms);
            }
        }
        tested
    }

    /// Its time has come: it is tested, or forgiven. True if anything changed.
    pub(crate) fn review(&mut self, now_ms: u64) -> bool {
        if !self.is_due(now_ms) {
            return false;
        }
        match self.stage {
            HealthStage::Suspect => {
                self.change(HealthStage::Healthy, "nothing more was seen", now_ms)
            }
            HealthStage::Leaving | HealthStage::Quarantined => self.test("cooled down", now_ms),
            HealthStage::Testing => self.test("its test was not answered", now_ms),
            HealthStage::Healthy => {}
        }
        true
    }

    fn test(&mut self, text: &str, now_ms: u64) {
        self.tests = self.tests.saturating_add(1);
        self.until_ms = now_ms.saturating_add(TEST_AGAIN_MS);
        if self.stage != HealthStage::Testing {
            self.change(HealthStage::Testing, text, now_ms);
        }
    }

    /// When time alone changes it; never before [`Health::is_due`] says so.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        match self.stage {
            HealthStage::Healthy => None,
            HealthStage::Suspect => {
                // Within one half-life of being that low, at the latest.
                let mut at_ms = self.score_ms;
                while self.score(at_ms) >= FORGIVEN_POINTS {
                    at_ms = at_ms.saturating_add(HALF_LIFE_MS / 8);
                }
                Some(at_ms)
            }
            HealthStage::Leaving | HealthStage::Quarantined | HealthStage::Testing => {
                (self.until_ms != BY_HAND).then_some(self.until_ms)
            }
        }
    }

    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        match self.stage {
            HealthStage::Healthy => false,
            HealthStage::Suspect => self.score(now_ms) < FORGIVEN_POINTS,
            HealthStage::Leaving | HealthStage::Quarantined | HealthStage::Testing => {
                self.until_ms != BY_HAND && self.until_ms <= now_ms
            }
        }
    }

    /// True if a failure now follows from an error of this GPU.
    pub(crate) fn is_to_blame(&self, now_ms: u64) -> bool {
        self.blamed_ms > 0 && now_ms.saturating_sub(self.blamed_ms) <= BLAME_MS
    }

    /// The newest evidence.
    pub fn newest(&self) -> &str {
        self.evidence.last().map_or("", |note| note.text.as_str())
    }

    /// The newest change of stage.
    pub fn why(&self) -> &str {
        self.changes.last().map_or("", |note| note.text.as_str())
    }

    pub(crate) fn note(&mut self, text: &str, now_ms: u64) {
        push(&mut self.evidence, MAX_EVIDENCE, text, now_ms);
    }

    fn change(&mut self, stage: HealthStage, text: &str, now_ms: u64) {
        self.stage = stage;
        self.since_ms = now_ms;
        let text = format!("{}: {text}", stage.as_str());
        push(&mut self.changes, MAX_CHANGES, &text, now_ms);
    }

    pub(super) fn view(&self, gpu: Option<u16>, now_ms: u64) -> HealthView {
        let cooling = cooling(gpu);
        let newest_first = |notes: &[HealthNote]| notes.iter().rev().cloned().collect();
        let by_hand = !self.stage.is_usable() && self.until_ms == BY_HAND;
        HealthView {
            gpu,
            stage: self.stage,
            score: self.score(now_ms),
            strikes: self.strikes(now_ms, cooling),
            until_ms: if self.stage.is_usable() || by_hand {
                0
            } else {
                self.until_ms
            },
            by_hand,
            evidence: newest_first(&self.evidence),
            history: newest_first(&self.changes),
        }
    }

    /// What is broken about it, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.evidence.len() > MAX_EVIDENCE || self.changes.len() > MAX_CHANGES {
            return Some("keeps too much");
        }
        if self.xids.len() > MAX_EVIDENCE || !self.xids.is_sorted() {
            return Some("keeps too many XIDs, or not in order");
        }
        if self.stage == HealthStage::Testing && self.tests == 0 {
            return Some("is tested without a number");
        }
        None
    }
}

/// Which cooling a record has.
pub(crate) fn cooling(gpu: Option<u16>) -> Cooling {
    match gpu {
        Some(_) => COOLED.0,
        None => COOLED.1,
    }
}

fn cool_ms(strikes: u32, cooling: Cooling) -> u64 {
    let doublings = strikes.saturating_sub(1).min(MAX_STRIKES);
    (cooling.first_ms << doublings).min(cooling.most_ms)
}

fn push(notes: &mut Vec<HealthNote>, most: usize, text: &str, at_ms: u64) {
    if notes.len() >= most {
        notes.remove(0);
    }
    let end = (0..=MAX_EVIDENCE_BYTES.min(text.len()))
        .rfind(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    notes.push(HealthNote {
        at_ms,
        text: text[..end].to_owned(),
    });
}
