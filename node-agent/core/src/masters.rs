//! Where the masters are: what leaders said of it, and whom to try next.
//!
//! The configured masters may all have been replaced since the agent was configured, so whoever leads tells its agents where
//! all masters listen ([`Directive::masters`](berth_types::Directive::masters)). What is [`Learned`] outlives the agent
//! beside its fence. [`Route`] tries those first; the configured ones stay in turn, for a cluster that moved as a whole or
//! was restored.

use serde::{Deserialize, Serialize};

use crate::fence::Fence;

/// Most masters remembered: far more than a cluster has.
const MOST_MASTERS: usize = 16;
/// Longest address that is remembered: a DNS name and a port.
const MOST_BYTES: usize = 253 + 6;
/// Hints that are followed at once; more in a row are masters that send each other's way.
const MOST_HINTS: u32 = 3;

/// What leaders said; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The cluster whose masters these are.
    pub cluster_id: u64,
    /// `host:port` of each.
    pub addresses: Vec<String>,
}

impl Learned {
    /// These, if they are of the cluster that the agent serves; else nothing.
    #[must_use]
    pub fn of_cluster(self, fence: Fence) -> Learned {
        if fence.cluster_id != 0 && fence.cluster_id == self.cluster_id {
            self
        } else {
            Learned::default()
        }
    }

    /// What is known once a leader of that cluster has said this; `None` if it changes nothing.
    pub(crate) fn after(&self, cluster_id: u64, told: Vec<String>) -> Option<Learned> {
        let mut addresses: Vec<String> = Vec::new();
        for address in told {
            let strange = |c: char| c.is_whitespace() || c.is_control();
            let usable = address.contains(':') && !address.contains(strange);
            if usable && address.len() <= MOST_BYTES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(MOST_MASTERS);
        let now = Learned {
            cluster_id,
            addresses,
        };
        (!now.addresses.is_empty() && now != *self).then_some(now)
    }
}

/// Whom to try for a leader.
#[derive(Clone, Debug)]
pub struct Route {
    learned: Vec<String>,
    /// Configured and not among those learned.
    others: Vec<String>,
    configured: Vec<String>,
    next_learned: usize,
    next_other: usize,
    /// Learned masters tried since one of the others was.
    tried: usize,
    hint: Option<String>,
    hints: u32,
    /// Led nowhere just now: somebody else is tried first. A leader that froze still takes connections, and waiting for
    /// it twice would take longer than a node may be out of contact.
    avoid: Option<String>,
}

impl Route {
    /// Begins anywhere, so that the agents of a cluster do not all come to the same master first.
    pub fn new(configured: Vec<String>, learned: &Learned, seed: u64) -> Self {
        let start = |n: usize| usize::try_from(seed % n.max(1) as u64).unwrap_or(0);
        let mut route = Self {
            next_learned: start(learned.addresses.len()),
            next_other: start(configured.len()),
            learned: Vec::new(),
            others: Vec::new(),
            configured,
            tried: 0,
            hint: None,
            hints: 0,
            avoid: None,
        };
        route.learn(learned);
        route
    }

    /// A leader said where all masters are.
    pub fn learn(&mut self, learned: &Learned) {
        self.learned.clone_from(&learned.addresses);
        let others = self.configured.iter();
        let others = others.filter(|address| !self.learned.contains(address));
        self.others = others.cloned().collect();
    }

    /// The next one to try; `None` if there is nobody.
    pub fn choose(&mut self) -> Option<String> {
        if let Some(hint) = self.hint.take() {
            return Some(hint);
        }
        let avoid = self.avoid.take();
        let address = self.in_turn();
        if avoid == address {
            return self.in_turn();
        }
        address
    }

    /// All that were learned in turn, then one of the others: masters that are long gone cost little time, and none is
    /// ever given up.
    fn in_turn(&mut self) -> Option<String> {
        let other = self.tried >= self.learned.len();
        let (list, next) = if other && !self.others.is_empty() {
            self.tried = 0;
            (&self.others, &mut self.next_other)
        } else {
            self.tried = if other { 1 } else { self.tried + 1 };
            (&self.learned, &mut self.next_learned)
        };
        let at = *next % list.len().max(1);
        *next = at + 1;
        list.get(at).cloned()
    }

    /// The master at `from` sent the agent on to `leader` (empty if it knows none). True if that one is to be tried at once;
    /// else after a pause.
    pub fn redirected(&mut self, from: &str, leader: &str) -> bool {
        if leader.is_empty() || self.hints >= MOST_HINTS {
            self.failed(from);
            return false;
        }
        self.hints += 1;
        self.hint = Some(leader.to_owned());
        true
    }

    /// The master at `from` cannot be reached, or its stream has ended. Another is to be tried after a pause.
    pub fn failed(&mut self, from: &str) {
        self.hints = 0;
        self.avoid = Some(from.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(addresses: &[&str]) -> Learned {
        Learned {
            cluster_id: 7,
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        }
    }

    fn route(configured: &[&str], known: &[&str], seed: u64) -> Route {
        let configured = configured.iter().map(|a| (*a).to_owned()).collect();
        Route::new(configured, &learned(known), seed)
    }

    fn tried(route: &mut Route, n: usize) -> Vec<String> {
        (0..n).map(|_| route.choose().expect("somebody")).collect()
    }

    #[test]
    fn masters_are_tried_in_turn_and_hints_first() {
        let mut route = route(&["a:1", "b:2"], &[], 3);
        assert_eq!(tried(&mut route, 1), ["b:2"]);
        assert!(route.redirected("b:2", "c:3"));
        assert_eq!(tried(&mut route, 3), ["c:3", "a:1", "b:2"]);
        route.failed("a:1");
        assert_eq!(
            tried(&mut route, 2),
            ["b:2", "a:1"],
            "the silent one comes last, but it comes"
        );
    }

    #[test]
    fn a_single_master_is_tried_again_and_again() {
        let mut alone = route(&["a:1"], &["a:1"], 0);
        alone.failed("a:1");
        assert_eq!(tried(&mut alone, 2), ["a:1", "a:1"]);
        assert_eq!(route(&[], &[], 5).choose(), None);
    }

    #[test]
    fn masters_that_send_each_others_way_are_left_after_a_while() {
        let mut route = route(&["a:1", "b:2"], &[], 0);
        let followed = (0..10)
            .take_while(|_| route.redirected("a:1", "b:2"))
            .count();
        assert_eq!(followed, 3);
        assert!(!route.redirected("a:1", ""), "a leader that is not known");
    }

    #[test]
    fn learned_masters_come_first_and_configured_ones_stay_in_turn() {
        let mut route = route(&["old:1", "old:2", "new:2"], &[], 0);
        assert_eq!(tried(&mut route, 1), ["old:1"]);
        route.learn(&learned(&["new:1", "new:2"]));
        let order = tried(&mut route, 7);
        let expected = [
            "new:1", "new:2", "old:2", "new:1", "new:2", "old:1", "new:1",
        ];
        assert_eq!(order, expected);
        route.learn(&learned(&["new:3"]));
        let all = tried(&mut route, 8);
        for address in ["new:3", "old:1", "old:2", "new:2"] {
            assert!(all.iter().any(|a| a == address), "{address} of {all:?}");
        }
    }

    #[test]
    fn whoever_fails_again_and_again_keeps_nobody_from_being_tried() {
        // Worst case: each try fails and marks its master to be avoided.
        let mut route = route(&["x:1", "x:2"], &["n:1", "n:2", "n:3"], 11);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..16 {
            let address = route.choose().expect("somebody");
            route.failed(&address);
            seen.insert(address);
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }

    #[test]
    fn only_what_makes_sense_and_changes_something_is_learned() {
        let before = learned(&["a:1"]);
        let told = |addresses: &[&str]| addresses.iter().map(|a| (*a).to_owned()).collect();
        assert_eq!(before.after(7, told(&[])), None);
        assert_eq!(before.after(7, told(&["a:1", "a:1"])), None);
        let nonsense = ["", "nowhere", "a b:1", "a\n:1"];
        assert_eq!(before.after(7, told(&nonsense)), None);
        assert_eq!(
            before.after(7, vec![format!("{}:1", "h".repeat(300))]),
            None
        );
        let now = before.after(7, told(&["", "b:1"])).expect("news");
        assert_eq!(now, learned(&["b:1"]));
        let many = (0..100).map(|n| format!("h{n}:1")).collect();
        let now = before.after(7, many).expect("news");
        assert_eq!(now.addresses.len(), MOST_MASTERS);
    }

    #[test]
    fn masters_of_another_cluster_are_not_used() {
        let fence = |cluster_id| Fence {
            cluster_id,
            ..Fence::default()
        };
        assert_eq!(learned(&["a:1"]).of_cluster(fence(7)), learned(&["a:1"]));
        assert_eq!(learned(&["a:1"]).of_cluster(fence(8)), Learned::default());
        assert_eq!(learned(&["a:1"]).of_cluster(fence(0)), Learned::default());
    }
}
