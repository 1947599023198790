//! Measured interference: what a table gives, and what is told of one that is wrong.

use berth_sim::cluster;
use berth_sim::input::Source;
use berth_sim::load::interference;
use berth_world::twin::Interference;

const TABLE: &str = r#"{
  "k80": { "('A', 1)": { "null": 0.0, "('B', 1)": [0.0, 0.0] } },
  "v100": {
    "('A', 1)": { "null": 10.0, "('A', 1)": [5.0, 5.0], "('B', 1)": [8.0, 2.0], "('C', 1)": [0.0, 0.0] },
    "('B', 1)": { "null": 4.0, "('A', 1)": [2.0, 8.0], "('C', 1)": [4.4, 1.0] },
    "('A', 2)": { "null": 20.0, "('A', 2)": [0.1, 0.1] }
  },
  "v100_unconsolidated": { "('A', 1)": { "null": 10.0, "('A', 1)": [1.0, 1.0] } },
  "p100": { "('A', 1)": { "null": 5.0, "('B', 1)": [2.0, 1.0] } }
}"#;

const CLUSTER: &str = r#"
[gpu_models.T4]
[gpu_models.Tesla-V100-SXM2]
[[pools]]
name = "old"
gpu = "T4"
nodes = 1
gpus_per_node = 1
[[pools]]
name = "new"
gpu = "Tesla-V100-SXM2"
nodes = 1
gpus_per_node = 1
"#;

fn read(table: &str) -> Result<Interference, String> {
    let cluster = cluster::read("c.toml", CLUSTER)
        .expect("it is sound")
        .cluster;
    let source = Source::memory("rates.json", table).expect("it is in memory");
    interference::parse(source, &cluster).map_err(|error| error.to_string())
}

#[test]
fn shares_are_rates_beside_over_rates_alone() {
    let found = read(TABLE).expect("it is sound");
    let models: Vec<&str> = found.by_gpu.keys().map(String::as_str).collect();
    assert_eq!(models, ["Tesla-V100-SXM2"], "T4 was not measured");
    let share = |a: &str, b: &str| {
        found.by_gpu["Tesla-V100-SXM2"]
            .beside
            .get(&(a.into(), b.into()))
    };
    assert_eq!(
        share("A", "A"),
        Some(&0.5),
        "with one worker, on one machine"
    );
    assert_eq!(share("A", "B"), Some(&0.8));
    assert_eq!(share("B", "A"), Some(&0.5));
    assert_eq!(share("A", "C"), Some(&0.5), "they take turns");
    assert_eq!(share("B", "C"), Some(&1.0), "nobody gets faster");
    assert_eq!(share("C", "A"), None);
    let usual = found.by_gpu["Tesla-V100-SXM2"].usual;
    assert!(
        (usual - 0.7).abs() < 1e-12,
        "of 0.5, 0.8, 0.5 and 1: {usual}"
    );
    let pair = ("A".to_owned(), "B".to_owned());
    let elsewhere = found.elsewhere.beside[&pair];
    assert!(
        (elsewhere - 0.6).abs() < 1e-12,
        "of 0.8 and 0.4: {elsewhere}"
    );
}

#[test]
fn what_is_wrong_is_told_with_file_and_key() {
    let cases = [
        ("{", "rates.json:1: EOF while parsing"),
        ("[]", "rates.json:1: invalid type: sequence"),
        ("{}", "rates.json: no pair was measured"),
        (
            r#"{"v100": {"A": {"null": 1}}}"#,
            "rates.json: key `v100.A`: no type of job with its number of workers; hint: such as ('A3C', 1)",
        ),
        (
            r#"{"v100": {"('A', 1)": {"('B', 1)": [1, 2]}}}"#,
            "rates.json: key `v100.('A', 1).null`: missing",
        ),
        (
            r#"{"v100": {"('A', 1)": {"null": -1}}}"#,
            "rates.json: key `v100.('A', 1).null`: `-1` is no rate",
        ),
        (
            r#"{"v100": {"('A', 1)": {"null": 1, "('B', 1)": [1]}}}"#,
            "rates.json: key `v100.('A', 1).('B', 1)`: no pair of rates",
        ),
        (
            r#"{"v100": {"('A', 1)": {"null": 1, "('B', 1)": ["x", 2]}}}"#,
            "key `v100.('A', 1).('B', 1)`: `\"x\"` is no rate; hint: steps per second, 0 or more",
        ),
    ];
    for (table, says) in cases {
        let said = read(table).expect_err(table);
        assert!(said.contains(says), "{table}: {said}");
    }
}
