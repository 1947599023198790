//! Sia's workloads: what is wrong with one is told with its place, and the published setting comes out as measured with
//! its authors' simulator. The latter needs the recorded traces; the whole table is `berth-sim reproduce sia`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use berth_core::goodput::GradientNoise;
use berth_sim::input::Source;
use berth_sim::load::Limits;
use berth_sim::load::sia::{Reading, read};
use berth_sim::load::sia_profiles::{self, Applications, GPU_TYPES};
use berth_sim::reproduce::sia::{cases, compare, per_job, rules, setting};
use berth_world::twin;
use berth_world::twin::adaptive::Application;

fn applications() -> Applications {
    let noise = GradientNoise {
        squared_norm: 1.0,
        variance: 1.0,
    };
    let application = Application {
        name: "cifar10".to_owned(),
        epochs: vec![1.0],
        noise: vec![(128, vec![noise]), (4096, vec![noise])],
        slowdown: 1.0,
        ..Application::default()
    };
    BTreeMap::from([("cifar10".to_owned(), Arc::new(application))])
}

fn load(rows: &str, reading: &Reading) -> Result<Vec<(String, u32, u32)>, String> {
    let text = format!("name,time,application,num_replicas,batch_size\n{rows}");
    let source = Source::memory("workload.csv", text).expect("memory can be read");
    let loaded = read(source, &applications(), &Limits::none(), reading);
    let trace = loaded.map_err(|error| error.to_string())?.trace;
    let sizes = trace.jobs.iter().map(|job| {
        let group = &job.spec.groups[0];
        (job.key.clone(), group.min_workers, group.max_workers)
    });
    Ok(sizes.collect())
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(bytes: Vec<u8>, at in 0usize..100) {
        let mut mixed = b"name,time,application,num_replicas,batch_size\na,1,cifar10,8,512\n".to_vec();
        let at = at.min(mixed.len());
        let to = (at + bytes.len() / 2).min(mixed.len());
        mixed.splice(at..to, bytes.iter().copied());
        for bytes in [mixed, bytes] {
            let source = Source::memory("workload.csv", bytes).expect("memory can be read");
            let _ = read(source, &applications(), &Limits::none(), &Reading::default());
        }
    }
}

#[test]
fn jobs_are_elastic_unless_the_policy_cannot_resize() {
    let row = "cifar10-0,107,cifar10,8,512\n";
    let name = || "cifar10-0".to_owned();
    assert_eq!(load(row, &Reading::default()), Ok(vec![(name(), 1, 64)]));
    assert_eq!(load(row, &Reading::as_asked()), Ok(vec![(name(), 8, 8)]));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (row, place, hint) in [
        (
            "a,1,cifar11,8,512\n",
            "workload.csv:2: column `application`",
            "the nearest is `cifar10`",
        ),
        (
            "a,1,cifar10,8,5120\n",
            "workload.csv:2: column `batch_size`",
            "from 128 to 4096",
        ),
        (
            "a,-1,cifar10,8,512\n",
            "workload.csv:2: column `time`",
            "0 or more",
        ),
        (
            "a,1,cifar10,8.5,512\n",
            "workload.csv:2: column `num_replicas`",
            "whole number",
        ),
        (
            "a,1,cifar10,8,512\na,2,cifar10,8,512\n",
            "workload.csv:3",
            "drop or rename",
        ),
        ("a,1,cifar10\n", "workload.csv:2", "ends before column"),
    ] {
        let error = load(row, &Reading::default()).expect_err(row);
        assert!(error.starts_with(place) && error.contains(hint), "{error}");
    }
}

#[test]
fn a_damaged_archive_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("profiles.tar.gz");
    for contents in [&b"\x1f\x8b\x08\x00cut"[..], b"no tar at all", b""] {
        std::fs::write(&path, contents).expect("it can be written");
        let error = sia_profiles::read(&path, &GPU_TYPES).expect_err("nothing in it");
        assert!(error.to_string().contains("profiles.tar.gz"), "{error}");
    }
}

#[test]
fn the_published_setting_comes_out_as_its_authors_measured() {
    let Some(traces) = std::env::var_os("BERTH_TRACES").map(PathBuf::from) else {
        eprintln!("skipped: set BERTH_TRACES to the folder of traces");
        return;
    };
    let wanted = [
        ("philly/workload-3", "gavel"),
        ("saturn/workload-1", "gavel"),
        ("philly/workload-3", "sia"),
    ];
    for (case, reference) in cases(&traces).expect("the reference is there") {
        let is_wanted = wanted.contains(&(&case.workload, &case.policy));
        if case.setting != "het64" || !is_wanted {
            continue;
        }
        let (_, _, name) = rules(&case.policy).expect("it has rules");
        let mut policy = berth_policy::by_name(name).expect("it is listed");
        let compared = compare(&case, reference, &mut *policy, 0, &traces).expect("it runs");
        for (figure, ours, theirs, off, holds) in compared.rows() {
            assert!(
                holds,
                "{case:?}: {figure} {ours} where {theirs} was measured: {off}"
            );
        }
        if case.policy == "gavel" {
            // Nothing is left to chance there: job by job it is the same.
            assert!(
                compared.job_error.is_some_and(|error| error < 1e-3),
                "{case:?}"
            );
        }
    }
}

#[test]
fn nobody_is_faster_than_a_job_alone() {
    let Some(traces) = std::env::var_os("BERTH_TRACES").map(PathBuf::from) else {
        eprintln!("skipped: set BERTH_TRACES to the folder of traces");
        return;
    };
    for (case, reference) in cases(&traces).expect("the reference is there") {
        let is_wanted = ["sia", "pollux", "sia-oracle"].contains(&case.policy.as_str());
        if (case.setting.as_str(), case.workload.as_str()) != ("het64", "philly/workload-1")
            || !is_wanted
        {
            continue;
        }
        let outcome = twin::alone(&setting(&case, &traces).expect("it can be read"));
        let figures = outcome.figures("alone", &case.workload);
        assert_eq!(figures.completed, 160);
        assert!(
            figures.avg_jct_s / 3600.0 < 0.5 * reference.avg_jct_h,
            "{case:?}"
        );
        for (key, [ours, theirs, ..]) in per_job(&case, &outcome, &traces).expect("it is there") {
            assert!(
                ours <= theirs,
                "{case:?} {key}: {ours} s alone, {theirs} s measured"
            );
        }
    }
}
