//! Agents with GPUs from a driver: the library with scenarios is loaded as the driver's would be.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use berth_agent::daemon::metrics::table::METRICS;
use berth_fake_nvml::Stage;
use berth_fake_nvml::scenario::{Curve, Event, Hang, Mig, Process, Scenario};
use berth_types::{GpuShare, LaunchTask, NodeSpec, TaskKey};

use crate::harness::{FakeMaster, Node, alive, key, shell, until};

struct Machine {
    node: Node,
    stage: Stage,
    metrics: u16,
}

impl Machine {
    fn start(master: &FakeMaster, scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(dir.path());
        stage.play(scenario).unwrap();
        let metrics = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let more = format!(
            "gpus = \"auto\"\nmetrics = \"127.0.0.1:{metrics}\"\n[telemetry]\ninterval = \"50ms\"\ndeadline = \"1500ms\"\nlibrary = {:?}\n",
            berth_fake_nvml::library().unwrap()
        );
        let file = stage.file().to_path_buf();
        let env = [("FAKE_NVML_SCENARIO", file.as_path())];
        let node = Node::start_in(dir, &[&master.address], &more, &env);
        Self {
            node,
            stage,
            metrics,
        }
    }

    fn play(&mut self, scenario: &Scenario) {
        self.stage.play(scenario).unwrap();
    }

    /// What is served under a path; nothing while nobody listens.
    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.metrics)) else {
            return String::new();
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    /// Waits for a line of the metrics that begins so and holds the other words, and ends so.
    async fn series(&self, name: &str, with: &[&str], value: &str) {
        until(&format!("{name} {with:?} {value}"), || {
            self.get("/metrics").lines().any(|line| {
                line.starts_with(&format!("{name}{{"))
                    && with.iter().all(|part| line.contains(part))
                    && line.ends_with(&format!(" {value}"))
            })
        })
        .await;
    }
}

async fn spec(master: &FakeMaster, number: usize) -> NodeSpec {
    let register = master.registration(number).await;
    NodeSpec::try_from(register.spec.unwrap()).unwrap()
}

fn on_gpu(key: TaskKey, gpu: u16, script: &str) -> LaunchTask {
    LaunchTask {
        gpus: vec![GpuShare {
            gpu,
            milligpu: 1_000,
        }],
        ..shell(key, script)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_driver_lists_is_offered() {
    let master = FakeMaster::start().await;
    let mut scenario = Scenario::healthy(3);
    scenario.gpu[2].numa = Some(1);
    scenario.gpu[2].nvlink = None;
    let mut machine = Machine::start(&master, &scenario);
    let offer = spec(&master, 0).await;
    assert!(!offer.simulated_gpus);
    let gpus: Vec<_> = offer
        .gpus
        .iter()
        .map(|gpu| {
            (
                gpu.model.as_str(),
                gpu.nvlink_group,
                gpu.numa,
                gpu.mem_bytes >> 30,
            )
        })
        .collect();
    assert_eq!(
        gpus,
        [("h100", 0, 0, 80), ("h100", 0, 0, 80), ("h100", 2, 1, 80)]
    );
    master
        .launch([on_gpu(key(1, 1, 0), 1, "echo $CUDA_VISIBLE_DEVICES")])
        .await;
    assert_eq!(master.ended(key(1, 1, 0)).await.code, 0);
    assert_eq!(machine.node.stdout(key(1, 1, 0)).trim(), offer.gpus[1].uuid);
    // Numbers outlive a restart, also of a machine that comes back with one GPU less.
    machine.node.stop_agent();
    scenario.gpu.remove(0);
    machine.play(&scenario);
    machine.node.start_agent();
    assert_eq!(spec(&master, 1).await.gpus, offer.gpus);
    machine
        .series(
            "berth_gpu_condition",
            &["gpu=\"0\"", "condition=\"lost\""],
            "1.0",
        )
        .await;
    master.launch([on_gpu(key(2, 1, 0), 0, "true")]).await;
    let exit = master.ended(key(2, 1, 0)).await;
    assert!(
        exit.node_fault && exit.reason.contains("GPU 0 fell off"),
        "{exit:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_declared_metric_is_served() {
    let master = FakeMaster::start().await;
    let mut scenario = Scenario::healthy(2);
    scenario.event = vec![Event {
        at: 2.0,
        gpu: 1,
        xid: 31,
    }];
    scenario.set(0, "mig_mode", 1.0);
    scenario.gpu[0].mig = vec![Mig {
        gpu_instance: 3,
        compute_instance: 3,
        memory_mib: 40_192,
    }];
    let mut machine = Machine::start(&master, &scenario);
    master
        .launch([on_gpu(key(7, 2, 0), 1, "echo $$; exec sleep 600")])
        .await;
    master.running(key(7, 2, 0)).await;
    until("the task's number", || {
        machine.node.stdout(key(7, 2, 0)).ends_with('\n')
    })
    .await;
    let pid = machine.node.stdout(key(7, 2, 0)).trim().parse().unwrap();
    let memory = Some(3 << 30);
    scenario.gpu[1].process = vec![Process {
        pid,
        memory,
        from: 0.0,
        until: None,
    }];
    machine.play(&scenario);
    let task = ["gpu=\"1\"", "job=\"7\"", "attempt=\"2\"", "rank=\"0\""];
    machine
        .series("berth_gpu_process_memory_bytes", &task, "3221225472.0")
        .await;
    machine
        .series("berth_gpu_xid_total", &["gpu=\"1\"", "xid=\"31\""], "1.0")
        .await;
    let text = machine.get("/metrics");
    for metric in METRICS {
        let name = metric.served_name();
        assert!(
            text.contains(&format!("\n{name}{{")),
            "{name} is declared and not served:\n{text}"
        );
    }
    let line = "DCGM_FI_DEV_GPU_TEMP{gpu=\"1\",UUID=\"GPU-fa4e0000-0000-4000-8000-000000000001\",device=\"nvidia1\",modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"n1\"} 61.0";
    assert!(text.contains(line), "{text}");
    machine.series("berth_gpu_task_info", &task, "1.0").await;
    machine
        .series("DCGM_FI_DEV_XID_ERRORS", &["gpu=\"1\""], "31.0")
        .await;
    assert!(machine.get("/healthz").ends_with("ok\n"));
    master.tombstone(key(7, 2, 0)).await;
    master.ended(key(7, 2, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gpu_does_not_support_has_no_series() {
    let master = FakeMaster::start().await;
    let machine = Machine::start(&master, &Scenario::bare(1));
    machine
        .series("berth_gpu_condition", &["condition=\"answering\""], "1.0")
        .await;
    let text = machine.get("/metrics");
    let served: Vec<&str> = METRICS
        .iter()
        .map(|metric| metric.name)
        .filter(|name| name.starts_with("DCGM_FI_") && text.contains(&format!("\n{name}{{")))
        .collect();
    assert_eq!(served, ["DCGM_FI_DEV_XID_ERRORS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_makes_one_gpu_unresponsive_and_nothing_late() {
    let master = FakeMaster::start().await;
    let mut scenario = Scenario::healthy(2);
    let mut machine = Machine::start(&master, &scenario);
    machine
        .series(
            "berth_gpu_condition",
            &["gpu=\"1\"", "condition=\"answering\""],
            "1.0",
        )
        .await;
    scenario.hang = vec![Hang {
        call: "*".into(),
        gpu: Some(1),
        from: 0.0,
        until: None,
    }];
    machine.play(&scenario);
    machine
        .series(
            "berth_gpu_condition",
            &["gpu=\"1\"", "condition=\"unresponsive\""],
            "1.0",
        )
        .await;
    machine
        .series(
            "berth_gpu_condition",
            &["gpu=\"0\"", "condition=\"answering\""],
            "1.0",
        )
        .await;
    // The other GPU takes work meanwhile; a task for this one waits, and starts when it answers again.
    master
        .launch([
            on_gpu(key(1, 1, 0), 0, "true"),
            on_gpu(key(2, 1, 0), 1, "true"),
        ])
        .await;
    assert_eq!(master.ended(key(1, 1, 0)).await.code, 0);
    assert!(machine.node.stdout(key(2, 1, 0)).is_empty());
    scenario.hang.clear();
    machine.play(&scenario);
    assert_eq!(master.ended(key(2, 1, 0)).await.code, 0);
    assert_eq!(master.registrations(), 1, "no stream was lost over it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_outlives_its_task_is_ended_before_its_gpu_is_used_again() {
    let master = FakeMaster::start().await;
    let mut scenario = Scenario::healthy(1);
    let mut machine = Machine::start(&master, &scenario);
    // It leaves the task's group and session, as a daemon would.
    let script = "setsid sleep 600 > /dev/null 2>&1 & echo $!; sleep 1";
    master.launch([on_gpu(key(1, 1, 0), 0, script)]).await;
    until("the number", || {
        machine.node.stdout(key(1, 1, 0)).ends_with('\n')
    })
    .await;
    let pid: u32 = machine.node.stdout(key(1, 1, 0)).trim().parse().unwrap();
    let memory = Some(30 << 30);
    scenario.gpu[0].process = vec![Process {
        pid,
        memory,
        from: 0.0,
        until: None,
    }];
    scenario.gpu[0].values.insert(
        "mem_used".into(),
        Curve::Constant(f64::from(30u32 << 10) * 1_048_576.0),
    );
    machine.play(&scenario);
    assert_eq!(master.ended(key(1, 1, 0)).await.code, 0);
    until("the leftover is gone", || !alive(pid)).await;
    machine
        .series("berth_gpu_leftovers_ended_total", &[], "1.0")
        .await;
    // Its memory is still there: nobody gets the GPU.
    master
        .launch([on_gpu(key(2, 1, 0), 0, "echo started; exit 5")])
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(machine.node.stdout(key(2, 1, 0)).is_empty());
    scenario.gpu[0]
        .values
        .insert("mem_used".into(), Curve::Constant(0.0));
    machine.play(&scenario);
    assert_eq!(master.ended(key(2, 1, 0)).await.code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_driver_serves_without_gpus() {
    let master = FakeMaster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let more = "gpus = \"auto\"\n[telemetry]\nlibrary = \"/does/not/exist.so\"\n";
    let _node = Node::start_in(dir, &[&master.address], more, &[]);
    assert_eq!(spec(&master, 0).await.gpus, []);
    master.launch([shell(key(1, 1, 0), "exit 4")]).await;
    assert_eq!(master.ended(key(1, 1, 0)).await.code, 4);
}
