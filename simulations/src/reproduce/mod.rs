//! Published and measured results beside what the twin gives.

pub mod sia;
