//! Clusters of real processes on this machine: `berth up`, `berth down`, `berth dev`, and the ones that `berth bench`
//! brings up for itself.
//!
//! [`layout`] says which file lies where, [`process`] starts and ends processes and knows them again by pid and start
//! time, [`daemons`] knows the two daemons' command lines and configuration files, [`cluster`] puts them together.

pub(crate) mod cluster;
pub(crate) mod daemons;
pub(crate) mod layout;
pub(crate) mod process;
