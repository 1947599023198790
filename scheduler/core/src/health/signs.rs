//! What readings give away, at whoever watches them: the leader, or the simulator.
//!
//! Compares each reading with the one before. What holds on (a GPU that is lost) is told once when it begins and once when
//! it ends, and again to a new leader, which the record ignores; what counts (errors) is told by its growth.

use std::collections::BTreeMap;

use berth_types::{Evidence, Finding, GpuCondition, GpuDigest, Outage, Sign};

/// NVML's reasons for lower clocks that hardware gives: slow-down, heat, power brake
/// (`nvmlClocksEventReasonHwSlowdown`, `…HwThermalSlowdown`, `…HwPowerBrakeSlowdown`).
pub(super) const HARDWARE_SLOWDOWN: u64 = 0x8 | 0x40 | 0x80;

/// The same sign is told again after this.
const TELL_AGAIN_MS: u64 = 600_000;
/// A sign that lasts is told once it was seen this many times in a row, so that a spike says nothing.
const LASTING: u32 = 3;
/// Corrected memory errors between two readings that are a storm.
const STORM: u64 = 1_000;
/// PCIe replays between two readings that are many.
const REPLAYS: u64 = 100;
/// NVLink errors between two readings that are many.
const LINK_ERRORS: u64 = 100;
/// A look that takes longer is slow; most take a few milliseconds.
const SLOW_LOOK_US: u64 = 1_000_000;

/// What is known of a node's GPUs from earlier readings.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    gpus: BTreeMap<u16, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    last: Option<GpuDigest>,
    lasting: BTreeMap<Sign, u32>,
    told: BTreeMap<Sign, u64>,
}

impl Watch {
    /// Newest readings, by GPU.
    pub fn newest(&self) -> impl Iterator<Item = &GpuDigest> {
        self.gpus.values().filter_map(|seen| seen.last.as_ref())
    }

    /// Takes readings of a node's GPUs. `is_out` says which outage its record has.
    pub fn take(
        &mut self,
        digests: &[GpuDigest],
        is_out: impl Fn(u16) -> Option<Outage>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for digest in digests {
            let seen = self.gpus.entry(digest.gpu).or_default();
            let out = outage(digest.condition);
            let known = is_out(digest.gpu);
            match out {
                Some(outage) if known != Some(outage) => {
                    findings.push(finding(digest.gpu, Evidence::Out(outage)));
                }
                None if known.is_some() && digest.condition == GpuCondition::Answering => {
                    findings.push(finding(digest.gpu, Evidence::Back));
                }
                Some(_) | None => {}
            }
            if out.is_none() {
                let signs = seen.signs(digest);
                findings.extend(signs.into_iter().map(|e| finding(digest.gpu, e)));
            }
            seen.last = Some(*digest);
        }
        findings
    }
}

fn outage(condition: GpuCondition) -> Option<Outage> {
    match condition {
        GpuCondition::Unknown | GpuCondition::Answering => None,
        GpuCondition::Unresponsive => Some(Outage::Unresponsive),
        GpuCondition::Lost => Some(Outage::Lost),
        GpuCondition::ResetRequired => Some(Outage::ResetRequired),
    }
}

fn finding(gpu: u16, evidence: Evidence) -> Finding {
    Finding {
        gpu: Some(gpu),
        evidence,
    }
}

impl Seen {
    fn signs(&mut self, now: &GpuDigest) -> Vec<Evidence> {
        let mut found: Vec<(Sign, u32, String)> = Vec::new();
        let last = self.last.unwrap_or_default();
        // Without an earlier reading nothing has grown.
        let grown = |now: Option<u64>, before: Option<u64>| match (now, before) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            _ => 0,
        };
        let errors = grown(now.ecc_uncorrected, last.ecc_uncorrected);
        if errors > 0 {
            let text = format!("{errors} more memory errors that were not corrected");
            found.push((Sign::UncorrectedErrors, 500, text));
        }
        let errors = grown(now.ecc_corrected, last.ecc_corrected);
        if errors >= STORM {
            let text = format!("{errors} memory errors corrected between two readings");
            found.push((Sign::CorrectedErrors, 200, text));
        }
        let errors = grown(now.pcie_replays, last.pcie_replays);
        if errors >= REPLAYS {
            let text = format!("{errors} PCIe packets sent again between two readings");
            found.push((Sign::PcieReplays, 200, text));
        }
        let errors = grown(now.nvlink_errors, last.nvlink_errors);
        if errors >= LINK_ERRORS {
            let text = format!("{errors} NVLink errors between two readings");
            found.push((Sign::NvlinkErrors, 200, text));
        }
        found.extend(self.lasting(now));
        let mut told = |sign: Sign| {
            let before = self.told.get(&sign).copied();
            let is_due = before.is_none_or(|at| now.at_ms >= at.saturating_add(TELL_AGAIN_MS));
            if is_due {
                self.told.insert(sign, now.at_ms);
            }
            is_due
        };
        found.retain(|(sign, _, _)| told(*sign));
        let evidence = found.into_iter();
        evidence
            .map(|(sign, points, text)| Evidence::Sign { sign, points, text })
            .collect()
    }

    /// Signs that hold on.
    fn lasting(&mut self, now: &GpuDigest) -> Vec<(Sign, u32, String)> {
        let mut found = Vec::new();
        if now.rows_failed == Some(1) {
            let text = "no rows of memory are left to replace a bad one";
            found.push((Sign::RowsFailed, 1_000, text.to_owned()));
        }
        if now.rows_pending == Some(1) {
            let text = "a row of memory is replaced at the next reset";
            found.push((Sign::RowsPending, 300, text.to_owned()));
        }
        if let (Some(width), Some(most)) = (now.pcie_width, now.pcie_max_width)
            && width < most
        {
            let text = format!("{width} of {most} PCIe lanes in use");
            found.push((Sign::PcieWidth, 300, text));
        }
        if let (Some(up), Some(links)) = (now.nvlinks_up, now.nvlinks)
            && up < links
        {
            let text = format!("{} of {links} NVLinks are down", links - up);
            found.push((Sign::NvlinkDown, 500, text));
        }
        if let (Some(temp), Some(limit)) = (now.temp_c, now.slowdown_temp_c)
            && temp >= limit
        {
            let text = format!("{temp} °C; it slows down from {limit} °C on");
            found.push((Sign::Hot, 100, text));
        }
        if now
            .throttle
            .is_some_and(|bits| bits & HARDWARE_SLOWDOWN != 0)
        {
            let text = "hardware holds its clocks down".to_owned();
            found.push((Sign::Slowed, 200, text));
        }
        if now.took_us.is_some_and(|us| us >= SLOW_LOOK_US) {
            let text = "looking at it takes more than a second".to_owned();
            found.push((Sign::SlowToAnswer, 100, text));
        }
        let present: Vec<Sign> = found.iter().map(|(sign, _, _)| *sign).collect();
        self.lasting.retain(|sign, _| present.contains(sign));
        found.retain(|(sign, _, _)| {
            let times = self.lasting.entry(*sign).or_insert(0);
            *times = times.saturating_add(1);
            *times >= LASTING
        });
        found
    }
}
