//! One workload on one cluster under one policy, measured.
//!
//! [`workload`] opens the files that the command line names, [`mod@measure`] runs the twin and looks at the clock,
//! [`report`] says what came out of it. Comparisons of several policies are made of the same parts.

pub mod bounds;
pub mod measure;
pub mod replay;
pub mod report;
pub mod run;
pub mod timed;
pub mod workload;

pub use bounds::Bound;
pub use measure::{Measured, measure};
pub use report::RunReport;
pub use workload::{Workload, WorkloadOptions};
