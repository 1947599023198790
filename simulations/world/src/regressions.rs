//! Seeds that found something. They run first, and stay when the cause is long gone.
//!
//! A seed means a run only together with the world's own code: when that changes, an old seed becomes one more random
//! run. What a seed found is held by a test of its own beside the code that was wrong.

/// Seeds, each with what it found.
pub const SEEDS: &[(u64, &str)] = &[];
