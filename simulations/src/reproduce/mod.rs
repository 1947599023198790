//! Published results, measured again: each setting runs through Berth's own state machine and planner, and its figures
//! stand beside the published ones.

pub mod command;
pub mod openb;
pub mod queues;
pub mod sia;
pub mod speed;
pub mod table;
