//! The twin: small workloads with known answers.

mod alone;
mod faults;
mod lab;
mod lanes;
mod models;
mod outset;
mod pools;
mod queues;
mod rounds;
mod swarm;
