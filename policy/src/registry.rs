//! Policies by name, as a configuration names them: `NAME`, `NAME:KEY=VALUE,...`, or either behind `soft+` or
//! `autoscale+`.

use berth_core::policy::{Policy, Proposal, View};
use rand_chacha::ChaCha8Rng;

use crate::options::{NameError, Options};
use crate::packing::{
    BestFit, DotProduct, Fgd, GpuClustering, GpuPacking, Packer, Random, Workload,
};
use crate::{
    Autoscale, BestFitDecreasing, Fifo, Flow, Gavel, Las, Pollux, Qssf, Sia, Sjf, Soft, Srtf,
};

/// Makes a policy of its settings.
type Make = fn(&mut Options) -> Result<Box<dyn Policy>, NameError>;

/// All policies by name. What stands first is the default.
const POLICIES: [(&str, Make); 16] = [
    ("fifo", |options| Ok(Box::new(Fifo::with(options)?))),
    ("srtf", |options| Ok(Box::new(Srtf::with(options)?))),
    ("best-fit", |_| Ok(Box::new(Packer::new(BestFit)))),
    ("best-fit-decreasing", |_| Ok(Box::new(BestFitDecreasing))),
    ("dot-product", |_| Ok(Box::new(Packer::new(DotProduct)))),
    ("gpu-packing", |_| Ok(Box::new(Packer::new(GpuPacking)))),
    ("gpu-clustering", |_| {
        Ok(Box::new(Packer::new(GpuClustering)))
    }),
    ("random", |_| Ok(Box::new(Packer::new(Random)))),
    ("fgd", |_| Ok(Box::new(Packer::new(Fgd::recent())))),
    ("sjf", |options| Ok(Box::new(Sjf::with(options)?))),
    ("las", |options| Ok(Box::new(Las::with(options)?))),
    ("qssf", |options| Ok(Box::new(Qssf::with(options)?))),
    ("gavel", |options| Ok(Box::new(Gavel::with(options)?))),
    ("pollux", |options| Ok(Box::new(Pollux::with(options)?))),
    ("sia", |options| Ok(Box::new(Sia::with(options)?))),
    ("flow", |options| Ok(Box::new(Flow::with(options)?))),
];

/// Makes a policy of another one, its whole name and its settings.
type Wrap = fn(Box<dyn Policy>, &str, &mut Options) -> Result<Box<dyn Policy>, NameError>;

/// What can stand in front of a policy's name, with `+` in between.
const WRAPPERS: [(&str, Wrap); 2] = [
    ("soft", |inner, name, options| {
        Ok(Box::new(Soft::with(inner, name, options)?))
    }),
    ("autoscale", |inner, name, options| {
        Ok(Box::new(Autoscale::with(inner, name, options)?))
    }),
];

/// Names of all policies, without settings.
pub const NAMES: [&str; POLICIES.len()] = {
    let mut names = [""; POLICIES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = POLICIES[at].0;
        at += 1;
    }
    names
};

/// A new policy of this name, with the settings that stand behind it.
///
/// # Errors
/// If there is none, or a setting does not hold.
pub fn by_name(text: &str) -> Result<Box<dyn Policy>, NameError> {
    if let Some((wrap, settings, inner)) = wrapped(text) {
        let (_, mut options) = Options::parse(settings)?;
        let policy = wrap(by_name(inner)?, text, &mut options)?;
        options.finish()?;
        return Ok(policy);
    }
    let (name, mut options) = Options::parse(text)?;
    let Some((_, make)) = POLICIES.iter().find(|(known, _)| *known == name) else {
        return Err(NameError::Unknown {
            name: name.to_owned(),
            nearest: nearest(name),
            known: NAMES.join(", "),
        });
    };
    let inner = make(&mut options)?;
    options.finish()?;
    if name == text {
        return Ok(inner);
    }
    let name = text.to_owned();
    Ok(Box::new(Named { name, inner }))
}

/// The same, told beforehand what jobs will ask for, if anything is known of that. For reproducing what was published.
///
/// # Errors
/// As [`by_name`].
pub fn by_name_for(text: &str, known: &Workload) -> Result<Box<dyn Policy>, NameError> {
    match text {
        "fgd" if known.weight() > 0 => {
            let rule = Fgd::with_workload(known.clone());
            Ok(Box::new(Packer::new(rule)))
        }
        _ => by_name(text),
    }
}

/// A policy that goes by its name with its settings.
struct Named {
    name: String,
    inner: Box<dyn Policy>,
}

impl Policy for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn propose(&mut self, view: &View, rng: &mut ChaCha8Rng) -> Proposal {
        self.inner.propose(view, rng)
    }
}

/// A wrapper, its settings and what it wraps: `soft+NAME` or `soft:KEY=VALUE,...+NAME`.
fn wrapped(text: &str) -> Option<(Wrap, &str, &str)> {
    let (outer, inner) = text.split_once('+')?;
    let name = outer.split(':').next().unwrap_or(outer);
    let (_, wrap) = WRAPPERS.iter().find(|(known, _)| *known == name)?;
    Some((*wrap, outer, inner))
}

fn nearest(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, &name);
    NAMES.iter().min_by_key(distance).copied().unwrap_or("fifo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_policy() {
        let with_settings = ["fifo:backfill=none", "soft:price=9+las:queues=5"];
        for name in NAMES.into_iter().chain(with_settings) {
            assert_eq!(by_name(name).expect("it is listed").name(), name);
        }
        for name in NAMES {
            for wrapper in ["soft", "autoscale", "autoscale:idle=0+soft"] {
                let whole = format!("{wrapper}+{name}");
                assert_eq!(by_name(&whole).expect("it can be wrapped").name(), whole);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_with_the_nearest_one() {
        for (asked, expected) in [("best_fit", "best-fit"), ("FIFO", "fifo"), ("strf", "srtf")] {
            let error = by_name(asked).err().expect("there is no such policy");
            let NameError::Unknown { name, nearest, .. } = error else {
                panic!("{error}")
            };
            assert_eq!((name.as_str(), nearest), (asked, expected));
        }
    }

    #[test]
    fn settings_that_do_not_hold_say_what_would() {
        for (asked, says) in [
            ("fifo:backfill=none", None),
            ("las:queues=3250/7200,starvation=8", None),
            ("soft:min_run=60+las:queues=100", None),
            ("fifo:backfil=none", Some("did you mean `backfill`?")),
            ("fifo:backfill=no", Some("one of easy, greedy, none")),
            ("las:queues=7200/3250", Some("ascending numbers")),
            ("las:starvation=-1", Some("a number from 0")),
            ("best-fit:x=1", Some("it has none")),
            ("fifo:strict", Some("is no setting")),
            ("fifo:backfill=none,backfill=easy", Some("is no setting")),
            ("soft:min_run=60+lass", Some("did you mean `las`?")),
        ] {
            let said = by_name(asked).err().map(|error| error.to_string());
            match (&said, says) {
                (None, None) => {}
                (Some(said), Some(says)) => assert!(said.contains(says), "{asked}: {said}"),
                _ => panic!("{asked}: {said:?}"),
            }
        }
    }
}
