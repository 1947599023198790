//! Cluster files: what they give, and what is told of those that are wrong.

use berth_sim::cluster::{self, ClusterFile};

const SMALL: &str = r#"
name = "small"

[gpu_models.a100]
memory = "80GiB"
speed = 2.5

[wiring]
nodes_per_rack = 2
racks_per_pod = 1

[[pools]]
name = "big"
gpu = "a100"
nodes = 3
max_nodes = 9
min_nodes = 1
quota_nodes = 7
boot_denied = 0.25
gpus_per_node = 4
nvlink_gpus = 2
cpus = 96
memory = "1TiB"
labels = { zone = "north" }
boot_delay = "3m"
price_per_hour = 12.5
mean_time_between_failures = "30days"

[[pools]]
name = "front"
nodes = 1
cpus = 8
"#;

fn small() -> ClusterFile {
    cluster::read("small.toml", SMALL).expect("it is sound")
}

#[test]
fn pools_become_nodes_with_gpus_racks_and_labels() {
    let file = small();
    let names: Vec<&str> = file.cluster.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["big-0000", "big-0001", "big-0002", "front-0000"]);
    assert_eq!(file.cluster.milligpu(), 12_000);
    assert_eq!(file.cluster.gpu_models["a100"].speed, 2.5);
    let node = &file.cluster.nodes[2];
    assert_eq!((node.millicpu, node.mem_bytes), (96_000, 1 << 40));
    let groups: Vec<u16> = node.gpus.iter().map(|gpu| gpu.nvlink_group).collect();
    assert_eq!(groups, [0, 0, 1, 1]);
    assert_eq!(node.gpus[3].mem_bytes, 80 << 30);
    assert_eq!(node.rack, "rack1");
    let labels: Vec<String> = (node.labels.iter())
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["pod=pod1", "pool=big", "zone=north"]);
    let pool = &file.pools[0];
    assert_eq!((pool.nodes.clone(), pool.max_nodes), (0..3, 9));
    let later: Vec<&str> = file.cluster.later.iter().map(|n| n.name.as_str()).collect();
    assert_eq!((later[0], later.len()), ("big-0003", 6));
    assert_eq!(
        file.cluster.later[0].rack, "rack2",
        "behind those that are there"
    );
    let rules = &file.cluster.pools[0];
    assert_eq!((rules.min_nodes, rules.quota_nodes), (1, Some(7)));
    assert_eq!((rules.boot_ms, rules.denied_per_mille), (180_000, 250));
    assert_eq!((pool.boot_delay_ms, pool.mtbf_ms), (180_000, 2_592_000_000));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_key() {
    let cases = [
        (
            "speed = 2.5",
            "sped = 2.5",
            "6: key `gpu_models.a100.sped`: unknown key; hint: did you mean `speed`?",
        ),
        (
            "gpus_per_node = 4",
            "gpus_per_nod = 4",
            "20: key `pools[0].gpus_per_nod`: unknown key; hint: did you mean `gpus_per_node`?",
        ),
        (
            "nodes = 3",
            "nodes = -3",
            "15: key `pools[0].nodes`: `-3` is not possible; hint: a whole number from 0",
        ),
        ("nodes = 3", "", "12: key `pools[0].nodes`: missing"),
        (
            "max_nodes = 9",
            "max_nodes = 2",
            "key `pools[0].max_nodes`: `2` is not possible; hint: a whole number from 3",
        ),
        (
            "\"1TiB\"",
            "\"1 elephant\"",
            "23: key `pools[0].memory`: `1 elephant` is not possible",
        ),
        (
            "\"3m\"",
            "\"soon\"",
            "key `pools[0].boot_delay`: `soon` is not possible; hint: a duration",
        ),
        (
            "gpu = \"a100\"",
            "gpu = \"a10\"",
            "no GPU model is called `a10`; hint: did you mean `a100`?",
        ),
        (
            "nodes_per_rack = 2",
            "",
            "key `wiring.nodes_per_rack`: missing",
        ),
        (
            "name = \"front\"",
            "name = \"big\"",
            "pool `big` is there twice",
        ),
        (
            "zone = \"north\"",
            "zone = 7",
            "key `pools[0].labels`: a value of type table is not possible",
        ),
        ("[[pools]]", "[[pools]", "12"),
    ];
    for (from, to, wanted) in cases {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL, "{from}");
        let error = cluster::read("small.toml", &text)
            .expect_err(to)
            .to_string();
        assert!(error.starts_with("small.toml:"), "{error}");
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn a_cluster_needs_nodes_and_a_known_name() {
    let error = cluster::read("x.toml", "name = \"x\"")
        .expect_err("no pools")
        .to_string();
    assert!(error.contains("key `pools`: missing"), "{error}");
    let error = cluster::open("sia-het6")
        .expect_err("no such cluster")
        .to_string();
    assert!(error.contains("did you mean `sia-het64`?"), "{error}");
}

#[test]
fn the_clusters_of_sia_need_no_other_file() {
    for (name, nodes) in [("sia-het64", 11), ("sia-hom64-t4", 16)] {
        let cluster = cluster::open(name).expect("it is shipped").cluster;
        assert_eq!(
            (cluster.nodes.len(), cluster.milligpu()),
            (nodes, 64_000),
            "{name}"
        );
    }
}

#[test]
fn published_clusters_have_their_published_size() {
    if std::env::var_os("BERTH_TRACES").is_none() {
        eprintln!("skipped: set BERTH_TRACES to the folder of traces");
        return;
    }
    let cases = [
        ("openb", 1_213, 6_212),
        ("venus", 133, 1_064),
        ("philly-vc", 352, 2_816),
        ("lingjun", 847, 6_776),
    ];
    for (name, nodes, gpus) in cases {
        let cluster = cluster::open(name).expect("the traces are there").cluster;
        assert_eq!(
            (cluster.nodes.len(), cluster.milligpu()),
            (nodes, gpus * 1_000),
            "{name}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", at in 0usize..400, cut in 0usize..40) {
        let _ = cluster::read("any.toml", &text);
        let mut mixed = SMALL.to_owned();
        let at = at.min(mixed.len());
        mixed.replace_range(at..(at + cut).min(mixed.len()), &text);
        let _ = cluster::read("mixed.toml", &mixed);
    }
}
