//! `berth`, the command line: a thin client of `berth.v1` that runs jobs, shows the cluster and brings up a local one.
//!
//! Owns: job files ([`jobfile`]), addresses of masters, what people and scripts see (tables, JSON, exit codes), the
//! processes of a local cluster (`berth up`), and the load generator (`berth bench`).
//! Must not know: how masters decide, store or replicate anything; it links neither the scheduler nor the store.
//!
//! Start reading at `args` (every command), then `commands`.

pub mod jobfile;
