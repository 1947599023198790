//! Adaptive-batch training jobs: goodput with the gradient noise scale, from measured profiles.
//!
//! An [`Application`] is data: epochs, gradient noise by batch, and a [`Profile`] for each GPU model. [`Adaptive`] is the
//! [`Model`](super::Model) of a job that trains it. Start reading at `job.rs`.

mod application;
mod job;
mod knowledge;
mod model;
mod profile;

#[cfg(test)]
mod tests;

pub use application::Application;
pub use model::{Adaptive, Knowledge, Tuning};
pub use profile::{Curve, Profile, StepTime, smallest_rotation};
