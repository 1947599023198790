//! What policies share that decide for all jobs at once how many GPUs of which model each gets: the GPUs by kind, where
//! jobs sit, and which changes depend on each other.
//!
//! Such a policy looks at [`Fleet`], decides on a [`Share`] for each job, has them [seated](seat), and [exchanges](exchange)
//! places: each set of changes that need each other's room is a bundle of its own, so that one that is refused does
//! not spoil the round.

mod assign;
mod exchange;
mod kinds;
mod seating;

pub use assign::{Candidate, Choice, assign, undominated};
pub use exchange::{exchange, rest};
pub use kinds::{Fleet, Kind, Managed};
pub use seating::{Order, Seated, Share, seat};
