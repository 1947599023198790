//! Upper bounds: what no policy of a real cluster could reach, by names that only this tool knows.
//!
//! - `alone`: each job as if no other were there ([`twin::alone`](berth_world::twin::alone)).
//! - `sia-true`: `sia` with every job's true speed known from the start, and no limit on its first size.
//! - `sia-oracle`: `sia` with models of speed that were fitted to everything measured beforehand; how noisy gradients are
//!   remains to be seen.

use anyhow::ensure;
use berth_policy::registry;

use crate::load::Format;

/// A bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Each job alone.
    Alone,
    /// A policy that knows more than it could.
    Knowing {
        /// The policy, with its settings.
        policy: String,
    },
}

/// Names of those that are `sia`.
const KNOWING: [&str; 2] = ["sia-true", "sia-oracle"];

impl Bound {
    /// The bound of this name, if it is one: `alone`, or `sia-true` and `sia-oracle` with settings of `sia` behind them.
    pub fn of(name: &str) -> Option<Self> {
        let (head, _) = name.split_once(':').unwrap_or((name, ""));
        if name == "alone" {
            return Some(Self::Alone);
        }
        KNOWING.contains(&head).then(|| Self::Knowing {
            policy: format!("sia{}", &name[head.len()..]),
        })
    }
}

/// Checks a policy's or a bound's name before anything is read.
///
/// # Errors
/// If there is none, a setting does not hold, or the bound says nothing about workloads of this format.
pub fn check(name: &str, format: Format) -> anyhow::Result<()> {
    match Bound::of(name) {
        None => {
            registry::by_name(name)?;
        }
        Some(Bound::Alone) => {}
        Some(Bound::Knowing { policy }) => {
            registry::by_name(&policy)?;
            ensure!(
                format == Format::Sia,
                "policy `{name}`: only workloads of the format sia come with true speeds; hint: `sia`, or --format sia"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_go_by_their_names() {
        let knowing = |policy: &str| {
            Some(Bound::Knowing {
                policy: policy.to_owned(),
            })
        };
        assert_eq!(Bound::of("alone"), Some(Bound::Alone));
        assert_eq!(Bound::of("sia-true"), knowing("sia"));
        assert_eq!(Bound::of("sia-oracle:power=-1"), knowing("sia:power=-1"));
        assert_eq!(Bound::of("sia"), None);
        assert_eq!(Bound::of("alone:x=1"), None);
    }

    #[test]
    fn a_bound_that_says_nothing_is_an_error() {
        assert!(check("alone", Format::Helios).is_ok());
        assert!(check("sia-true", Format::Sia).is_ok());
        assert!(check("sia-true", Format::Helios).is_err());
        assert!(check("sia-true:x=1", Format::Sia).is_err());
        assert!(check("alone:x=1", Format::Sia).is_err());
    }
}
