//! Seeds that found something. They run first, and stay when the cause is long gone.
//!
//! A seed means a run only together with the world's own code: when that changes, an old seed becomes one more random
//! run. What a seed found is held by a test of its own beside the code that was wrong.

/// Seeds, each with what it found.
pub const SEEDS: &[(u64, &str)] = &[
    (
        2,
        "a cluster of one master dropped its own bootstrap and never served",
    ),
    (
        13,
        "a machine that lost power was told to start its old task again, in the same attempt",
    ),
    (
        29,
        "an attempt stopped for ever after the launch of one of its tasks got lost with the leader",
    ),
    (
        57,
        "a task that its node stopped for the lease was charged to the job",
    ),
    (
        241,
        "a rank launched late was handed checkpoints of its own attempt",
    ),
    (
        242,
        "masters behind a change of members could not answer the new leader",
    ),
    (
        245,
        "a task that its node stopped, and that exited 0, completed its job",
    ),
    (
        592,
        "the same charge, when the agent died between the signal and the exit",
    ),
    (
        1073,
        "tasks launched under an old keeper started on the new one, on GPUs that masters gave to others",
    ),
    (
        3070,
        "a restarted follower gave one client the answer to another's call",
    ),
];
