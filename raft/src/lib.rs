//! berth-raft
