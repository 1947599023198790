//! The fence: an agent obeys one cluster, and never a leader that is older than one it has heard.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The newest directive that the agent has accepted; survives the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The cluster; 0 before the first directive.
    pub cluster_id: u64,
    /// The leader's term.
    pub term: u64,
    /// The leader's applied index.
    pub applied: u64,
}

/// Why a directive was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It comes from another cluster.
    #[error("directive from cluster {theirs:#x}, but this agent serves cluster {ours:#x}")]
    OtherCluster {
        /// The agent's cluster.
        ours: u64,
        /// The speaker's.
        theirs: u64,
    },
    /// It is older than one accepted before.
    #[error(
        "directive of term {term}, index {applied} is older than term {seen_term}, index {seen_applied}"
    )]
    Stale {
        /// The directive's term.
        term: u64,
        /// The directive's index.
        applied: u64,
        /// Newest term accepted.
        seen_term: u64,
        /// Newest index accepted in that term.
        seen_applied: u64,
    },
    /// The agent holds as many tasks and records as it may.
    #[error("the node already holds {held} tasks and records")]
    TooManyTasks {
        /// How many it holds.
        held: usize,
    },
}

impl Fence {
    /// The fence after a directive with these marks.
    ///
    /// # Errors
    /// If the directive must be refused.
    pub fn advance(self, cluster_id: u64, term: u64, applied: u64) -> Result<Fence, Refusal> {
        if self.cluster_id != 0 && self.cluster_id != cluster_id {
            return Err(Refusal::OtherCluster {
                ours: self.cluster_id,
                theirs: cluster_id,
            });
        }
        if (term, applied) < (self.term, self.applied) {
            return Err(Refusal::Stale {
                term,
                applied,
                seen_term: self.term,
                seen_applied: self.applied,
            });
        }
        Ok(Fence {
            cluster_id,
            term,
            applied,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_foreign_directives_are_refused() {
        let at = |term, applied| Fence {
            cluster_id: 7,
            term,
            applied,
        };
        let fence = Fence::default().advance(7, 3, 10).unwrap();
        assert_eq!(fence, at(3, 10));
        assert_eq!(
            fence.advance(7, 3, 10),
            Ok(at(3, 10)),
            "a repeat is welcome"
        );
        assert_eq!(
            fence.advance(7, 4, 2),
            Ok(at(4, 2)),
            "a newer term counts first"
        );
        assert!(matches!(fence.advance(7, 3, 9), Err(Refusal::Stale { .. })));
        assert!(matches!(
            fence.advance(7, 2, 99),
            Err(Refusal::Stale { .. })
        ));
        assert!(matches!(
            fence.advance(8, 9, 99),
            Err(Refusal::OtherCluster { .. })
        ));
    }
}
