//! berth-world
