//! Published and measured results beside what the twin gives.

pub mod command;
pub mod sia;
pub mod table;
