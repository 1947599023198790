use std::path::Path;
use std::time::Duration;

use berth_types::MasterId;

use super::{Config, ConfigError, LogFormat};

const SOUND: &str = r#"
id = 1
data_dir = "/tmp/m1"
listen = "127.0.0.1:7101"

[[masters]]
id = 2
address = "127.0.0.1:7102"

[[masters]]
id = 1
address = "localhost:7101"

[[masters]]
id = 3
address = "127.0.0.1:7103"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("master.toml"))
}

/// The faults as `field: what` lines.
fn faults(text: &str) -> Vec<(String, String)> {
    match parse(text) {
        Err(ConfigError::Faults { faults, .. }) => {
            assert!(faults.iter().all(|f| !f.hint.is_empty()), "{faults:?}");
            faults
                .into_iter()
                .map(|f| (f.field, format!("{}; {}", f.what, f.hint)))
                .collect()
        }
        other => panic!("expected faults, got {other:?}"),
    }
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let config = parse(SOUND).expect("sound");
    assert_eq!(config.id, MasterId(1));
    assert_eq!(
        config
            .masters
            .iter()
            .map(|(id, _)| id.0)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        (config.policy.as_str(), config.storage.as_str()),
        ("fifo", "sled")
    );
    assert_eq!((config.join, config.log_format), (false, LogFormat::Text));
    let replica = config.replica(5, 6);
    let default = berth_core::ReplicaConfig::default();
    assert_eq!(replica.election_ticks, default.election_ticks);
    assert_eq!(replica.heartbeat_ticks, default.heartbeat_ticks);
    assert_eq!(replica.node_timeout_ms, default.node_timeout_ms);
    assert_eq!(
        (replica.proposer, replica.bootstrap.map(|b| b.cluster_id)),
        (5, Some(6))
    );
}

#[test]
fn every_key_is_read() {
    let text = format!(
        "{}\n{SOUND}\n{}",
        "policy = 'srtf'\nstorage = 'redb'\nlog_format = 'json'\nsnapshot_entries = 7\ncheck_every = 8\njoin = true",
        "[timeouts]\ntick = '10ms'\nelection = '1s'\nheartbeat = '100ms'\nnode = '5s'\nlease = '6s'\nfence_margin = '7s'
round = '8s'\npolicy = '9s'\ncall = '10s'"
    );
    let config = parse(&text).expect("sound");
    assert_eq!(
        (config.policy.as_str(), config.storage.as_str()),
        ("srtf", "redb")
    );
    assert_eq!((config.join, config.log_format), (true, LogFormat::Json));
    assert_eq!(config.timeouts.policy, Duration::from_secs(9));
    let replica = config.replica(1, 2);
    assert!(
        replica.bootstrap.is_none(),
        "a master that joins founds no cluster"
    );
    assert_eq!(
        (
            replica.tick_ms,
            replica.election_ticks,
            replica.heartbeat_ticks
        ),
        (10, 100, 10)
    );
    assert_eq!(
        (
            replica.node_timeout_ms,
            replica.lease_ms,
            replica.fence_margin_ms
        ),
        (5_000, 6_000, 7_000)
    );
    assert_eq!(
        (replica.round_tick_ms, replica.call_timeout_ms),
        (8_000, 10_000)
    );
    assert_eq!((replica.snapshot_entries, replica.check_every), (7, 8));
}

/// What is replaced by what in [`SOUND`], the field that must be named, and words of the hint.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("id = 1", "id = 0", "id", "count from 1"),
    ("id = 1\n", "", "id", "missing"),
    ("id = 1\n", "id = -1\n", "id", "negative"),
    ("id = 1\n", "id = 'one'\n", "id", "whole number"),
    ("id = 1\n", "id = 4\n", "masters", "join = true"),
    (
        "data_dir",
        "data_dri",
        "data_dri",
        "did you mean `data_dir`?",
    ),
    ("/tmp/m1", "", "data_dir", "empty"),
    (
        "listen = \"127.0.0.1",
        "listen = \"0.0.0.0",
        "listen",
        "not a loopback address; use 127.0.0.1",
    ),
    (
        "listen = \"127.0.0.1:7101",
        "listen = \"127.0.0.1",
        "listen",
        "host:port",
    ),
    (
        "listen = \"127.0.0.1:7101",
        "listen = \"127.0.0.1:7109",
        "masters",
        "port of `listen`",
    ),
    (
        "127.0.0.1:7102",
        "192.0.2.7:7102",
        "masters[0].address",
        "not a loopback address",
    ),
    ("id = 3", "id = 2", "masters[2].id", "listed twice"),
    ("id = 3", "idd = 3", "masters[2].idd", "did you mean `id`?"),
    (
        "id = 1\n",
        "id = 1\npolicy = 'fiffo'\n",
        "policy",
        "did you mean `fifo`?",
    ),
    (
        "id = 1\n",
        "id = 1\nstorage = 'rocks'\n",
        "storage",
        "one of sled, redb",
    ),
    (
        "id = 1\n",
        "id = 1\njoin = 'yes'\n",
        "join",
        "true or false",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts = 5\n",
        "timeouts",
        "[timeouts]",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts.election = 5\n",
        "timeouts.election",
        "unit",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts.election = '5 parsecs'\n",
        "timeouts.election",
        "unit",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts.election = '0s'\n",
        "timeouts.election",
        "1ms",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts.election = '50ms'\n",
        "timeouts.election",
        "three heartbeats",
    ),
    (
        "id = 1\n",
        "id = 1\ntimeouts.elektion = '1s'\n",
        "timeouts.elektion",
        "did you mean `election`?",
    ),
    (
        "id = 1\n",
        "id = 1\nsnapshot_entries = 0\n",
        "snapshot_entries",
        "at least 1",
    ),
];

#[test]
fn each_fault_names_its_field_and_what_would_be_right() {
    for (from, to, field, words) in WRONG {
        let text = SOUND.replacen(*from, to, 1);
        assert_ne!(text, SOUND, "row {to} changes nothing");
        let found = faults(&text);
        let named = found
            .iter()
            .any(|(f, what)| f == field && what.contains(*words));
        assert!(
            named,
            "{to:?}: expected `{field}` with `{words}`, got {found:?}"
        );
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let text = "id = 0\nlisten = '10.0.0.1:1'\npolicy = 5\nfoo = 1\n[timeouts]\nnode = 'x'";
    let fields: Vec<String> = faults(text).into_iter().map(|(field, _)| field).collect();
    for field in ["id", "data_dir", "listen", "policy", "foo", "timeouts.node"] {
        assert!(
            fields.iter().any(|f| f == field),
            "{field} is missing in {fields:?}"
        );
    }
}

#[test]
fn an_even_number_of_masters_is_refused() {
    let two = SOUND
        .split("[[masters]]\nid = 3")
        .next()
        .expect("a first part");
    assert!(
        faults(two)
            .iter()
            .any(|(f, what)| f == "masters" && what.contains("2 masters"))
    );
}

#[test]
fn a_master_that_joins_must_know_whom() {
    let head = SOUND.split("[[masters]]").next().expect("a first part");
    let found = faults(&format!("join = true\n{head}"));
    assert!(
        found
            .iter()
            .any(|(f, what)| f == "masters" && what.contains("no other master")),
        "{found:?}"
    );
}

#[test]
fn no_toml_says_where() {
    let error = parse("id = ").expect_err("no TOML").to_string();
    assert!(
        error.contains("master.toml") && error.contains("line 1"),
        "{error}"
    );
}
