use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::*;

const KEY: TaskKey = TaskKey {
    job: JobId(7),
    epoch: Epoch(2),
    rank: Rank(0),
};

/// A directory that looks like a group with these controllers.
fn fake(controllers: &str) -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place {
        dir: dir.path().join("berth"),
        name: "/berth".into(),
    };
    std::fs::create_dir(&place.dir).unwrap();
    std::fs::write(place.dir.join("cgroup.controllers"), controllers).unwrap();
    std::fs::write(place.dir.join("cgroup.procs"), "").unwrap();
    (dir, place)
}

fn read(tree: &Tree, file: &str) -> Option<String> {
    std::fs::read_to_string(tree.dir(KEY).join(file)).ok()
}

#[test]
fn limits_are_the_jobs_resources() {
    let (_dir, place) = fake("cpuset cpu io memory pids\n");
    let tree = Tree::open(place).unwrap();
    assert_eq!(tree.isolation().enforced, ["cpu", "memory", "pids"]);
    assert_eq!(tree.isolation().note, "devices not enforced");
    let limits = Limits {
        millicpu: 2_500,
        mem_bytes: 3 << 30,
        pids: 512,
    };
    tree.make(KEY, &limits).unwrap();
    for (file, value) in [
        ("cpu.max", "250000 100000"),
        ("memory.max", "3221225472"),
        ("memory.oom.group", "1"),
        ("pids.max", "512"),
    ] {
        assert_eq!(read(&tree, file).as_deref(), Some(value), "{file}");
    }
}

#[test]
fn a_share_below_the_kernels_least_is_raised_and_none_is_none() {
    let (_dir, place) = fake("cpu memory pids");
    let tree = Tree::open(place).unwrap();
    let limits = Limits {
        millicpu: 1,
        ..Limits::default()
    };
    tree.make(KEY, &limits).unwrap();
    assert_eq!(read(&tree, "cpu.max").as_deref(), Some("1000 100000"));
    assert_eq!(read(&tree, "memory.max"), None);
    assert_eq!(read(&tree, "pids.max"), None);
}

#[test]
fn what_the_host_does_not_offer_is_not_written_and_said() {
    let (_dir, place) = fake("memory hugetlb");
    let tree = Tree::open(place).unwrap();
    let isolation = tree.isolation();
    assert_eq!(isolation.enforced, ["memory"]);
    assert!(
        isolation.note.starts_with("cpu, pids not limited"),
        "{isolation}"
    );
    let limits = Limits {
        millicpu: 1_000,
        mem_bytes: 1 << 20,
        pids: 5,
    };
    tree.make(KEY, &limits).unwrap();
    assert_eq!(read(&tree, "cpu.max"), None);
    assert_eq!(read(&tree, "memory.max").as_deref(), Some("1048576"));
}

#[test]
fn processes_are_moved_out_before_children_are_limited() {
    let (_dir, place) = fake("memory");
    std::fs::write(place.dir.join("cgroup.procs"), "17\n").unwrap();
    let tree = Tree::open(place).unwrap();
    let inner = tree.place().dir.join(SUPERVISOR).join("cgroup.procs");
    assert_eq!(std::fs::read_to_string(inner).unwrap(), "17");
}

#[test]
fn a_group_has_one_keeper_and_a_directory_without_controllers_is_none() {
    let (_dir, place) = fake("memory");
    let first = Tree::open(place.clone()).unwrap();
    let second = Tree::open(place.clone()).unwrap_err();
    assert!(second.contains("another keeper"), "{second}");
    drop(first);
    std::fs::remove_file(place.dir.join("cgroup.controllers")).unwrap();
    assert!(
        Tree::open(place)
            .unwrap_err()
            .contains("cgroup.controllers")
    );
}

#[test]
fn memory_that_ran_out_is_told() {
    let (_dir, place) = fake("memory");
    let tree = Tree::open(place).unwrap();
    tree.make(KEY, &Limits::default()).unwrap();
    assert_eq!(tree.oom_kills(KEY), 0);
    let events = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n";
    std::fs::write(tree.dir(KEY).join("memory.events"), events).unwrap();
    assert_eq!(tree.oom_kills(KEY), 3);
}

#[test]
fn a_process_is_told_by_its_group() {
    let task = |cgroup| task_of("/system.slice/berth.scope", cgroup);
    assert_eq!(task("/system.slice/berth.scope/task-7.2.0"), Some(KEY));
    assert_eq!(
        task("/system.slice/berth.scope/task-7.2.0/inner/x"),
        Some(KEY)
    );
    for other in [
        "/system.slice/berth.scope",
        "/system.slice/berth.scope/supervisor",
        "/system.slice/berth.scope/task-7.2",
        "/system.slice/berth.scope/task-7.2.0.1",
        "/system.slice/berth.scope/task-7.2.x",
        "/system.slice/berth.scopetask-7.2.0",
        "/other/task-7.2.0",
        "/",
    ] {
        assert_eq!(task(other), None, "{other}");
    }
}

/// A group of the real kernel for one test, if this machine lets us make one.
struct Real(Tree);

impl Real {
    #[allow(clippy::print_stderr)]
    fn make(name: &str) -> Option<Self> {
        let made = || -> Result<Tree, String> {
            let mount = Mount::of_host().ok_or("no control groups of version 2 are mounted")?;
            let dir = mount
                .point
                .join(format!("berth-test-{name}-{}", std::process::id()));
            Tree::open_at(&dir)
        };
        match made() {
            Ok(tree) => Some(Self(tree)),
            Err(why) => {
                eprintln!(
                    "this machine gives the test no real control group ({why}): only the way without is checked here"
                );
                None
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.0.sweep();
        let _ = std::fs::remove_dir(&self.0.place.dir);
    }
}

/// A shell in the group, whose child is in a session of its own, out of reach of signals to the process group.
fn gang_member(tree: Option<&Tree>) -> Child {
    // Without a group nothing would end what left the session.
    let script = match tree {
        Some(_) => "setsid sleep 600 & sleep 600",
        None => "sleep 600 & sleep 600",
    };
    let mut command = Command::new("sh");
    command.args(["-c", script]).process_group(0);
    if let Some(tree) = tree {
        let procs = tree.make(KEY, &Limits::default()).unwrap();
        crate::cgroup::enter::before_exec(&mut command, procs);
    }
    command.spawn().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_write_ends_a_gang_of_real_processes() {
    let Some(real) = Real::make("gang") else {
        // The way without control groups: what a keeper does, and what it cannot reach.
        let mut child = gang_member(None);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(pid, Signal::KILL).unwrap();
        assert!(!child.wait().unwrap().success());
        return;
    };
    let tree = &real.0;
    let mut child = gang_member(Some(tree));
    let procs = || read(tree, "cgroup.procs").unwrap_or_default();
    until("three processes in the group", || {
        procs().lines().count() == 3
    });
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let name = super::super::place::name_in(&cgroup).unwrap();
    assert_eq!(task_of(&tree.place().name, name), Some(KEY));
    assert!(!tree.remove(KEY), "it is in use");
    tree.kill(KEY);
    assert!(!child.wait().unwrap().success());
    until("nothing is left", || tree.remove(KEY));
}

#[test]
fn what_an_earlier_keeper_left_is_ended() {
    let Some(real) = Real::make("sweep") else {
        return;
    };
    let mut child = gang_member(Some(&real.0));
    let waiter = std::thread::spawn(move || child.wait().unwrap());
    assert_eq!(real.0.sweep(), Ok(1));
    assert!(!waiter.join().unwrap().success());
    assert_eq!(real.0.sweep(), Ok(0));
}
