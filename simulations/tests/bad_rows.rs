//! What can be wrong with a row, or with a whole file, in every format of recorded jobs.

use std::collections::HashMap;
use std::io::Write;

use berth_sim::cluster;
use berth_sim::input::{InputError, Source};
use berth_sim::load::{Extras, Format, Limits, Loaded, load, philly_gavel};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A format, a sound file of several jobs, and for each fault what is replaced by what and what is said then. An empty
/// text: the format cannot have this fault.
struct Case {
    format: Format,
    text: &'static str,
    /// A column under another name, or missing in a row where columns have no names.
    missing: [&'static str; 3],
    /// A duration below 0, or an end before its start.
    negative: [&'static str; 3],
    /// A job that was there before.
    again: [&'static str; 3],
    /// More GPUs than there are.
    large: [&'static str; 3],
}

const NONE: [&str; 3] = ["", "", ""];

const CASES: &[Case] = &[
    Case {
        format: Format::Philly,
        text: "timestamp,duration,num_gpus,gpu_time,cluster\n\
            2017-10-09 07:01:55,66.0,1,66.0,11cb48\n2017-10-09 06:01:55,10.0,2,20.0,6214e9\n",
        missing: ["num_gpus", "gpus", "x:1: column `num_gpus`"],
        negative: ["10.0,2", "-10.0,2", "x:3: column `duration`"],
        again: NONE,
        large: ["10.0,2", "10.0,640", "x:3: job "],
    },
    Case {
        format: Format::Philly,
        text: "vc,submitted_time,num_gpus,duration_s\n6214e9,2017-08-14 23:27:00,1,3613015\n",
        missing: ["num_gpus", "gpus", "x:1: column `num_gpus`"],
        negative: ["3613015", "-1", "x:2: column `duration_s`"],
        again: NONE,
        large: [",1,3613", ",640,3613", "x:2: job "],
    },
    Case {
        format: Format::Helios,
        text: "job_id,arrival_s,service_sec,gpu_count\na#0,100.0,50.5,1\nb#1,90.0,7.0,12\n",
        missing: ["arrival_s", "arrival", "x:1: column `arrival_s`"],
        negative: ["7.0", "-7.0", "x:3: column `service_sec`"],
        again: ["b#1", "a#0", "x:3: job `a#0` was on line 2 already"],
        large: [",12", ",640", "x:3: job `b#1` is larger"],
    },
    Case {
        format: Format::Pai,
        text: "job_id,arrival_s,service_sec,gpu_count\na#0,100.0,50.5,1\nb#1,90.0,7.0,12\n",
        missing: ["gpu_count", "gpus", "x:1: column `gpu_count`"],
        negative: ["7.0", "-7.0", "x:3: column `service_sec`"],
        again: ["b#1", "a#0", "x:3: job `a#0` was on line 2 already"],
        large: [",12", ",640", "x:3: job `b#1` is larger"],
    },
    Case {
        format: Format::Openb,
        text: "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
            p2,4000,1024,2,1000,,LS,Failed,10,40,20\np1,1000,0,1,460,,LS,Running,5,25,5\n",
        missing: ["gpu_milli", "gpu_mil", "x:1: column `gpu_milli`"],
        negative: ["5,25,5", "5,2,5", "x:3: column `deletion_time`"],
        again: [
            "p1,",
            "p2,",
            "x:3: column `name`: pod `p2` was on line 2 already",
        ],
        large: ["1,460", "64,1000", "x:3: job `p1` is larger"],
    },
    Case {
        format: Format::Dlrm,
        text: "instance_sn,role,app_name,cpu_request,gpu_request,memory_request,creation_time,deletion_time\n\
            i0,HN,app_0,2,1,12.0,,\ni1,CN,app_0,2,0,6.5,100,250\n",
        missing: ["gpu_request", "gpus", "x:1: column `gpu_request`"],
        negative: ["100,250", "100,50", "x:3: column `deletion_time`"],
        again: ["i1,", "i0,", "x:3: job `i0` was on line 2 already"],
        large: ["2,1,12.0", "2,64,12.0", "x:2: job `i0` is larger"],
    },
    Case {
        format: Format::Genai,
        text: "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,checkpoint_model_version_id\n\
            2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0000,M0000\n",
        missing: [
            "exec_time_seconds",
            "seconds",
            "x:1: column `exec_time_seconds`",
        ],
        negative: ["32.0", "-32.0", "x:2: column `exec_time_seconds`"],
        again: NONE,
        large: NONE,
    },
    Case {
        format: Format::Swf,
        text: "; Version: 2.2\n\
            1 0 5 60 4 -1 -1 4 120 -1 1 7 -1 -1 2 -1 -1 -1\n\
            3 20 5 60 8 -1 -1 8 -1 -1 0 8 -1 -1 2 -1 -1 -1\n",
        missing: ["3 20 5 60 8 -1", "3 20 5 60 8", "x:3: 17 fields where 18"],
        negative: ["3 20 5 60", "3 20 5 -60", "x:3: column `run time`"],
        again: ["3 20", "1 20", "x:3: job `1` was on line 2 already"],
        large: ["60 8 -1 -1 8", "60 640 -1 -1 640", "x:3: job `3` is larger"],
    },
    Case {
        format: Format::Sacct,
        text: "JobIDRaw|User|Partition|Submit|Start|End|State|Timelimit|AllocTRES\n\
            7|ann|gpu|2026-01-01T00:00:00|2026-01-01T00:01:00|2026-01-01T01:01:00|COMPLETED|02:00:00|cpu=1,gres/gpu=8,node=2\n\
            9|bob|gpu|2026-01-01T00:06:00|2026-01-01T00:06:10|2026-01-01T00:06:20|COMPLETED|1-00:00:00|gres/gpu=4,node=1\n",
        missing: ["State", "States", "x:1: column `State`"],
        negative: ["00:06:20", "00:06:05", "x:3: column `End`"],
        again: ["9|bob", "7|bob", "x:3: job `7` was on line 2 already"],
        large: ["gpu=4", "gpu=640", "x:3: job `9` is larger"],
    },
    Case {
        format: Format::BerthCsv,
        text: "job_id,submit_s,user,family,gpus,run_s,end,expected_s\n\
            1,0.25,user3,family12,4,903.118,completed,3600\n2,9,user3,family12,0.5,1,failed,0\n",
        missing: ["family", "kind", "x:1: column `family`"],
        negative: ["903.118", "-903.118", "x:2: column `run_s`"],
        again: ["\n2,", "\n1,", "x:3: job `1` was on line 2 already"],
        large: ["12,4,", "12,640,", "x:2: job `1` is larger"],
    },
    Case {
        format: Format::PhillyGavel,
        text: "R\tcd x\t--steps\t0\t1000\t5\t2\nR\tcd x\t--steps\t0\t2000\t6\t1\n",
        missing: ["\t6\t1", "\t6", "x:2: 6 fields where 7"],
        negative: ["2000", "-2000", "x:2: column `total_steps`"],
        again: NONE,
        large: ["\t6\t1", "\t6\t640", "x:2: job `x-2` is larger"],
    },
];

fn read(format: Format, bytes: impl Into<Vec<u8>>) -> Result<Loaded, InputError> {
    let cluster = cluster::open("sia-het64").expect("it is shipped").cluster;
    let limits = Limits::of(&cluster);
    let source = Source::memory("x", bytes).expect("memory can be read");
    match format {
        // The speeds of its types are in another file.
        Format::PhillyGavel => {
            let rates = HashMap::from([("R".to_owned(), 4.0)]);
            philly_gavel::read(source, &rates, &limits)
        }
        _ => load(format, source, &Extras::default(), &limits),
    }
}

#[test]
fn each_fault_of_each_format_is_told_with_its_place() {
    let mut wrongs = Vec::new();
    for case in CASES {
        read(case.format, case.text).unwrap_or_else(|e| panic!("{:?}: {e}", case.format));
        for [from, to, wanted] in [case.missing, case.negative, case.again, case.large] {
            if wanted.is_empty() {
                continue;
            }
            let wrong = case.text.replacen(from, to, 1);
            assert_ne!(wrong, case.text, "{from}");
            let said = read(case.format, wrong).map(|_| ());
            let said = said.map_err(|error| error.to_string());
            let is_told = |said: &String| said.starts_with(wanted) && said.contains("; hint: ");
            if !said.as_ref().is_err_and(is_told) {
                wrongs.push(format!(
                    "{:?}, {to}: {said:?} instead of {wanted}",
                    case.format
                ));
            }
        }
    }
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn a_file_that_is_cut_short_is_told_as_such_in_each_format() {
    for case in CASES {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed
            .write_all(case.text.as_bytes())
            .expect("it is memory");
        let packed = packed.finish().expect("it is memory");
        assert!(read(case.format, packed.clone()).is_ok());
        let cut = &packed[..packed.len() - 12];
        let said = read(case.format, cut).expect_err("it is cut").to_string();
        assert!(
            said.starts_with("x") && said.contains("cut short or damaged"),
            "{:?}: {said}",
            case.format
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_gavels_list_panic(bytes: Vec<u8>, at in 0usize..80) {
        let text = CASES.iter().find(|case| case.format == Format::PhillyGavel);
        let mut mixed = text.map(|case| case.text.as_bytes().to_vec()).unwrap_or_default();
        let at = at.min(mixed.len());
        let to = (at + bytes.len() / 2).min(mixed.len());
        mixed.splice(at..to, bytes.iter().copied());
        let _ = read(Format::PhillyGavel, mixed);
        let _ = read(Format::PhillyGavel, bytes);
    }
}
