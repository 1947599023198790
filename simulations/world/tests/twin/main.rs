//! The twin: small workloads with known answers.

mod lab;
mod queues;
mod rounds;
mod swarm;
