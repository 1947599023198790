//! The node's GPUs: a child process reads them through NVIDIA's library, and the agent watches the child.
//!
//! Calls into a driver can hang for ever, so nothing of the agent itself makes any. The child ([`probe`]) has a thread
//! per GPU and says what it finds in lines of JSON ([`mod@line`]); the agent ([`watch`]) reads them, kills a child that is
//! silent or whose calls do not return, and starts another after a pause that grows.
//!
//! Start reading at [`mod@line`], then [`probe::run`] and [`watch::start`].

pub mod line;
pub mod probe;
pub(crate) mod procfs;
pub mod watch;
