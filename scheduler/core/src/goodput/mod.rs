//! Goodput of adaptive-batch training: throughput times statistical efficiency, and what of it is known.
//!
//! A job that may change its batch runs best where the product of samples per second ([`ThroughputModel`]) and the worth
//! of a sample ([`GradientNoise`]) is largest ([`best_batch`]). Jobs use this to choose their batch, policies to compare
//! configurations ([`Learned`], a [`Speed`](crate::insight::Speed)). The model is fitted to what a job was seen to do
//! ([`fit()`]).
//!
//! Sources: Qiao et al., OSDI 2021 (Pollux); Jayaram Subramanya et al., SOSP 2023 (Sia).

mod batch;
mod bounded;
mod fit;
mod learned;
mod line_search;
mod noise;
mod throughput;

pub use batch::{BatchChoice, BatchLimits, best_batch, divide};
pub use fit::{Observation, fit};
pub use learned::{Learned, LearnedModel};
pub use noise::GradientNoise;
pub use throughput::{LocalBatch, NOTHING_S, ThroughputModel};
