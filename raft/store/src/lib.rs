//! berth-raft-store
