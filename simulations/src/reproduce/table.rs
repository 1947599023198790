//! Measured figures beside the published ones, each with the band within which they have to agree.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which published result: `openb`, `sia`, `queues`, `speed`.
    pub of: &'static str,
    /// What it is: workload, policy, figure.
    pub what: String,
    /// What Berth gives; none if it could not be measured.
    pub measured: Option<f64>,
    /// What is published, or the bound.
    pub reference: Option<f64>,
    /// How far apart the two may be.
    pub band: Band,
    /// How far apart they are, in the band's unit.
    pub off: Option<f64>,
    /// Whether that holds.
    pub verdict: Verdict,
    /// Why they differ, or why nothing was measured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remark: String,
}

/// How far two figures may be apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Band {
    /// By so many units of the figure.
    Points(f64),
    /// By this share of the reference.
    Share(f64),
    /// The figure is at most the reference.
    AtMost,
    /// The figure is told, and nothing is asked of it.
    Told,
}

/// Whether a band holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does.
    Pass,
    /// It does not.
    Fail,
    /// Nothing is asked.
    Told,
}

impl Row {
    /// A measured figure beside a reference.
    pub fn new(
        of: &'static str,
        what: String,
        measured: f64,
        reference: Option<f64>,
        band: Band,
    ) -> Self {
        let off = reference.and_then(|reference| match band {
            Band::Points(_) | Band::AtMost => Some(measured - reference),
            Band::Share(_) | Band::Told => (reference != 0.0).then(|| measured / reference - 1.0),
        });
        let holds = match (band, off) {
            (Band::Told, _) => Verdict::Told,
            (Band::Points(most) | Band::Share(most), Some(off)) if off.abs() <= most => {
                Verdict::Pass
            }
            (Band::AtMost, Some(off)) if off <= 0.0 => Verdict::Pass,
            _ => Verdict::Fail,
        };
        Self {
            of,
            what,
            measured: Some(measured),
            reference,
            band,
            off,
            verdict: holds,
            remark: String::new(),
        }
    }

    /// What could not be measured; that fails.
    pub fn failed(of: &'static str, what: String, why: String) -> Self {
        Self {
            of,
            what,
            measured: None,
            reference: None,
            band: Band::Told,
            off: None,
            verdict: Verdict::Fail,
            remark: why,
        }
    }

    /// With a remark.
    #[must_use]
    pub fn because(mut self, remark: &str) -> Self {
        remark.clone_into(&mut self.remark);
        self
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Band::Points(most) => write!(f, "± {most}"),
            Band::Share(most) => write!(f, "± {:.0} %", most * 100.0),
            Band::AtMost => f.write_str("at most"),
            Band::Told => f.write_str("-"),
        }
    }
}

/// Writes rows as a Markdown table.
///
/// # Errors
/// If it cannot be written.
pub fn write(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1_000.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.3}"),
    };
    writeln!(out, "| of | what | measured | reference | band | off | |")?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        let off = match (row.band, row.off) {
            (_, None) => "-".to_owned(),
            (Band::Share(_) | Band::Told, Some(off)) => format!("{:+.1} %", off * 100.0),
            (_, Some(off)) => format!("{off:+.3}"),
        };
        let verdict = match row.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Told => "",
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {off} | {verdict}{}{} |",
            row.of,
            row.what,
            number(row.measured),
            number(row.reference),
            row.band,
            if verdict.is_empty() || row.remark.is_empty() {
                ""
            } else {
                ": "
            },
            row.remark,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_or_not() {
        let verdict = |measured, reference, band| {
            Row::new("x", String::new(), measured, reference, band).verdict
        };
        assert_eq!(verdict(95.1, Some(95.0), Band::Points(0.2)), Verdict::Pass);
        assert_eq!(verdict(95.3, Some(95.0), Band::Points(0.2)), Verdict::Fail);
        assert_eq!(verdict(0.95, Some(1.0), Band::Share(0.051)), Verdict::Pass);
        assert_eq!(verdict(0.90, Some(1.0), Band::Share(0.05)), Verdict::Fail);
        assert_eq!(verdict(1.0, Some(1.1), Band::AtMost), Verdict::Pass);
        assert_eq!(verdict(1.2, Some(1.1), Band::AtMost), Verdict::Fail);
        assert_eq!(verdict(1.0, None, Band::Points(1.0)), Verdict::Fail);
        assert_eq!(verdict(1.0, None, Band::Told), Verdict::Told);
    }
}
