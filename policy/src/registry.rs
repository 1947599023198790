//! Policies by name, as a configuration names them.

use berth_core::policy::Policy;
use thiserror::Error;

use crate::{BestFit, Fifo, Srtf};

/// Names of all policies.
pub const NAMES: [&str; 3] = ["fifo", "srtf", "best-fit"];

/// No policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no policy is called `{name}`; did you mean `{nearest}`? (there are {})", NAMES.join(", "))]
pub struct UnknownPolicy {
    /// The name asked for.
    pub name: String,
    /// The name most like it.
    pub nearest: &'static str,
}

/// A new policy of this name.
///
/// # Errors
/// If there is none.
pub fn by_name(name: &str) -> Result<Box<dyn Policy>, UnknownPolicy> {
    match name {
        "fifo" => Ok(Box::new(Fifo)),
        "srtf" => Ok(Box::new(Srtf)),
        "best-fit" => Ok(Box::new(BestFit)),
        _ => Err(UnknownPolicy {
            name: name.to_owned(),
            nearest: nearest(name),
        }),
    }
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
        for name in NAMES {
            assert_eq!(by_name(name).expect("it is listed").name(), name);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_with_the_nearest_one() {
        for (asked, nearest) in [("best_fit", "best-fit"), ("FIFO", "fifo"), ("strf", "srtf")] {
            let error = by_name(asked).err().expect("there is no such policy");
            assert_eq!((error.name.as_str(), error.nearest), (asked, nearest));
        }
    }
}
