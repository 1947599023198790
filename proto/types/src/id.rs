//! Newtypes for identities. All but node names are counters handed out by the replicated state.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! counter_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

counter_id!(
    /// A job, for ever: counted from 1 and never reused in a cluster.
    JobId,
    u64
);
counter_id!(
    /// Which incarnation of a job: counted from 1, only grows. Only the newest epoch of a job counts.
    Epoch,
    u32
);
counter_id!(
    /// A node, for ever: given when its name first registers, counted from 1.
    NodeId,
    u32
);
counter_id!(
    /// A scheduler master; also its Raft id. Never 0 and never reused.
    MasterId,
    u64
);
counter_id!(
    /// A task's number within its attempt, from 0; what frameworks call the global rank.
    Rank,
    u32
);
