//! What a probe reads.

use berth_agent::gpu::line::Line;
use berth_fake_nvml::scenario::{Curve, Mig, Nvlink, Process, Scenario};
use berth_types::telemetry::{
    GpuCondition, GpuEcc, GpuIdentity, GpuMemory, GpuNvlink, GpuPath, GpuPcie, GpuReading, GpuRows,
    PciePath,
};

use crate::harness::Probe;

#[test]
fn everything_that_is_supported_is_read() {
    let mut probe = Probe::fake(&Scenario::healthy(2));
    let identity = probe.identity(1);
    let expected = GpuIdentity {
        index: 1,
        uuid: "GPU-fa4e0000-0000-4000-8000-000000000001".into(),
        name: "NVIDIA H100 80GB HBM3".into(),
        pci_bus_id: Some("0000:1a:00.0".into()),
        minor: Some(1),
        mem_bytes: Some(80 << 30),
        numa: Some(0),
        pcie_max_gen: Some(5),
        pcie_max_width: Some(16),
        max_sm_mhz: Some(1_980),
        slowdown_temp_c: Some(87),
        shutdown_temp_c: Some(92),
    };
    assert_eq!(identity, expected);
    let reading = probe.reading(1, "a reading", |_| true);
    assert_eq!(reading, healthy(&reading));
    assert!(reading.mig.is_some_and(|mig| !mig.enabled));
}

/// What a healthy GPU shows, but for what differs from look to look.
fn healthy(reading: &GpuReading) -> GpuReading {
    GpuReading {
        index: 1,
        at_ms: reading.at_ms,
        took_us: reading.took_us,
        condition: GpuCondition::Answering,
        gpu_util_pct: Some(97),
        mem_util_pct: Some(41),
        encoder_util_pct: Some(0),
        decoder_util_pct: Some(3),
        memory: Some(GpuMemory {
            total_bytes: 80 << 30,
            used_bytes: 100 << 20,
            free_bytes: (80 << 30) - (700 << 20),
            reserved_bytes: 600 << 20,
        }),
        temp_c: Some(61),
        mem_temp_c: Some(72),
        power_mw: Some(412_500),
        power_limit_mw: Some(700_000),
        energy_mj: Some(123_456_789),
        sm_mhz: Some(1_980),
        mem_mhz: Some(2_619),
        throttle: Some(0),
        pstate: Some(0),
        power_violation_ns: Some(5_000_000),
        thermal_violation_ns: Some(0),
        ecc: GpuEcc {
            corrected_volatile: Some(2),
            uncorrected_volatile: Some(0),
            corrected_aggregate: Some(17),
            uncorrected_aggregate: Some(1),
        },
        rows: GpuRows {
            corrected: Some(1),
            uncorrected: Some(0),
            pending: Some(false),
            failed: Some(false),
        },
        pcie: GpuPcie {
            generation: Some(5),
            width: Some(16),
            tx_kb_per_s: Some(120_000),
            rx_kb_per_s: Some(80_000),
            replays: Some(4),
        },
        nvlink: Some(GpuNvlink {
            links: 18,
            up: 18,
            crc_flit: Some(7),
            crc_data: Some(0),
            replays: Some(3),
            recoveries: Some(1),
        }),
        processes: Some(Vec::new()),
        mig: reading.mig.clone(),
    }
}

#[test]
fn what_is_not_supported_is_absent_and_never_zero() {
    let mut probe = Probe::fake(&Scenario::bare(1));
    let identity = probe.identity(0);
    assert_eq!((identity.numa, identity.mem_bytes), (None, None));
    let reading = probe.reading(0, "a reading", |_| true);
    let bare = GpuReading {
        at_ms: reading.at_ms,
        took_us: reading.took_us,
        condition: GpuCondition::Answering,
        ..GpuReading::default()
    };
    assert_eq!(reading, bare);
    let text = serde_json::to_value(&reading).unwrap();
    let keys: Vec<&String> = text.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "at_ms",
            "condition",
            "ecc",
            "index",
            "pcie",
            "rows",
            "took_us"
        ]
    );
}

#[test]
fn values_change_over_time() {
    let mut scenario = Scenario::healthy(1);
    let steps = Curve::Steps(vec![(0.0, 0.0), (0.5, 40.0)]);
    scenario.gpu[0].values.insert("throttle".into(), steps);
    scenario.set(0, "temp_c", 93.0);
    let mut probe = Probe::fake(&scenario);
    let hot = probe.reading(0, "heat that slows the clocks", |r| {
        r.throttle == Some(0x28)
    });
    assert_eq!(hot.temp_c, Some(93));
}

#[test]
fn errors_of_links_are_added_up_where_there_are_no_totals() {
    let mut scenario = Scenario::healthy(1);
    scenario.gpu[0].unsupported = vec!["nvmlDeviceGetFieldValues".into()];
    scenario.gpu[0].nvlink = Some(Nvlink {
        links: 4,
        switch: true,
        ..Nvlink::default()
    });
    let reading = Probe::fake(&scenario).reading(0, "a reading", |_| true);
    let nvlink = reading.nvlink.unwrap();
    assert_eq!((nvlink.links, nvlink.up), (4, 4));
    assert_eq!((nvlink.crc_flit, nvlink.replays), (Some(7), Some(3)));
    assert_eq!(
        (reading.mem_temp_c, reading.rows),
        (None, GpuRows::default())
    );
}

#[test]
fn links_that_are_down_are_told() {
    let mut scenario = Scenario::healthy(1);
    scenario.gpu[0].nvlink = Some(Nvlink {
        links: 12,
        down: 5,
        switch: true,
        ..Nvlink::default()
    });
    let reading = Probe::fake(&scenario).reading(0, "a reading", |_| true);
    let nvlink = reading.nvlink.unwrap();
    assert_eq!((nvlink.links, nvlink.up), (12, 7));
}

#[test]
fn parts_of_a_gpu_are_told() {
    let mut scenario = Scenario::healthy(1);
    scenario.set(0, "mig_mode", 1.0);
    scenario.gpu[0].mig = vec![
        Mig {
            gpu_instance: 3,
            compute_instance: 3,
            memory_mib: 40_192,
        },
        Mig {
            gpu_instance: 2,
            compute_instance: 1,
            memory_mib: 20_096,
        },
    ];
    let reading = Probe::fake(&scenario).reading(0, "a reading", |_| true);
    let mig = reading.mig.unwrap();
    assert!(mig.enabled && mig.pending);
    assert_eq!(mig.devices.len(), 2);
    assert_eq!(mig.devices[1].mem_bytes, Some(20_096 << 20));
    assert_eq!(mig.devices[1].gpu_slices, Some(2));
    assert_ne!(mig.devices[0].uuid, mig.devices[1].uuid);
}

#[test]
fn processes_are_told_with_their_memory_and_whose_they_are() {
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .env("BERTH_TASK_DIR", "/d/tasks/7/2/0")
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut scenario = Scenario::healthy(1);
    let process = |pid, memory| Process {
        pid,
        memory,
        from: 0.0,
        until: None,
    };
    scenario.gpu[0].process = vec![
        process(pid, Some(3 << 30)),
        process(std::process::id(), None),
    ];
    let reading = Probe::fake(&scenario).reading(0, "a reading", |_| true);
    child.kill().unwrap();
    child.wait().unwrap();
    let processes = reading.processes.unwrap();
    assert_eq!(processes[0].mem_bytes, Some(3 << 30));
    assert_eq!(processes[0].task_dir.as_deref(), Some("/d/tasks/7/2/0"));
    assert!(processes[0].start_ticks.is_some());
    assert_eq!(
        (processes[1].pid, processes[1].mem_bytes),
        (std::process::id(), None)
    );
    assert_eq!(processes[1].task_dir, None);
}

fn paths(scenario: &Scenario) -> Vec<GpuPath> {
    let count = scenario.gpu.len();
    Probe::fake(scenario).until("paths between all", |line| match line {
        Line::Paths { paths } if paths.len() == count * (count - 1) / 2 => Some(paths.clone()),
        _ => None,
    })
}

#[test]
fn paths_between_gpus_are_told() {
    let mut scenario = Scenario::healthy(4);
    for (index, gpu) in scenario.gpu.iter_mut().enumerate() {
        // Pairs 0-1 and 2-3, each on its own socket.
        let index = u32::try_from(index).unwrap();
        gpu.numa = Some(index / 2);
        gpu.nvlink = Some(Nvlink {
            links: 4,
            peers: vec![index ^ 1],
            ..Nvlink::default()
        });
    }
    let told: Vec<(u16, u16, bool, Option<PciePath>)> = paths(&scenario)
        .iter()
        .map(|path| (path.a, path.b, path.nvlink, path.pcie))
        .collect();
    let (near, far) = (Some(PciePath::HostBridge), Some(PciePath::System));
    let expected = [
        (0, 1, true, near),
        (0, 2, false, far),
        (0, 3, false, far),
        (1, 2, false, far),
        (1, 3, false, far),
        (2, 3, true, near),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_switch_joins_all() {
    assert!(paths(&Scenario::healthy(3)).iter().all(|path| path.nvlink));
    // Also where the driver does not speak of direct access.
    let mut scenario = Scenario::healthy(3);
    for gpu in &mut scenario.gpu {
        gpu.unsupported = vec!["nvmlDeviceGetP2PStatus".into()];
    }
    assert!(paths(&scenario).iter().all(|path| path.nvlink));
}

#[test]
fn readings_that_are_asked_for_carry_the_number() {
    let mut scenario = Scenario::healthy(1);
    scenario.set(0, "temp_c", 50.0);
    let mut probe = Probe::fake(&scenario);
    probe.reading(0, "a reading", |_| true);
    probe.say("look 7");
    let look = probe.until("an answer", |line| match line {
        Line::Reading { look, .. } if *look > 0 => Some(*look),
        _ => None,
    });
    assert_eq!(look, 7);
}

/// The same on NVIDIA's own library, on machines that have it.
#[test]
#[allow(clippy::print_stderr)]
fn the_machines_own_gpus_are_read() {
    let Some(mut probe) = Probe::real() else {
        eprintln!(
            "this machine has no libnvidia-ml.so.1: only the library with scenarios was used"
        );
        return;
    };
    let identity = probe.identity(0);
    assert!(identity.uuid.starts_with("GPU-"), "{identity:?}");
    assert!(!identity.name.is_empty());
    let reading = probe.reading(0, "a reading", |_| true);
    assert_eq!(reading.condition, GpuCondition::Answering);
    let memory = reading.memory.unwrap();
    assert_eq!(Some(memory.total_bytes), identity.mem_bytes);
    let parts = memory.used_bytes + memory.free_bytes + memory.reserved_bytes;
    assert_eq!(parts, memory.total_bytes);
    assert!(reading.processes.is_some());
    assert!(reading.temp_c.is_some_and(|t| (1..150).contains(&t)));
    probe.say("look 7");
    probe.until("an answer", |line| match line {
        Line::Reading { look: 7, .. } => Some(()),
        _ => None,
    });
    probe.hang_up();
}
