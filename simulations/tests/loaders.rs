//! Every workload format: what it gives, what is told of a file that is wrong, and that no bytes make it panic.

use std::io::Write;
use std::sync::Arc;

use berth_sim::cluster;
use berth_sim::input::{InputError, Source};
use berth_sim::load::{Extras, Format, Limits, Loaded, load};
use berth_world::twin::{End, Truth};
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;

const HELIOS: &str = "job_id,arrival_s,service_sec,gpu_count\na#0,100.0,50.5,1\nb#1,90.0,7.0,12\n";
const PHILLY: &str = "timestamp,duration,num_gpus,gpu_time,cluster\n\
    2017-10-09 07:01:55,66.0,1,66.0,11cb48\n2017-10-09 06:01:55,10.0,2,20.0,6214e9\n";
const RECOVERED: &str =
    "vc,submitted_time,num_gpus,duration_s\n6214e9,2017-08-14 23:27:00,1,3613015\n";
const GAVEL: &str = "ResNet-18\tcd x\t--steps\t0\t1000\t5\t2\n";
const DLRM: &str = "instance_sn,role,app_name,cpu_request,gpu_request,memory_request,creation_time,deletion_time\n\
    i0,HN,app_0,12,1,120.0,,\ni1,CN,app_0,12,0,64.5,100,250\n";
const SWF: &str = "; Version: 2.2\n; UnixStartTime: 1000\n\
    1 0 5 60 4 -1 -1 4 120 -1 1 7 -1 -1 2 -1 -1 -1\n\
    2 10 -1 -1 -1 -1 -1 4 120 -1 5 7 -1 -1 2 -1 -1 -1\n\
    3 20 5 60 8 -1 -1 8 -1 -1 0 8 -1 -1 2 -1 -1 -1\n";
const SACCT: &str = "JobIDRaw|User|Partition|Submit|Start|End|State|Timelimit|AllocTRES\n\
    7|ann|gpu|2026-01-01T00:00:00|2026-01-01T00:01:00|2026-01-01T01:01:00|COMPLETED|02:00:00|cpu=16,gres/gpu=8,mem=64G,node=2\n\
    7.batch|||2026-01-01T00:01:00|2026-01-01T00:01:00|2026-01-01T01:01:00|COMPLETED||cpu=8,node=1\n\
    8|bob|gpu|2026-01-01T00:05:00|Unknown|Unknown|PENDING|UNLIMITED|cpu=1,node=1\n\
    9|bob|gpu|2026-01-01T00:06:00|2026-01-01T00:06:10|2026-01-01T00:06:20|CANCELLED by 5|1-00:00:00|cpu=4,node=1\n";
const OURS: &str = "job_id,submit_s,user,family,gpus,run_s,end,expected_s\n\
    1,0.25,user3,family12,4,903.118,completed,3600\n2,9,user3,family12,0.5,1,failed,0\n";
const GENAI: &str = "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,checkpoint_model_version_id\n\
    2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0000,M0000\n2024-11-15 16:58:50,TXT_2_IMG,FAIL,,G0001,M0000\n";

fn read(format: Format, name: &str, bytes: impl Into<Vec<u8>>) -> Result<Loaded, InputError> {
    let source = Source::memory(name, bytes).expect("memory can be read");
    load(format, source, &Extras::default(), &Limits::none())
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed
        .write_all(text.as_bytes())
        .expect("memory can be written");
    packed.finish().expect("memory can be written")
}

/// Key, submission, workers x thousandths of GPUs, duration, of every job.
fn jobs(loaded: &Loaded) -> Vec<(String, u64, (u32, u32), u64)> {
    let jobs = loaded.trace.jobs.iter().map(|job| {
        let group = &job.spec.groups[0];
        let Truth::Rigid(rigid) = job.truth else {
            panic!("{} has no recorded duration", job.key)
        };
        let workers = (group.min_workers, group.resources.milligpu);
        (job.key.clone(), job.submit_ms, workers, rigid.run_ms)
    });
    jobs.collect()
}

fn job(
    key: &str,
    submit_ms: u64,
    workers: (u32, u32),
    run_ms: u64,
) -> (String, u64, (u32, u32), u64) {
    (key.to_owned(), submit_ms, workers, run_ms)
}

#[test]
fn helios_and_pai_are_sorted_and_start_at_zero() {
    for format in [Format::Helios, Format::Pai] {
        let loaded = read(format, "x/jobs.csv", HELIOS).expect("it is sound");
        assert_eq!(loaded.trace.name, "x/jobs");
        // 12 GPUs are no whole nodes of 8: the largest equal workers are of 4.
        let wanted = [
            job("b#1", 0, (3, 4_000), 7_000),
            job("a#0", 10_000, (1, 1_000), 50_500),
        ];
        assert_eq!(jobs(&loaded), wanted);
    }
}

#[test]
fn compressed_files_are_told_by_their_content() {
    let plain = read(Format::Helios, "jobs.csv", HELIOS).expect("it is sound");
    let packed = read(Format::Helios, "jobs.csv", gzip(HELIOS)).expect("it is sound");
    assert_eq!(plain.trace, packed.trace);
}

#[test]
fn philly_knows_its_virtual_clusters() {
    let loaded = read(Format::Philly, "jobs.csv", PHILLY).expect("it is sound");
    assert_eq!(loaded.began_s, Some(1_507_528_915));
    let wanted = [
        job("6214e9-2", 0, (1, 2_000), 10_000),
        job("11cb48-1", 3_600_000, (1, 1_000), 66_000),
    ];
    assert_eq!(jobs(&loaded), wanted);
    assert_eq!(loaded.trace.jobs[0].spec.queue, "6214e9");
    assert!(loaded.trace.jobs[0].spec.groups[0].node_labels.is_empty());
    let loaded = read(Format::Philly, "jobs.csv", RECOVERED).expect("it is sound");
    assert_eq!(jobs(&loaded)[0].3, 3_613_015_000);
    let text = "name = \"vcs\"\n[gpu_models.gpu]\n[[pools]]\nname = \"p\"\ngpu = \"gpu\"\nnodes = 1\n\
        gpus_per_node = 8\nlabels = { vc = \"6214e9\" }";
    let cluster = cluster::read("c.toml", text).expect("it is sound").cluster;
    let limits = Limits::of(&cluster);
    let source = Source::memory("jobs.csv", RECOVERED).expect("memory can be read");
    let loaded = load(Format::Philly, source, &Extras::default(), &limits).expect("it is sound");
    assert_eq!(
        loaded.trace.jobs[0].spec.groups[0].node_labels["vc"],
        "6214e9"
    );
}

#[test]
fn gavel_jobs_last_as_long_as_their_steps_take() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("11cb48.trace");
    std::fs::write(&trace, GAVEL).expect("it can be written");
    let open = || {
        let source = Source::open(&trace).expect("it is there");
        load(
            Format::PhillyGavel,
            source,
            &Extras::default(),
            &Limits::none(),
        )
    };
    if std::env::var_os("BERTH_TRACES").is_none() {
        let error = open().expect_err("no rates").to_string();
        assert!(error.contains("name it with --profiles"), "{error}");
    }
    let rates = folder.path().join("gavel_v100_steps_per_s.csv");
    std::fs::write(&rates, "job_type,v100_steps_per_s\n\"ResNet-18\",4\n")
        .expect("it can be written");
    assert_eq!(
        jobs(&open().expect("it is sound")),
        [job("11cb48-1", 0, (1, 2_000), 250_000)]
    );
    std::fs::write(&rates, "job_type,v100_steps_per_s\nResNet-50,4\n").expect("it can be written");
    let error = open().expect_err("unknown type").to_string();
    assert!(
        error.contains("11cb48.trace:1: column `job_type`: no rate is known"),
        "{error}"
    );
    assert!(error.contains("the nearest is `ResNet-50`"), "{error}");
}

#[test]
fn dlrm_instances_live_from_creation_to_deletion() {
    let loaded = read(Format::Dlrm, "instances.csv", DLRM).expect("it is sound");
    let wanted = [
        job("i0", 0, (1, 1_000), u64::MAX),
        job("i1", 100_000, (1, 0), 150_000),
    ];
    assert_eq!(jobs(&loaded), wanted);
    let resources = &loaded.trace.jobs[1].spec.groups[0].resources;
    assert_eq!(
        (resources.millicpu, resources.mem_bytes),
        (12_000, 129 << 29)
    );
}

#[test]
fn swf_processors_are_gpus_and_jobs_that_never_ran_are_left_out() {
    let loaded = read(Format::Swf, "log.swf", SWF).expect("it is sound");
    let wanted = [
        job("1", 0, (1, 4_000), 60_000),
        job("3", 20_000, (1, 8_000), 60_000),
    ];
    assert_eq!(jobs(&loaded), wanted);
    assert_eq!(loaded.began_s, Some(1_000));
    assert_eq!(loaded.skipped, [("it never ran", 1)]);
    let spec = &loaded.trace.jobs[0].spec;
    assert_eq!(
        (spec.expected_ms, spec.user.as_str(), spec.queue.as_str()),
        (120_000, "user7", "queue2")
    );
    let Truth::Rigid(rigid) = loaded.trace.jobs[1].truth else {
        panic!("it is recorded")
    };
    assert_eq!(rigid.end, End::Failed);
}

#[test]
fn sacct_gives_jobs_and_not_their_steps() {
    let loaded = read(Format::Sacct, "sacct.txt", SACCT).expect("it is sound");
    let wanted = [
        job("7", 0, (2, 4_000), 3_600_000),
        job("9", 360_000, (1, 0), 10_000),
    ];
    assert_eq!(jobs(&loaded), wanted);
    assert_eq!(
        loaded.skipped,
        [("a step of a job", 1), ("it never started", 1)]
    );
    let spec = &loaded.trace.jobs[0].spec;
    assert_eq!((spec.user.as_str(), spec.expected_ms), ("ann", 7_200_000));
    let resources = &spec.groups[0].resources;
    assert_eq!((resources.millicpu, resources.mem_bytes), (8_000, 32 << 30));
}

#[test]
fn our_own_table_keeps_families_and_parts_of_a_gpu() {
    let loaded = read(Format::BerthCsv, "made.csv", OURS).expect("it is sound");
    let wanted = [
        job("1", 250, (1, 4_000), 903_118),
        job("2", 9_000, (1, 500), 1_000),
    ];
    assert_eq!(jobs(&loaded), wanted);
    assert_eq!(loaded.trace.jobs[1].spec.name, "family12");
}

/// A sound file, what is replaced in it by what, and what is said then.
type Fault = (
    Format,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const FAULTS: &[Fault] = &[
    (
        Format::Helios,
        HELIOS,
        "100.0",
        "-100.0",
        "x.csv:2: column `arrival_s`: `-100.0` is negative; hint: seconds",
    ),
    (
        Format::Helios,
        HELIOS,
        "50.5",
        "long",
        "x.csv:2: column `service_sec`: `long` is no number",
    ),
    (
        Format::Helios,
        HELIOS,
        "50.5",
        "",
        "x.csv:2: column `service_sec`: empty",
    ),
    (
        Format::Helios,
        HELIOS,
        "50.5",
        "inf",
        "x.csv:2: column `service_sec`: `inf` is no number",
    ),
    (
        Format::Helios,
        HELIOS,
        "50.5",
        "1e300",
        "x.csv:2: column `service_sec`: `1e300` seconds are over",
    ),
    (
        Format::Helios,
        HELIOS,
        "b#1",
        "a#0",
        "x.csv:3: job `a#0` was on line 2 already",
    ),
    (
        Format::Helios,
        HELIOS,
        ",12",
        ",1.5",
        "x.csv:3: column `gpu_count`: `1.5` is not possible",
    ),
    (
        Format::Helios,
        HELIOS,
        ",12",
        "",
        "x.csv:3: 3 fields where 4 are expected; hint: the row ends before column `gpu_count`",
    ),
    (
        Format::Helios,
        HELIOS,
        ",12",
        ",12,9",
        "x.csv:3: 5 fields where 4 are expected",
    ),
    (
        Format::Helios,
        HELIOS,
        "gpu_count",
        "gpus_count",
        "x.csv:1: column `gpu_count`: this column is missing; hint: rename `gpus_count`",
    ),
    (
        Format::Pai,
        HELIOS,
        HELIOS,
        "",
        "x.csv:1: the file is empty",
    ),
    (
        Format::Philly,
        PHILLY,
        "2017-10-09 07:01:55",
        "2017-13-09 07:01:55",
        "x.csv:2: column `timestamp`: `2017-13-09 07:01:55` is no date",
    ),
    (
        Format::Philly,
        PHILLY,
        "66.0,1,",
        "-66.0,1,",
        "x.csv:2: column `duration`: `-66.0` is negative",
    ),
    (
        Format::Dlrm,
        DLRM,
        "100,250",
        "100,50",
        "x.csv:3: column `deletion_time`: `50` is before creation_time",
    ),
    (
        Format::Dlrm,
        DLRM,
        "i1",
        "i0",
        "x.csv:3: job `i0` was on line 2 already",
    ),
    (
        Format::Swf,
        SWF,
        "3 20 5",
        "3 8 5",
        "x.csv:5: column `submit time`: earlier than the job before",
    ),
    (
        Format::Swf,
        SWF,
        "3 20 5 60",
        "3 20 5 -60",
        "x.csv:5: column `run time`: `-60` is negative",
    ),
    (
        Format::Swf,
        SWF,
        "3 20",
        "3 soon",
        "x.csv:5: column `submit time`: `soon` is no number",
    ),
    (
        Format::Swf,
        SWF,
        "3 20 5 60 8",
        "3 20 5 60",
        "x.csv:5: 17 fields where 18 are expected",
    ),
    (
        Format::Sacct,
        SACCT,
        "T01:01:00|COMPLETED|02",
        "T00:00:30|COMPLETED|02",
        "x.csv:2: column `End`: `2026-01-01T00:00:30` is before",
    ),
    (
        Format::Sacct,
        SACCT,
        "gres/gpu=8",
        "gres/gpu=many",
        "x.csv:2: column `AllocTRES`",
    ),
    (
        Format::Sacct,
        SACCT,
        "02:00:00",
        "forever",
        "x.csv:2: column `Timelimit`: `forever` is no duration",
    ),
    (
        Format::Sacct,
        SACCT,
        "AllocTRES",
        "Alloc",
        "x.csv:1: column `AllocTRES`: this column is missing",
    ),
    (
        Format::Sacct,
        SACCT,
        "9|bob",
        "7|bob",
        "x.csv:5: job `7` was on line 2 already",
    ),
    (
        Format::BerthCsv,
        OURS,
        "completed",
        "done",
        "x.csv:2: column `end`: `done` is no end of a job",
    ),
    (
        Format::BerthCsv,
        OURS,
        "0.5",
        "1.5",
        "x.csv:3: column `gpus`: `1.5` is not possible",
    ),
    (
        Format::Genai,
        GENAI,
        "2024-11-15 16:57:50",
        "yesterday",
        "x.csv:2: column `gmt_create`: `yesterday` is no date",
    ),
];

#[test]
fn what_is_wrong_is_told_with_file_line_and_column() {
    for (format, text, from, to, wanted) in FAULTS {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(&wrong, text, "{from}");
        let error = read(*format, "x.csv", wrong).expect_err(to).to_string();
        assert!(error.starts_with(wanted), "{format:?} {to}: {error}");
        assert!(error.contains("; hint: "), "{error}");
    }
}

#[test]
fn a_truncated_gzip_is_told_as_such() {
    let many: String = (0..5_000)
        .map(|n| format!("{n},{n}.5,{},1\n", n * 7_919 % 4_001))
        .collect();
    let packed = gzip(&format!("job_id,arrival_s,service_sec,gpu_count\n{many}"));
    assert!(read(Format::Helios, "x.csv.gz", packed.clone()).is_ok());
    let error =
        read(Format::Helios, "x.csv.gz", &packed[..packed.len() / 2]).expect_err("it is cut");
    assert!(matches!(error, InputError::Compressed { .. }), "{error:?}");
    let error = error.to_string();
    assert!(
        error.starts_with("x.csv.gz:") && error.contains("cut short or damaged"),
        "{error}"
    );
    let error = read(Format::Swf, "x.swf.gz", &packed[..40])
        .expect_err("it is cut")
        .to_string();
    assert!(error.contains("cut short or damaged"), "{error}");
}

#[test]
fn a_job_larger_than_the_cluster_is_refused_or_left_out() {
    let cluster = cluster::open("sia-het64").expect("it is shipped").cluster;
    let mut limits = Limits::of(&cluster);
    let text = HELIOS.replace(",12", ",88");
    let open = |limits: &Limits| {
        let source = Source::memory("x.csv", text.as_bytes()).expect("memory can be read");
        load(Format::Helios, source, &Extras::default(), limits)
    };
    let error = open(&limits).expect_err("88 GPUs").to_string();
    assert!(
        error.starts_with("x.csv:3: job `b#1` is larger than the cluster: 11 x 8 GPUs where 5 fit"),
        "{error}"
    );
    limits.skip_oversized = true;
    let loaded = open(&limits).expect("it is left out");
    assert_eq!((loaded.trace.jobs.len(), loaded.oversized), (1, 1));
}

#[test]
fn recorded_traces_are_read_whole() {
    let Some(traces) = berth_sim::input::traces_dir() else {
        eprintln!("skipped: set BERTH_TRACES to the folder of traces");
        return;
    };
    let cases = [
        (Format::Helios, "helios-venus-2020/jobs.csv.gz", 99_707),
        (Format::Philly, "philly-2017/jobs.csv.gz", 70_783),
        (
            Format::Philly,
            "philly-2017/derived_jobs_ge20min.csv.gz",
            11_242,
        ),
        (
            Format::PhillyGavel,
            "philly-2017/gavel_msr_seed0/103959.trace.gz",
            0,
        ),
        (Format::Pai, "alibaba-pai-2020/jobs_sample.csv.gz", 42_409),
        (Format::Dlrm, "alibaba-dlrm-2025/instances.csv.gz", 17_822),
    ];
    for (format, file, wanted) in cases {
        let source = Source::open(&traces.join(file)).expect("it is there");
        let loaded = load(format, source, &Extras::default(), &Limits::none());
        let found = loaded.expect(file).trace.jobs.len();
        assert!(
            found == wanted || (wanted == 0 && found > 100),
            "{file}: {found}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_loader_panic(bytes: Vec<u8>, at in 0usize..300, packed: bool) {
        for (format, text) in [
            (Format::Helios, HELIOS), (Format::Philly, PHILLY), (Format::Philly, RECOVERED),
            (Format::Dlrm, DLRM), (Format::Swf, SWF), (Format::Sacct, SACCT),
            (Format::BerthCsv, OURS), (Format::Genai, GENAI),
        ] {
            let mut mixed = text.as_bytes().to_vec();
            let at = at.min(mixed.len());
            mixed.splice(at..(at + bytes.len() / 2).min(mixed.len()), bytes.iter().copied());
            if packed {
                mixed = gzip(&String::from_utf8_lossy(&mixed));
                mixed.truncate(mixed.len() - at.min(mixed.len()));
            }
            let _ = read(format, "any", mixed);
        }
        // Those two read another file first, which costs more than all the rest.
        let costly = [Format::Sia, Format::PhillyGavel];
        for format in Format::value_variants().iter().filter(|format| !costly.contains(format)) {
            let _ = read(*format, "any", bytes.clone());
        }
    }

    #[test]
    fn jobs_come_in_order_and_never_exceed_the_cluster(times in proptest::collection::vec((0u32..9_000, 1u32..200), 1..40)) {
        let rows: String = (0..).zip(&times).map(|(n, (at, gpus))| format!("{n},{at},5,{gpus}\n")).collect();
        let text = format!("job_id,arrival_s,service_sec,gpu_count\n{rows}");
        let cluster = Arc::new(cluster::open("sia-hom64-t4").expect("it is shipped").cluster);
        let mut limits = Limits::of(&cluster);
        limits.skip_oversized = true;
        let source = Source::memory("x.csv", text).expect("memory can be read");
        let loaded = load(Format::Helios, source, &Extras::default(), &limits).expect("it is sound");
        let kept = times.iter().filter(|(_, gpus)| *gpus <= 64).count();
        assert!(loaded.trace.jobs.is_sorted_by_key(|job| job.submit_ms));
        assert_eq!(loaded.trace.jobs.len(), kept);
    }
}
