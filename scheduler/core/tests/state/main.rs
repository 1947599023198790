//! Tests of the replicated state: scripts with golden output, laws over random commands, bytes, and invariants that fail.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read golden files and UPDATE_GOLDEN

mod bytes;
mod certificates;
mod epochs;
mod invariants;
mod keys;
mod laws;
mod make;
mod random;
mod reads;
mod script;
mod scripts;
