//! What a probe does when a driver does not.

use berth_agent::gpu::line::Line;
use berth_fake_nvml::scenario::{Event, Hang, Scenario};
use berth_types::telemetry::GpuCondition;

use crate::harness::Probe;

fn hang(call: &str, gpu: Option<u32>) -> Hang {
    Hang {
        call: call.into(),
        gpu,
        from: 0.0,
        until: None,
    }
}

#[test]
fn a_call_that_hangs_keeps_one_gpu_only() {
    let mut scenario = Scenario::healthy(3);
    let mut probe = Probe::fake(&scenario);
    for index in 0..3 {
        probe.reading(index, "a reading", |_| true);
    }
    scenario.hang = vec![hang("nvmlDeviceGetPowerUsage", Some(1))];
    probe.play(&scenario);
    let waiting = probe.until("a beat that tells the call", |line| match line {
        Line::Beat(beat) => {
            let on_a_gpu = beat.waiting.iter().find(|w| w.index.is_some());
            on_a_gpu.filter(|w| w.for_ms >= 500).cloned()
        }
        _ => None,
    });
    assert_eq!(waiting.index, Some(1));
    assert_eq!(waiting.call, "nvmlDeviceGetPowerUsage");
    let mut others = [0; 3];
    probe.until("readings of the others", |line| {
        if let Line::Reading { reading, .. } = line {
            others[usize::from(reading.index)] += 1;
        }
        (others[0] >= 5 && others[2] >= 5).then_some(())
    });
    assert_eq!(others[1], 0);
    // It goes on where it was.
    scenario.hang.clear();
    probe.play(&scenario);
    probe.reading(1, "a reading after the hang", |_| true);
}

#[test]
fn the_beat_goes_on_while_the_library_does_not_even_start() {
    let mut scenario = Scenario::healthy(1);
    scenario.hang = vec![hang("nvmlInit_v2", None)];
    let mut probe = Probe::fake(&scenario);
    let waiting = probe.until("a beat that tells the call", |line| match line {
        Line::Beat(beat) => beat.waiting.iter().find(|w| w.for_ms >= 200).cloned(),
        _ => None,
    });
    assert_eq!((waiting.index, waiting.call.as_str()), (None, "nvmlInit"));
}

#[test]
fn a_gpu_that_hangs_before_its_name_is_known_does_not_keep_the_others() {
    let mut scenario = Scenario::healthy(3);
    scenario.hang = vec![hang("nvmlDeviceGetHandleByIndex_v2", Some(0))];
    let mut probe = Probe::fake(&scenario);
    probe.reading(1, "a reading", |_| true);
    probe.reading(2, "a reading", |_| true);
}

#[test]
fn the_probe_ends_with_its_agent_whatever_hangs() {
    let mut scenario = Scenario::healthy(2);
    scenario.hang = vec![hang("*", None), hang("nvmlShutdown", None)];
    let mut probe = Probe::fake(&scenario);
    probe.until("a beat that tells a call", |line| match line {
        Line::Beat(beat) if !beat.waiting.is_empty() => Some(()),
        _ => None,
    });
    probe.hang_up();
}

#[test]
fn xids_come_as_they_happen() {
    let mut scenario = Scenario::healthy(2);
    scenario.event = vec![
        Event {
            at: 0.6,
            gpu: 1,
            xid: 79,
        },
        Event {
            at: 0.7,
            gpu: 0,
            xid: 31,
        },
    ];
    let mut probe = Probe::fake(&Scenario::healthy(2));
    // Events are heard once somebody listens; a reading shows that the library is loaded.
    probe.reading(1, "a reading", |_| true);
    std::thread::sleep(std::time::Duration::from_millis(200));
    probe.play(&scenario);
    let mut xids = Vec::new();
    probe.until("two XIDs", |line| {
        if let Line::Xid(xid) = line {
            xids.push((xid.index, xid.xid));
        }
        (xids.len() == 2).then_some(())
    });
    assert_eq!(xids, [(1, 79), (0, 31)]);
}

#[test]
fn a_gpu_without_events_does_not_take_them_from_the_others() {
    let mut scenario = Scenario::healthy(2);
    scenario.gpu[0].unsupported = vec!["nvmlDeviceRegisterEvents".into()];
    let mut probe = Probe::fake(&scenario);
    probe.reading(1, "a reading", |_| true);
    std::thread::sleep(std::time::Duration::from_millis(200));
    scenario.event = vec![Event {
        at: 0.1,
        gpu: 1,
        xid: 48,
    }];
    probe.play(&scenario);
    let xid = probe.until("an XID", |line| match line {
        Line::Xid(xid) => Some(xid.clone()),
        _ => None,
    });
    assert_eq!((xid.index, xid.xid), (1, 48));
}

#[test]
fn a_gpu_that_vanishes_is_lost_and_its_last_word_is_heard() {
    let mut scenario = Scenario::healthy(2);
    let mut probe = Probe::fake(&scenario);
    probe.reading(0, "a reading", |_| true);
    std::thread::sleep(std::time::Duration::from_millis(200));
    scenario.gpu[0].lost_from = Some(0.0);
    scenario.event = vec![Event {
        at: 0.0,
        gpu: 0,
        xid: 79,
    }];
    probe.play(&scenario);
    let (mut lost, mut xid) = (None, None);
    probe.until("the loss and the XID", |line| {
        match line {
            Line::Reading { reading, .. } if reading.condition == GpuCondition::Lost => {
                lost = Some((reading.index, reading.temp_c));
            }
            Line::Xid(x) => xid = Some((x.index, x.xid)),
            _ => {}
        }
        (lost.is_some() && xid.is_some()).then_some(())
    });
    assert_eq!((lost, xid), (Some((0, None)), Some((0, 79))));
    probe.reading(1, "a reading of the other", |r| {
        r.condition == GpuCondition::Answering
    });
}

#[test]
fn a_gpu_that_needs_a_reset_says_so() {
    let mut scenario = Scenario::healthy(1);
    scenario.gpu[0].reset_from = Some(0.0);
    let mut probe = Probe::fake(&scenario);
    probe.reading(0, "its state", |r| {
        r.condition == GpuCondition::ResetRequired
    });
}

#[test]
fn a_driver_that_is_not_loaded_is_told() {
    let mut scenario = Scenario::healthy(1);
    scenario.driver_loaded = false;
    let why = Probe::fake(&scenario).until("why", |line| match line {
        Line::Failed { why } => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("driver is not loaded"), "{why}");
}

#[test]
fn a_storm_of_memory_errors_is_read() {
    use berth_fake_nvml::scenario::Curve;
    let mut scenario = Scenario::healthy(1);
    let storm = Curve::Ramp {
        start: 0.0,
        per_second: 1_000_000.0,
    };
    scenario.gpu[0]
        .values
        .insert("ecc_corrected_volatile".into(), storm);
    let mut probe = Probe::fake(&scenario);
    let first = probe
        .reading(0, "a reading", |_| true)
        .ecc
        .corrected_volatile
        .unwrap();
    let later = probe.reading(0, "more errors", |r| {
        r.ecc.corrected_volatile.is_some_and(|n| n > first + 50_000)
    });
    assert_eq!(later.ecc.uncorrected_volatile, Some(0));
}
