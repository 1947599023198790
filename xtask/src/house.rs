//! The plan of the house: which crates exist, which of them are PURE, and which arrows are allowed between them.
//!
//! ARCHITECTURE.md has the reasons. A new crate or arrow is added here first.

use std::path::PathBuf;

/// Crates without I/O, clock, threads, unseeded randomness or async runtime, with their directories.
pub(crate) const PURE: &[(&str, &str)] = &[
    ("berth-types", "proto/types"),
    ("berth-raft", "raft"),
    ("berth-core", "scheduler/core"),
    ("berth-agent-core", "node-agent/core"),
    ("berth-policy", "policy"),
    ("berth-world", "simulations/world"),
];

/// Which crate of ours may depend on which others of ours, in normal and build dependencies.
/// Development dependencies may additionally name anything PURE.
pub(crate) const ARROWS: &[(&str, &[&str])] = &[
    ("berth-types", &[]),
    ("berth-proto", &["berth-types"]),
    ("berth-tls", &["berth-proto", "berth-types"]),
    ("berth-raft", &[]),
    ("berth-raft-store", &["berth-raft"]),
    ("berth-core", &["berth-types", "berth-raft"]),
    ("berth-agent-core", &["berth-types"]),
    ("berth-policy", &["berth-types", "berth-core"]),
    (
        "berth-world",
        &[
            "berth-types",
            "berth-core",
            "berth-agent-core",
            "berth-raft",
        ],
    ),
    (
        "berth-scheduler",
        &[
            "berth-core",
            "berth-policy",
            "berth-raft",
            "berth-raft-store",
            "berth-proto",
            "berth-tls",
            "berth-types",
        ],
    ),
    (
        "berth-agent",
        &[
            "berth-agent-core",
            "berth-proto",
            "berth-tls",
            "berth-types",
        ],
    ),
    ("berth-cli", &["berth-proto", "berth-tls", "berth-types"]),
    (
        "berth-sim",
        &[
            "berth-world",
            "berth-policy",
            "berth-core",
            "berth-raft-store",
            "berth-proto",
            "berth-types",
        ],
    ),
    ("berth-fake-nvml", &[]),
    ("berth-train", &["berth-policy", "berth-world", "berth-sim"]),
];

/// Crates of ours that may depend on anything.
pub(crate) const FREE: &[&str] = &["berth-tests", "xtask"];

/// Crates of ours that stand in for something in tests: anybody's development dependencies may name them.
pub(crate) const STAND_INS: &[&str] = &["berth-fake-nvml"];

/// Never reachable from a PURE crate through normal dependencies: async runtimes, their I/O, and libtorch.
pub(crate) const NEVER_IN_PURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "hyper",
    "tonic",
    "tch",
    "torch-sys",
];

/// Third-party crates that live in one place, so that they can be replaced there.
pub(crate) const OWNERS: &[(&str, &[&str])] = &[
    ("raft", &["berth-raft"]),
    ("protobuf", &["berth-raft"]),
    ("nvml-wrapper", &["berth-agent"]),
    ("nvml-wrapper-sys", &["berth-fake-nvml"]),
    ("rcgen", &["berth-tls"]),
    ("ring", &["berth-tls"]),
    ("rustls", &["berth-tls"]),
    ("tokio-rustls", &["berth-tls"]),
    ("sled", &["berth-raft-store"]),
    ("redb", &["berth-raft-store"]),
    ("tch", &["berth-train"]),
    ("torch-sys", &["berth-train"]),
];

/// The repository's root, wherever cargo was called.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map(PathBuf::from)
        .unwrap_or(manifest_dir)
}
