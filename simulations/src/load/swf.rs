//! The Standard Workload Format of the Parallel Workloads Archive, version 2.2: one job per line, 18 fields between
//! spaces, -1 where something is unknown, comments after `;`, sorted by time of submission.
//!
//! The format knows processors only. One is a GPU where the cluster has GPUs, and a CPU where it has none. Lines of
//! status 2, 3 and 4 are parts of a job that has a line of its own, and jobs that never ran have nothing to replay.

use std::io::{BufRead, BufReader};

use berth_world::twin::{End, Rigid};

use super::{Builder, Limits, Loaded, Origin, Recorded};
use crate::input::{InputError, Place, Source, read_error};

/// Names of the fields, in order.
const FIELDS: [&str; 18] = [
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user id",
    "group id",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
];
/// Longest line; the header's comments are the longest ones.
const MAX_LINE: u64 = 64 * 1024;
/// Largest number that is believed.
const LARGEST: f64 = 1e12;

/// Reads a log.
///
/// # Errors
/// With file, line and field, for anything that is not as described above.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.title();
    let (file, bytes) = source.into_reader();
    let mut reader = BufReader::new(bytes);
    let mut builder = Builder::new(limits);
    let mut clock_s = None;
    let mut last_ms = 0;
    let mut line = Vec::new();
    for number in 1.. {
        let place = Place::line(&file, number);
        line.clear();
        let read = std::io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(read_error(place, error)),
        }
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            return Err(place.error("a very long line", "is this the right file?"));
        }
        let Ok(text) = std::str::from_utf8(&line).map(str::trim) else {
            // Comments of old logs are in other encodings.
            if line.trim_ascii_start().starts_with(b";") {
                continue;
            }
            return Err(place.error("not UTF-8 text", "is this the right file?"));
        };
        if let Some(comment) = text.strip_prefix(';') {
            clock_s = clock_s.or_else(|| unix_start(comment));
        } else if !text.is_empty() {
            let fields = Fields::of(text, place)?;
            let submit_ms = fields.submit_ms()?;
            if submit_ms < last_ms {
                let place = fields.place.column(FIELDS[1]);
                let hint = "the format is sorted by submit time: sort the file";
                return Err(place.error("earlier than the job before", hint));
            }
            last_ms = submit_ms;
            fields.add_to(&mut builder, limits)?;
        }
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, clock_s))
}

/// The header says when time 0 was.
fn unix_start(comment: &str) -> Option<i64> {
    let (key, value) = comment.split_once(':')?;
    (key.trim() == "UnixStartTime")
        .then(|| value.trim().parse().ok())
        .flatten()
}

struct Fields {
    place: Place,
    values: [f64; 18],
}

impl Fields {
    fn of(text: &str, place: Place) -> Result<Self, InputError> {
        let mut values = [0.0; 18];
        let mut found = 0;
        for part in text.split_ascii_whitespace() {
            let Some(value) = values.get_mut(found) else {
                let hint = "is this the right file?";
                return Err(place.error("more than 18 fields", hint));
            };
            *value = match part.parse::<f64>() {
                Ok(number) if number.abs() <= LARGEST => number,
                _ => {
                    let what = format!(
                        "`{}` is no number",
                        part.chars().take(40).collect::<String>()
                    );
                    return Err(place
                        .column(FIELDS[found])
                        .error(what, "-1 if it is unknown"));
                }
            };
            found += 1;
        }
        if let Some(missing) = FIELDS.get(found) {
            let what = format!("{found} fields where 18 are expected");
            return Err(place.error(what, format!("the line ends before `{missing}`")));
        }
        Ok(Self { place, values })
    }

    /// A field that is known; negative is unknown.
    fn known(&self, index: usize) -> Option<f64> {
        Some(self.values[index]).filter(|value| *value >= 0.0)
    }

    /// Seconds as milliseconds.
    fn ms(&self, index: usize) -> Result<Option<u64>, InputError> {
        let value = self.values[index];
        if value < 0.0 && value != -1.0 {
            let place = self.place.clone().column(FIELDS[index]);
            let hint = "seconds, 0 or more, or -1 if unknown; correct or drop the line";
            return Err(place.error(format!("`{value}` is negative"), hint));
        }
        Ok(self.known(index).map(|s| (s * 1000.0).round() as u64))
    }

    fn submit_ms(&self) -> Result<u64, InputError> {
        self.ms(1)?.ok_or_else(|| {
            let place = self.place.clone().column(FIELDS[1]);
            place.error(
                "unknown",
                "a job without a time of submission cannot be replayed",
            )
        })
    }

    fn add_to(self, builder: &mut Builder<'_>, limits: &Limits) -> Result<(), InputError> {
        let status = self.values[10];
        if (2.0..=4.0).contains(&status) {
            builder.skip("part of a job that has a line of its own");
            return Ok(());
        }
        let (Some(run_ms), Some(processors)) = (
            self.ms(3)?,
            self.known(4).filter(|n| *n > 0.0).or(self.known(7)),
        ) else {
            builder.skip("it never ran");
            return Ok(());
        };
        if processors < 1.0 || processors.fract() != 0.0 || processors > f64::from(u32::MAX) {
            let place = self.place.column(FIELDS[4]);
            let what = format!("`{processors}` processors");
            return Err(place.error(what, "a whole number, 1 or more"));
        }
        let end = match status {
            0.0 => End::Failed,
            5.0 => End::Cancelled,
            _ => End::Completed,
        };
        let id = |prefix: &str, index| match self.known(index) {
            Some(id) => format!("{prefix}{id}"),
            None => "unknown".to_owned(),
        };
        let job = Recorded {
            key: format!("{}", self.values[0]),
            submit_ms: self.submit_ms()?,
            user: id("user", 11),
            queue: id("queue", 14),
            workers: limits.processors(processors as u32),
            node_labels: Vec::new(),
            family: String::new(),
            expected_ms: self.ms(8)?.unwrap_or(0),
            truth: Rigid { run_ms, end },
        };
        builder.push_recorded(self.place, job)
    }
}
