//! berth-agent-core
