//! The twin: small workloads with known answers.

mod faults;
mod lab;
mod models;
mod queues;
mod rounds;
mod swarm;
