//! Whole groups of members in one thread: scripted scenarios, and chaos from seeds.

mod chaos;
mod harness;
mod scenarios;
