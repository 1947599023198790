use super::*;

fn host() -> Host {
    Host {
        name: "h1".into(),
        cpus: 4,
        mem_bytes: 1 << 33,
    }
}

fn faults(text: &str) -> Vec<String> {
    let faults = Config::parse(text, &host()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_small_file_takes_the_rest_from_the_host() {
    let config =
        Config::parse("masters = [\"127.0.0.1:7401\"]\ndata_dir = \"/d\"", &host()).unwrap();
    assert_eq!(config.node.name, "h1");
    assert_eq!(
        (config.node.millicpu, config.node.mem_bytes),
        (4_000, 1 << 33)
    );
    assert_eq!(
        (config.node.port_first, config.node.port_count),
        (20_000, 1_000)
    );
    assert!(!config.node.simulated_gpus && config.node.gpus.is_empty());
    assert_eq!(config.heartbeat, Duration::from_secs(1));
}

#[test]
fn gpus_are_multiplied_and_simulated() {
    let text = r#"
        name = "gpu-01"
        masters = ["127.0.0.1:7401", "localhost:7402"]
        data_dir = "/d"
        cpus = 2.5
        memory = "3GiB"
        rack = "r7"
        ports = "30000-30009"
        [labels]
        zone = "a"
        [[gpus]]
        model = "a100"
        memory = "80GiB"
        count = 2
        nvlink_group = 3
        [[gpus]]
        model = "t4"
        memory = "16GiB"
        count = 2
        numa = 1
    "#;
    let node = Config::parse(text, &host()).unwrap().node;
    assert!(node.simulated_gpus);
    assert_eq!((node.millicpu, node.mem_bytes), (2_500, 3 << 30));
    assert_eq!((node.port_first, node.port_count), (30_000, 10));
    let models: Vec<_> = node
        .gpus
        .iter()
        .map(|g| (g.model.as_str(), g.numa))
        .collect();
    assert_eq!(models, [("a100", 0), ("a100", 0), ("t4", 1), ("t4", 1)]);
    assert_eq!(node.gpus[0].nvlink_group, node.gpus[1].nvlink_group);
    assert_ne!(node.gpus[2].nvlink_group, node.gpus[3].nvlink_group);
    assert_eq!(node.gpus[3].uuid, "SIM-gpu-01-3");
}

#[test]
fn gpus_of_a_driver_are_read() {
    let file = |more: &str| format!("masters = [\"127.0.0.1:7401\"]\ndata_dir = \"/d\"\n{more}");
    let plain = Config::parse(&file(""), &host()).unwrap();
    assert_eq!(plain.telemetry, None);
    assert_eq!(plain.metrics, Some("127.0.0.1:9400".parse().unwrap()));
    let text = file(
        "gpus = \"auto\"\nmetrics = \"off\"\n[telemetry]\ninterval = \"100ms\"\ndeadline = \"1s\"",
    );
    let config = Config::parse(&text, &host()).unwrap();
    let telemetry = config.telemetry.unwrap();
    assert_eq!(telemetry.interval, Duration::from_millis(100));
    assert_eq!((telemetry.library, config.metrics), (None, None));
    assert!(!config.node.simulated_gpus);
    for (more, fault) in [
        (
            "gpus = \"some\"",
            "gpus: string where something else belongs",
        ),
        (
            "metrics = \"0.0.0.0:9400\"",
            "metrics: `0.0.0.0:9400` is not a loopback address",
        ),
        (
            "metrics = \"9400\"",
            "metrics: `9400` is no address with a port",
        ),
        (
            "[telemetry]\ninterval = \"1ms\"",
            "telemetry.interval: shorter than 10 ms",
        ),
        (
            "[telemetry]\ndeadline = \"2s\"",
            "telemetry.deadline: shorter than 2s 500ms",
        ),
        (
            "[telemetry]\nlibrary = \"x.so\"",
            "telemetry.library: is not absolute",
        ),
        (
            "[telemetry]\nintervall = \"1s\"",
            "telemetry.intervall: unknown key (did you mean `interval`?)",
        ),
    ] {
        let told = faults(&file(more));
        assert!(told.len() == 1 && told[0].starts_with(fault), "{told:?}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let text = r#"
        masters = ["nowhere"]
        data_dir = "relative"
        adress = "127.0.0.1"
        address = "0.0.0.0"
        ports = "9-1"
        heartbeat = "soon"
        cpus = -1
        [[gpus]]
        modell = "a100"
        memory = "lots"
    "#;
    let told = faults(text);
    for part in [
        "masters[0]: `nowhere` is no `host:port`",
        "data_dir: `relative` is not absolute",
        "adress: unknown key (did you mean `address`?)",
        "address: `0.0.0.0` is not a loopback address (use 127.0.0.1, [::1] or localhost, or set up certificates: `berth init`",
        "ports: 9-1 is no range",
        "heartbeat: `soon` is no duration",
        "cpus: `-1` is not possible",
        "gpus[0].modell: unknown key (did you mean `model`?)",
        "gpus[0].memory: `\"lots\"` is no amount",
        "gpus[0].model: missing",
    ] {
        assert!(
            told.iter().any(|t| t.starts_with(part)),
            "{part} not in {told:#?}"
        );
    }
    assert_eq!(told.len(), 10, "{told:#?}");
}

#[test]
fn other_hosts_need_certificates() {
    let text =
        "masters = [\"10.0.0.1:7401\", \"head:7401\"]\ndata_dir = \"/d\"\naddress = \"10.0.0.2\"\n";
    let told = faults(text);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told.iter().all(|t| t.contains("`berth init`")), "{told:#?}");
    let config = Config::parse(&format!("tls_dir = \"/t\"\n{text}"), &host()).unwrap();
    assert_eq!(config.node.address, "10.0.0.2");
}

#[test]
fn what_is_missing_is_told() {
    let told = faults("");
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("masters: no master") && told[1].starts_with("data_dir: missing"));
    let long = format!(
        "masters = [\"127.0.0.1:1\"]\ndata_dir = \"/{}\"",
        "x".repeat(120)
    );
    assert!(faults(&long)[0].contains("at most 107"));
    assert!(faults("masters = 3 3")[0].starts_with("file: "));
}

#[test]
fn isolation_and_hooks_are_read() {
    let file = |more: &str| format!("masters = [\"127.0.0.1:7401\"]\ndata_dir = \"/d\"\n{more}");
    let plain = Config::parse(&file(""), &host()).unwrap();
    assert_eq!(
        (plain.isolation.cgroup, plain.isolation.pids),
        (Cgroup::Auto, 32_768)
    );
    assert_eq!((plain.hooks.prolog, plain.hooks.health_check), (None, None));
    let text = file(
        "[isolation]\ncgroup = \"/sys/fs/cgroup/b\"\npids = 0\n[hooks]\nepilog = \"/e\"\nhealth_check_interval = \"5s\"",
    );
    let config = Config::parse(&text, &host()).unwrap();
    assert_eq!(
        config.isolation.cgroup,
        Cgroup::At("/sys/fs/cgroup/b".into())
    );
    assert_eq!(config.isolation.pids, 0);
    assert_eq!(config.hooks.epilog, Some("/e".into()));
    assert_eq!(config.hooks.health_check_interval, Duration::from_secs(5));
    for (more, fault) in [
        (
            "[isolation]\ncgroup = \"on\"",
            "isolation.cgroup: `on` is no control group",
        ),
        (
            "[isolation]\npids = -1",
            "isolation.pids: `-1` is not possible",
        ),
        (
            "[hooks]\nprolog = \"p.sh\"",
            "hooks.prolog: `p.sh` is not absolute",
        ),
        ("[hooks]\ntimeout = \"0s\"", "hooks.timeout: no time at all"),
        (
            "[hooks]\nprologue = \"/p\"",
            "hooks.prologue: unknown key (did you mean `prolog`?)",
        ),
    ] {
        let told = faults(&file(more));
        assert!(told.len() == 1 && told[0].starts_with(fault), "{told:?}");
    }
}
