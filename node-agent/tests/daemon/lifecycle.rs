//! From launch to a forgotten record.

use std::collections::BTreeMap;
use std::net::TcpListener;

use berth_types::{GpuShare, LaunchTask, TaskEvent, TaskInventory, TaskKey};

use crate::harness::{FakeMaster, Node, alive, key, shell, until};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_end_with_their_codes_and_signals() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let scripts = [
        "exit 0",
        "exit 3",
        "kill -9 $$",
        "kill -SEGV $$",
        "echo out; echo err >&2; exit 75",
    ];
    let launches = scripts
        .iter()
        .zip(1..)
        .map(|(script, job)| shell(key(job, 1, 0), script));
    master.launch(launches).await;
    for (job, code, reason) in [
        (1, 0, ""),
        (2, 3, ""),
        (3, 137, "killed by signal 9 (KILL)"),
        (4, 139, "killed by signal 11 (SEGV)"),
        (5, 75, ""),
    ] {
        let exit = master.ended(key(job, 1, 0)).await;
        assert_eq!(exit.code, code);
        assert!(exit.reason.starts_with(reason), "{exit:?}");
        assert!(!exit.node_fault);
    }
    assert_eq!(node.stdout(key(5, 1, 0)), "out\n");
    let stderr = std::fs::read_to_string(node.task_file(key(5, 1, 0), "stderr.log"));
    assert_eq!(stderr.unwrap(), "err\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_told_clearly() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let work = node.dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("noexec"), "echo hi").unwrap();
    std::fs::write(work.join("noshebang"), "\u{7f}garbage").unwrap();
    std::fs::write(work.join("badshebang"), "#!/does/not/exist\n").unwrap();
    for name in ["noshebang", "badshebang"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(work.join(name), mode).unwrap();
    }
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let commands = ["trian.py", "./noexec", "./noshebang", "./badshebang"];
    let mut launches: Vec<_> = (1..)
        .zip(commands)
        .map(|(job, command)| {
            let mut launch = shell(key(job, 1, 0), "");
            launch.command = vec![command.into()];
            launch.work_dir = work.display().to_string();
            launch
        })
        .collect();
    let mut port = shell(key(5, 1, 0), "true");
    port.master_port = held.local_addr().unwrap().port();
    let mut elsewhere = shell(key(6, 1, 0), "true");
    elsewhere.work_dir = "/does/not/exist".into();
    launches.extend([port, elsewhere]);
    master.launch(launches).await;
    for (job, code, node_fault, reason) in [
        (
            1,
            127,
            false,
            "command not found: `trian.py` (looked in PATH ",
        ),
        (2, 126, false, "it is not executable"),
        (
            3,
            126,
            false,
            "neither a program for this machine nor a script",
        ),
        (
            4,
            126,
            false,
            "the interpreter named in its first line does not exist",
        ),
        (5, -1, true, "is in use on this node"),
        (6, -1, false, "working directory /does/not/exist"),
    ] {
        let exit = master.ended(key(job, 1, 0)).await;
        assert_eq!((exit.code, exit.node_fault), (code, node_fault), "{exit:?}");
        assert!(
            exit.reason.contains(reason),
            "{exit:?} does not say {reason}"
        );
    }
}

/// A task on the second node of a gang that prints its environment, its directory and its open files.
fn second_worker_of_two_nodes(task: TaskKey) -> LaunchTask {
    let mut launch = shell(task, "env; pwd; exec ls /proc/self/fd");
    launch.env = BTreeMap::from([("MINE".into(), "1".into()), ("RANK".into(), "lie".into())]);
    launch.gpus = [1, 3]
        .map(|gpu| GpuShare {
            gpu,
            milligpu: 1_000,
        })
        .into();
    launch.world_size = 8;
    launch.local_rank = 1;
    launch.local_world_size = 4;
    launch.node_rank = 1;
    launch.node_names = vec!["gpu01".into(), "gpu02".into()];
    launch.millicpu = 2_500;
    launch.master_port = 20_017;
    launch.restart_count = 2;
    launch
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_exactly_what_is_promised() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(42, 3, 5);
    master.launch([second_worker_of_two_nodes(task)]).await;
    assert_eq!(master.ended(task).await.code, 0);
    let text = node.stdout(task);
    let env: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let root = node.layout().root().display().to_string();
    let checkpoints = format!("{root}/checkpoints/42/epoch-3");
    let task_dir = format!("{root}/tasks/42/3/5");
    let socket = format!("{root}/task.sock");
    for (name, value) in [
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "20017"),
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("NODE_RANK", "1"),
        ("CUDA_VISIBLE_DEVICES", "1,3"),
        ("SLURM_JOB_ID", "42"),
        ("SLURM_JOB_NAME", "test"),
        ("SLURM_JOB_NODELIST", "gpu[01-02]"),
        ("SLURM_NNODES", "2"),
        ("SLURM_NTASKS", "8"),
        ("SLURM_PROCID", "5"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "1"),
        ("SLURM_NTASKS_PER_NODE", "4"),
        ("SLURM_RESTART_COUNT", "2"),
        ("SLURM_GPUS_ON_NODE", "2"),
        ("SLURM_CPUS_PER_TASK", "3"),
        ("BERTH_JOB_ID", "42"),
        ("BERTH_ATTEMPT", "3"),
        ("BERTH_NODE_NAME", "gpu02"),
        ("BERTH_CHECKPOINT_DIR", &checkpoints),
        ("BERTH_RESUME_FROM", ""),
        ("BERTH_SOCKET", &socket),
        ("MINE", "1"),
    ] {
        assert_eq!(env.get(name), Some(&value), "{name}");
    }
    for absent in ["SECRET_OF_THE_AGENT", "BERTH_LOG", "CARGO_MANIFEST_DIR"] {
        assert_eq!(env.get(absent), None, "{absent}");
    }
    assert!(env.contains_key("PATH"));
    let rest: Vec<&str> = text.lines().filter(|line| !line.contains('=')).collect();
    // No file of the keeper, of the agent, or of whoever started them; 3 is the directory that is listed.
    assert_eq!(rest, [task_dir.as_str(), "0", "1", "2", "3"]);
    assert!(std::path::Path::new(&checkpoints).is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_asks_then_kills_the_whole_group() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let (polite, stubborn) = (key(1, 1, 0), key(2, 1, 0));
    let script = "sleep 1000 & echo $! $$; exec 1>&-; wait";
    let mut ignoring = shell(stubborn, &format!("trap '' TERM; {script}; sleep 1000"));
    ignoring.grace_ms = 300;
    master.launch([shell(polite, script), ignoring]).await;
    for task in [polite, stubborn] {
        master.running(task).await;
        until("it prints", || node.stdout(task).ends_with('\n')).await;
        master.tombstone(task).await;
    }
    for (task, code, signal) in [(polite, 143, "TERM"), (stubborn, 137, "KILL")] {
        let exit = master.ended(task).await;
        assert_eq!(exit.code, code);
        assert!(
            exit.reason.contains("scheduler") && exit.reason.contains(signal),
            "{exit:?}"
        );
        let pids: Vec<u32> = node
            .stdout(task)
            .split_whitespace()
            .map(|p| p.parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 2);
        until("its children end", || !pids.iter().any(|pid| alive(*pid))).await;
    }
    // Nothing that a tombstone has named starts, and a newer epoch does.
    master
        .launch([shell(key(1, 1, 1), "exit 9"), shell(key(1, 2, 0), "exit 4")])
        .await;
    assert_eq!(master.ended(key(1, 2, 0)).await.code, 4);
    assert!(!node.layout().task_dir(key(1, 1, 1)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn children_left_behind_end_with_their_task() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let task = key(1, 1, 0);
    master
        .launch([shell(task, "sleep 1000 & echo $!; exit 6")])
        .await;
    assert_eq!(master.ended(task).await.code, 6);
    let pid = node.stdout(task).trim().parse().unwrap();
    until("the child ends", || !alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_epoch_waits_for_the_older_one() {
    let master = FakeMaster::start().await;
    let node = Node::start(&[&master.address]);
    let mark = node.dir.path().join("alone");
    let script = format!(
        "mkdir {0} || exit 9; trap 'sleep 0.2; rmdir {0}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        mark.display()
    );
    master.launch([shell(key(1, 1, 0), &script)]).await;
    until("the first is up", || node.stdout(key(1, 1, 0)) == "up\n").await;
    let script = format!("mkdir {} && exit 5", mark.display());
    master.launch([shell(key(1, 2, 0), &script)]).await;
    assert_eq!(
        master.ended(key(1, 2, 0)).await.code,
        5,
        "it found the place empty"
    );
    let first = master.ended(key(1, 1, 0)).await;
    assert!(
        first.reason.contains("superseded by attempt 2"),
        "{first:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_stay_until_they_are_forgotten() {
    let master = FakeMaster::start().await;
    let mut node = Node::start(&[&master.address]);
    let tasks = [key(1, 1, 0), key(2, 1, 0)];
    master.launch(tasks.map(|task| shell(task, "exit 7"))).await;
    for task in tasks {
        master.ended(task).await;
    }
    // A repeated launch of an ended task starts nothing.
    master.launch([shell(tasks[0], "exit 8")]).await;
    node.kill_agent();
    node.start_agent();
    let inventory = master.inventory(1).await;
    for task in tasks {
        let state = inventory.iter().find(|(k, _)| *k == task).map(|(_, s)| s);
        assert!(
            matches!(state, Some(TaskInventory::Ended(exit)) if exit.code == 7),
            "{inventory:?}"
        );
    }
    master.forget(tasks[0]).await;
    master.launch([shell(key(3, 1, 0), "exit 0")]).await;
    master.ended(key(3, 1, 0)).await;
    node.stop_agent();
    node.start_agent();
    let keys: Vec<_> = master
        .inventory(2)
        .await
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    assert_eq!(keys, [tasks[1], key(3, 1, 0)]);
    let ends = |task| {
        let events = master.events();
        events
            .iter()
            .filter(
                |e| matches!(e, TaskEvent::State(k, TaskInventory::Running { .. }) if *k == task),
            )
            .count()
    };
    assert_eq!(ends(tasks[0]), 1, "it ran once");
}
