//! What was held, watched from outside, is exactly the sum of the ledger's classes.
//!
//! Two counts that share nothing: this one looks at the GPUs of the nodes at every instant and adds up what is in use
//! over time; the ledger comes from what the jobs' behaviours say of their attempts.

use berth_core::state::State;

use super::{Belief, Verdict};

/// Counts what is in use.
#[derive(Debug, Default)]
pub(super) struct Conservation {
    now_ms: u64,
    /// In use since `now_ms`, in thousandths of GPUs.
    level: u64,
    /// In use until `now_ms`, times milliseconds.
    used: u128,
}

impl Conservation {
    pub(super) fn on_time(&mut self, now_ms: u64) {
        self.used += u128::from(self.level) * u128::from(now_ms - self.now_ms);
        self.now_ms = now_ms;
    }

    pub(super) fn check(&mut self, belief: &Belief<'_>) -> Verdict {
        self.level = in_use(belief.state);
        let open = belief.open.iter().map(|&(since_ms, milligpu)| {
            u128::from(milligpu) * u128::from(self.now_ms.saturating_sub(since_ms))
        });
        let open: u128 = open.sum();
        let told = u128::from(belief.ledger.held()) + open;
        if told == self.used {
            return Ok(());
        }
        Err(format!(
            "CONSERVATION: {} milli-GPU-ms were in use, but jobs account for {told} ({:?}, and {open} still open)",
            self.used, belief.ledger
        ))
    }
}

fn in_use(state: &State) -> u64 {
    let gpus = state.nodes.values().flat_map(|node| &node.gpus);
    gpus.map(|gpu| u64::from(gpu.milligpu)).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_core::state::{GpuUse, Node};
    use berth_types::{NodeId, NodeSpec};

    use super::*;
    use crate::twin::Ledger;

    fn belief<'a>(state: &'a State, ledger: Ledger, open: &[(u64, u64)]) -> Belief<'a> {
        Belief {
            state,
            arrived: 0,
            finished: 0,
            ledger,
            open: open.to_vec(),
        }
    }

    /// One GPU is used by 600 thousandths from 10 to 20, and by 200 from 20 on.
    fn watched(ledger: Ledger, open: &[(u64, u64)]) -> Verdict {
        let mut state = State::new();
        let mut node = Node::new(NodeId(1), Arc::new(NodeSpec::default()), 1, 0);
        let mut conservation = Conservation::default();
        let mut see = |conservation: &mut Conservation, now_ms, milligpu, ledger, open: &[_]| {
            conservation.on_time(now_ms);
            node.gpus = vec![GpuUse {
                milligpu,
                reserved: 500,
                blocked: false,
            }];
            state.nodes.insert(node.id, Arc::new(node.clone()));
            conservation.check(&belief(&state, ledger, open))
        };
        see(&mut conservation, 10, 600, Ledger::default(), &[])?;
        see(
            &mut conservation,
            20,
            200,
            Ledger {
                useful: 6_000,
                ..Ledger::default()
            },
            &[],
        )?;
        see(&mut conservation, 25, 0, ledger, open)
    }

    #[test]
    fn both_counts_agree_whatever_the_classes() {
        let spread = Ledger {
            useful: 5_000,
            restart: 700,
            lost: 200,
            saving: 50,
            idle: 50,
        };
        assert_eq!(watched(spread, &[(20, 200)]), Ok(()));
    }

    #[test]
    fn a_milli_gpu_millisecond_too_much_or_too_little_is_seen() {
        for useful in [6_999, 7_001] {
            let ledger = Ledger {
                useful,
                ..Ledger::default()
            };
            let verdict = watched(ledger, &[]);
            assert!(verdict.unwrap_err().starts_with("CONSERVATION"));
        }
        let late = watched(
            Ledger {
                useful: 6_000,
                ..Ledger::default()
            },
            &[(21, 200)],
        );
        assert!(late.unwrap_err().contains("800 still open"));
    }
}
