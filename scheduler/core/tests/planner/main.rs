//! Tests of the planner: scripts with golden output, laws over random clusters, and bounded waiting.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests read golden files and UPDATE_GOLDEN

mod idle;
mod lab;
mod laws;
mod script;
mod scripts;
mod starvation;
