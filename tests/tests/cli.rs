//! The command line on a live cluster, as a user and as a script see it.
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::path::Path;
use std::time::Duration;

use berth_proto::v1::{JobState, NodeState};
use berth_tests::cluster::Output;
use berth_tests::{Client, Cluster, Plan, spec, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

async fn small() -> Cluster {
    let plan = Plan {
        masters: 1,
        agents: 2,
        ..Plan::default()
    };
    Cluster::start(plan).await.unwrap()
}

async fn ok(cluster: &Cluster, args: &[&str]) -> String {
    cluster.berth(args).await.unwrap().ok().unwrap()
}

async fn json(cluster: &Cluster, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.extend(["-o", "json"]);
    let text = ok(cluster, &all).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

/// A run that fails: its code, and what it says.
async fn fails(cluster: &Cluster, args: &[&str], code: i32, says: &[&str]) {
    let Output {
        code: got,
        out,
        err,
    } = cluster.berth(args).await.unwrap();
    assert_eq!(got, Some(code), "{args:?}: {out}{err}");
    assert!(err.starts_with("error: "), "{args:?}: {err}");
    assert_eq!(out, "", "{args:?}: an error belongs to standard error");
    for part in says {
        assert!(err.contains(part), "{args:?}: no `{part}` in\n{err}");
    }
}

fn job_file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn submit(cluster: &Cluster, name: &str, text: &str) -> String {
    let file = job_file(cluster.dir(), name, text);
    ok(cluster, &["submit", &file, "--parsable"])
        .await
        .trim()
        .to_owned()
}

async fn runs(client: &Client, id: &str) {
    let id = id.parse().unwrap();
    client
        .wait_state(id, JobState::Running, SOON)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_from_submission_to_cancellation() {
    let cluster = small().await;
    let client = cluster.client().unwrap();
    let text = "name = \"talker\"\ncommand = \"echo hello; echo oops >&2; exec sleep 600\"\ngpus = 1\ncpus = 0.1\n";
    let id = submit(&cluster, "talker.toml", text).await;
    runs(&client, &id).await;

    let table = ok(&cluster, &["jobs"]).await;
    let mut lines = table.lines();
    assert!(lines.next().unwrap().contains("JOBID"), "{table}");
    let line = lines.next().unwrap();
    assert!(line.contains("talker") && line.contains(" R "), "{table}");
    let listed = json(&cluster, &["jobs"]).await;
    assert_eq!(listed["jobs"][0]["id"], id.as_str());
    assert_eq!(listed["jobs"][0]["state"], "running");
    assert_eq!(ok(&cluster, &["squeue", "-o", "name"]).await.trim(), id);
    let job = json(&cluster, &["job", &id]).await;
    assert_eq!(job["name"], "talker");
    // A name will do where nothing is changed.
    assert_eq!(json(&cluster, &["job", "talker"]).await["id"], id.as_str());
    let yaml = ok(&cluster, &["job", &id, "-o", "yaml"]).await;
    assert!(yaml.contains("name: talker"), "{yaml}");
    wait::until("both lines are there", SOON, async || {
        let out = cluster
            .berth(&["logs", &id])
            .await
            .map_err(|e| e.to_string())?;
        let both = out.out.contains("hello\n") && (out.out + &out.err).contains("oops\n");
        if both {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await
    .unwrap();
    assert_eq!(ok(&cluster, &["logs", &id, "--stdout"]).await, "hello\n");

    let placed = ok(&cluster, &["why", &id, "--placed"]).await;
    assert!(placed.contains("n1") || placed.contains("n2"), "{placed}");
    let said = ok(&cluster, &["cancel", &id]).await;
    assert!(said.contains(&id), "{said}");
    client
        .wait_state(id.parse().unwrap(), JobState::Cancelled, SOON)
        .await
        .unwrap();
    assert_eq!(ok(&cluster, &["jobs", "-o", "name"]).await, "");
    let all = ok(&cluster, &["jobs", "--all", "-o", "name"]).await;
    assert_eq!(all.trim(), id);
    // Also after the task has ended, and by its attempt.
    let logs = ok(&cluster, &["logs", &id, "--attempt", "1", "--stdout"]).await;
    assert_eq!(logs, "hello\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_passes_output_and_exit_code_on() {
    let cluster = small().await;
    let text = "name = \"ends\"\ncommand = \"for i in 1 2 3; do echo line $i; sleep 0.2; done; exit 7\"\n\
                [restart]\nmax_restarts = 0\n";
    let file = job_file(cluster.dir(), "ends.toml", text);
    let waited = cluster.berth(&["submit", &file, "--logs"]).await.unwrap();
    assert_eq!(waited.code, Some(7), "{waited:?}");
    assert_eq!(waited.out, "line 1\nline 2\nline 3\n");
    let followed = cluster.berth(&["logs", "ends", "-f"]).await.unwrap();
    assert_eq!(followed.out, "line 1\nline 2\nline 3\n");
    let run = cluster
        .berth(&["run", "sh", "-c", "echo ran; exit 3"])
        .await
        .unwrap();
    assert_eq!(
        (run.code, run.out.as_str()),
        (Some(3), "ran\n"),
        "{}",
        run.err
    );
    let run = cluster
        .berth(&["run", "--", "sh", "-c", "kill -9 $$"])
        .await
        .unwrap();
    assert_eq!(run.code, Some(128 + 9), "{}", run.err);
    let missing = cluster
        .berth(&["run", "no-such-program-here"])
        .await
        .unwrap();
    assert!(
        matches!(missing.code, Some(126 | 127)) && missing.err.contains("no-such-program-here"),
        "{missing:?}"
    );
    let key = berth_tests::client::key();
    let twice = ["submit", &file, "--key", &key, "--parsable"];
    let (one, two) = (ok(&cluster, &twice).await, ok(&cluster, &twice).await);
    assert_eq!(one, two, "the same key makes one job");
    let yaml = job_file(
        cluster.dir(),
        "short.yaml",
        "name: short\ncommand: [\"true\"]\n",
    );
    ok(&cluster, &["submit", &yaml, "--wait"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_drained_and_waiting_is_explained() {
    let cluster = small().await;
    let client = cluster.client().unwrap();
    let nodes = json(&cluster, &["nodes"]).await;
    let names: Vec<&str> = nodes["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["n1", "n2"]);
    let table = ok(&cluster, &["nodes"]).await;
    assert!(table.contains("2 a100 (simulated)"), "{table}");

    ok(&cluster, &["drain", "n[1-2]", "--reason", "new disks"]).await;
    let node = client.node("n2").await.unwrap();
    assert_eq!(
        (node.state(), node.reason.as_str()),
        (NodeState::Draining, "new disks")
    );
    let id = submit(&cluster, "one.toml", "command = [\"true\"]\ngpus = 1\n").await;
    let why = json(&cluster, &["why", &id]).await;
    let text = why.to_string();
    assert!(!why["reason"].as_str().unwrap().is_empty(), "{why}");
    assert!(
        text.contains("drain"),
        "it does not say that the nodes drain: {why}"
    );
    ok(&cluster, &["undrain", "n1", "n2"]).await;
    let id: u64 = id.parse().unwrap();
    client
        .wait_state(id, JobState::Completed, SOON)
        .await
        .unwrap();

    let wide = "name = \"wide\"\nworkers = 4\ngpus = 1\ncommand = \"exec sleep 600\"\n";
    let wide = submit(&cluster, "wide.toml", wide).await;
    runs(&client, &wide).await;
    let id = submit(&cluster, "blocked.toml", "command = [\"true\"]\ngpus = 1\n").await;
    let why = wait::until("the reason is known", SOON, async || {
        let why = cluster
            .berth(&["why", &id])
            .await
            .map_err(|e| e.to_string())?;
        if why.out.contains("Resources") || why.out.contains("GPU") {
            Ok(why.out)
        } else {
            Err(why.out)
        }
    })
    .await;
    assert!(why.is_ok(), "{why:?}");
    fails(
        &cluster,
        &["node", "fence", "n1"],
        1,
        &["in contact", "hint: "],
    )
    .await;
    fails(&cluster, &["drain", "n9"], 3, &["n9"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_itself() {
    let plan = Plan {
        agents: 1,
        ..Plan::default()
    };
    let cluster = Cluster::start(plan).await.unwrap();
    let client = cluster.client().unwrap();
    let job = client.submit(&spec::shell("one", "true")).await.unwrap();
    client
        .wait_state(job, JobState::Completed, SOON)
        .await
        .unwrap();
    let masters = json(&cluster, &["masters"]).await;
    let masters = masters["masters"].as_array().unwrap();
    assert_eq!(masters.len(), 3);
    let leaders = masters.iter().filter(|master| master["leader"] == true);
    assert_eq!(leaders.count(), 1);
    let status = json(&cluster, &["status"]).await;
    assert_eq!(status["nodes"]["ready"], 1);
    assert_eq!(status["alarm"], "");
    let events = ok(&cluster, &["events", "-o", "json"]).await;
    let events: Vec<Value> = events
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    for kind in [
        "node.registered",
        "job.submitted",
        "job.started",
        "job.finished",
    ] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    let own = ok(&cluster, &["events", "--job", &job.to_string()]).await;
    assert!(
        own.contains("job.finished") && !own.contains("node."),
        "{own}"
    );

    ok(&cluster, &["backup", "saved"]).await;
    assert!(cluster.dir().join("saved").metadata().unwrap().len() > 0);
    fails(&cluster, &["masters", "remove", "9"], 3, &["9", "hint: "]).await;
    let followers: Vec<&str> = masters
        .iter()
        .filter(|master| master["leader"] == false)
        .map(|master| master["address"].as_str().unwrap())
        .collect();
    for follower in followers {
        let out = cluster
            .berth_at(follower, &["job", &job.to_string()])
            .await
            .unwrap();
        assert_eq!(
            out.code,
            Some(0),
            "through the follower {follower}: {out:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do_and_end_with_their_code() {
    let cluster = small().await;
    let dir = cluster.dir();
    let client = cluster.client().unwrap();
    for at in 0..12 {
        client
            .submit(&spec::shell(&format!("job-{at}"), "true"))
            .await
            .unwrap();
    }
    fails(&cluster, &["job", "4711"], 3, &["4711", "hint: "]).await;
    fails(&cluster, &["cancel", "4711"], 3, &["4711"]).await;
    fails(&cluster, &["logs", "4711"], 3, &["4711"]).await;
    fails(&cluster, &["node", "n9"], 3, &["n9"]).await;
    for _ in 0..2 {
        client.submit(&spec::shell("twin", "true")).await.unwrap();
    }
    fails(&cluster, &["job", "twin"], 3, &["twin"]).await;
    let unknown = job_file(dir, "unknown.toml", "comand = \"true\"\ngpus = -1\n");
    fails(
        &cluster,
        &["submit", &unknown],
        2,
        &["comand", "`command`", "gpus"],
    )
    .await;
    let large = job_file(dir, "large.toml", "command = \"true\"\ngpus = 3\n");
    fails(
        &cluster,
        &["submit", &large],
        1,
        &["resources.gpus", "no node has more than 2"],
    )
    .await;
    let broken = job_file(dir, "broken.toml", "command = [\n");
    fails(&cluster, &["submit", &broken], 2, &["TOML"]).await;
    fails(&cluster, &["submit", "absent.toml"], 1, &["absent.toml"]).await;
    fails(
        &cluster,
        &["jobs", "--state", "sleeping"],
        2,
        &["sleeping", "hint: "],
    )
    .await;
    let usage = cluster.berth(&["jbos"]).await.unwrap();
    assert_eq!(usage.code, Some(2), "{usage:?}");
    assert!(usage.err.contains("jobs"), "no nearest name: {}", usage.err);
    let nobody = cluster.berth_at("127.0.0.1:9", &["jobs"]).await.unwrap();
    assert_eq!(nobody.code, Some(69), "{nobody:?}");
    assert!(
        nobody.err.contains("127.0.0.1:9") && nobody.err.contains("hint: "),
        "{}",
        nobody.err
    );
    let jobs = client.jobs(true).await.unwrap();
    assert_eq!(jobs.len(), 14, "a refused submission made a job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_an_id_is_enough_to_look_and_not_to_change() {
    let cluster = small().await;
    let client = cluster.client().unwrap();
    let mut ids = Vec::new();
    for at in 0..11 {
        let job = spec::shell(&format!("name-{at}"), "sleep 600");
        ids.push(client.submit(&job).await.unwrap());
    }
    let tenth = ids[9].to_string();
    assert_eq!(tenth, "10", "ids count from 1");
    // `1` is a job of its own, and what it says counts.
    assert_eq!(json(&cluster, &["job", "1"]).await["id"], "1");
    client.cancel(1).await.unwrap();
    let cancelled = cluster.berth(&["cancel", "name-1"]).await.unwrap();
    assert_ne!(cancelled.code, Some(0), "{cancelled:?}");
    let job = client.job(ids[10]).await.unwrap();
    assert_ne!(
        job.state(),
        JobState::Cancelled,
        "an ambiguous name cancelled a job"
    );
}

/// What `berth what-if` says of one job.
fn asked(answer: &Value, key: &str, id: &str) -> Value {
    let jobs = answer["jobs"].as_array().unwrap();
    let id: u64 = id.parse().unwrap();
    let job = jobs.iter().find(|job| job["job"] == id);
    job.unwrap_or_else(|| panic!("no job {id} in {answer}"))[key].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_if_answers_from_a_live_cluster_and_changes_nothing() {
    let cluster = small().await;
    let client = cluster.client().unwrap();
    let text = |name: &str| {
        format!(
            "name = \"{name}\"\ncommand = \"exec sleep 600\"\ngpus = 2\ncpus = 0.1\nexpected = \"1h\"\n"
        )
    };
    let first = submit(&cluster, "first.toml", &text("first")).await;
    let second = submit(&cluster, "second.toml", &text("second")).await;
    runs(&client, &first).await;
    runs(&client, &second).await;
    let waits = submit(&cluster, "waits.toml", &text("waits")).await;

    let more = json(&cluster, &["what-if", "--add-nodes", "a100x2=1"]).await;
    let wait_s = asked(&more, "wait_s", &waits).as_f64().unwrap();
    assert!(
        (3_000.0..=3_600.0).contains(&wait_s),
        "it starts when one of both is over: {more}"
    );
    assert_eq!(asked(&more, "wait_changed_s", &waits), 0.0, "{more}");
    assert_eq!(more["now"]["gpus"], 4.0);
    assert_eq!(more["changed"]["gpus"], 6.0);

    let less = json(&cluster, &["what-if", "--drain", "n[1-2]"]).await;
    assert_eq!(
        asked(&less, "wait_changed_s", &waits),
        Value::Null,
        "{less}"
    );
    assert_eq!(less["changed"]["never"], 1, "{less}");
    let end_s = asked(&less, "end_changed_s", &first).as_f64().unwrap();
    assert!(end_s > 3_000.0, "what runs there finishes: {less}");

    let file = job_file(cluster.dir(), "new.toml", &text("new"));
    let new = json(
        &cluster,
        &["what-if", "--submit", &file, "--policy", "srtf"],
    )
    .await;
    assert_eq!(new["changed"]["policy"], "srtf");
    let added = &new["jobs"].as_array().unwrap()[0];
    assert_eq!(
        (&added["name"], &added["job"]),
        (&"new".into(), &Value::Null)
    );
    let table = ok(&cluster, &["what-if", "--submit", &file]).await;
    assert!(
        table.contains("(new)") && table.contains("STARTS IN"),
        "{table}"
    );

    let nodes = ["--add-nodes", "h100x8=1"];
    fails(
        &cluster,
        &[&["what-if"], &nodes[..]].concat(),
        1,
        &["h100x8", "a100x2"],
    )
    .await;
    let policy = ["what-if", "--policy", "strf"];
    fails(&cluster, &policy, 1, &["srtf"]).await;
    assert_eq!(client.nodes().await.unwrap().len(), 2);
    assert_eq!(client.jobs(true).await.unwrap().len(), 3);
}
