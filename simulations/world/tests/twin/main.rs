//! The twin: small workloads with known answers.

mod faults;
mod lab;
mod queues;
mod rounds;
mod swarm;
