//! Three masters over real gRPC: any of them serves, and losing the leader loses nothing.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_proto::v1;
use berth_scheduler::Config;
use support::agent::{FakeAgent, node};
use support::{DEADLINE, Running, configs, error, free_ports, spec, submission};

struct Cluster {
    _dir: tempfile::TempDir,
    configs: Vec<Config>,
    masters: BTreeMap<u64, Running>,
}

impl Cluster {
    async fn start() -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let configs = configs(dir.path(), &free_ports(3));
        let mut masters = BTreeMap::new();
        for config in &configs {
            masters.insert(config.id.0, Running::start(config).await);
        }
        Cluster {
            _dir: dir,
            configs,
            masters,
        }
    }

    /// The leader as `via` sees it.
    async fn leader(&self, via: u64) -> u64 {
        let mut cluster = self.masters[&via].cluster();
        let members = cluster
            .members(v1::MembersRequest {})
            .await
            .expect("a leader is found")
            .into_inner();
        members
            .masters
            .iter()
            .find(|m| m.leader)
            .expect("one leads")
            .id
    }

    async fn stop_all(self) {
        for master in self.masters.into_values() {
            master.stop().await;
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it must not take that long")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_serves_and_passes_on() {
    within(async {
        let cluster = Cluster::start().await;
        let leader = cluster.leader(1).await;
        let follower = (1..=3).find(|id| *id != leader).expect("three masters");
        let mut jobs = cluster.masters[&follower].jobs();
        let mut events = jobs
            .watch(v1::WatchRequest {
                from_seq: 1,
                job: None,
            })
            .await
            .expect("watching")
            .into_inner();
        // An agent that knocks at a follower is sent to the leader.
        let mut lost = FakeAgent::connect(cluster.masters[&follower].channel(), &node("n1", 1))
            .await
            .expect("a stream");
        let redirect = loop {
            match lost
                .hear()
                .await
                .expect("no failure")
                .expect("no end before the redirect")
            {
                berth_proto::v1::master_message::Kind::Redirect(redirect) => break redirect,
                _ => continue,
            }
        };
        assert_eq!(redirect.leader_address, cluster.masters[&leader].address);
        let mut agent = FakeAgent::connect(cluster.masters[&leader].channel(), &node("n1", 1))
            .await
            .expect("registered");
        agent.output = b"from afar".to_vec();
        let agent = tokio::spawn(agent.obey());

        let submitted = jobs
            .submit(submission(1, &spec("a", 1000)))
            .await
            .expect("passed on")
            .into_inner();
        loop {
            let event = events.message().await.expect("no failure").expect("no end");
            if event.job == Some(submitted.job) && event.kind == "job.finished" {
                break;
            }
        }
        let request = v1::LogsRequest {
            job: submitted.job,
            ..Default::default()
        };
        let mut logs = jobs.logs(request).await.expect("passed on").into_inner();
        let mut output = Vec::new();
        while let Some(chunk) = logs.message().await.expect("no failure") {
            output.extend_from_slice(&chunk.data);
        }
        assert_eq!(output, b"from afar");
        let mut copy = cluster.masters[&follower]
            .cluster()
            .snapshot(v1::SnapshotRequest {})
            .await
            .expect("passed on")
            .into_inner();
        assert!(
            copy.message()
                .await
                .expect("no failure")
                .is_some_and(|c| !c.data.is_empty())
        );
        assert_eq!(
            error(jobs.get(v1::GetJobRequest { job: 77 }).await).reason,
            "JOB_NOT_FOUND"
        );
        agent.abort();
        drop((events, logs, copy, jobs));
        cluster.stop_all().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_outlives_its_leader() {
    within(async {
        let mut cluster = Cluster::start().await;
        let leader = cluster.leader(1).await;
        let mut accepted = Vec::new();
        for n in 0..20 {
            let via = n % 3 + 1;
            let mut jobs = cluster.masters[&via].jobs();
            accepted.push(
                jobs.submit(submission(n, &spec("a", 1000)))
                    .await
                    .expect("accepted")
                    .into_inner()
                    .job,
            );
        }
        cluster
            .masters
            .remove(&leader)
            .expect("it runs")
            .stop()
            .await;

        let survivor = *cluster.masters.keys().next().expect("two are left");
        let mut jobs = cluster.masters[&survivor].jobs();
        accepted.push(
            jobs.submit(submission(99, &spec("b", 1000)))
                .await
                .expect("accepted")
                .into_inner()
                .job,
        );
        assert_ne!(cluster.leader(survivor).await, leader);
        for job in &accepted {
            jobs.get(v1::GetJobRequest { job: *job })
                .await
                .expect("nothing is lost");
        }
        // The old leader comes back and knows everything, too.
        let config = cluster
            .configs
            .iter()
            .find(|c| c.id.0 == leader)
            .expect("configured");
        let back = Running::start(config).await;
        back.jobs()
            .get(v1::GetJobRequest { job: accepted[20] })
            .await
            .expect("nothing is lost");
        cluster.masters.insert(leader, back);
        drop(jobs);
        cluster.stop_all().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_joins_learns_everything_and_votes() {
    within(async {
        let mut cluster = Cluster::start().await;
        let mut jobs = cluster.masters[&1].jobs();
        let job = jobs
            .submit(submission(1, &spec("a", 1000)))
            .await
            .expect("accepted")
            .into_inner()
            .job;

        let mut config = configs(cluster._dir.path(), &free_ports(5)).remove(3);
        config.join = true;
        config.masters = cluster.configs[0].masters.clone();
        let joined = Running::start(&config).await;
        let add = v1::AddMasterRequest {
            id: 4,
            address: joined.address.clone(),
            replaces: None,
        };
        cluster.masters[&1]
            .cluster()
            .add_master(add)
            .await
            .expect("added");
        loop {
            let members = joined.cluster().members(v1::MembersRequest {}).await;
            let votes = |m: &v1::MembersResponse| m.masters.iter().any(|m| m.id == 4 && m.voter);
            if members.is_ok_and(|m| votes(m.get_ref())) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        joined
            .jobs()
            .get(v1::GetJobRequest { job })
            .await
            .expect("it knows the job");
        cluster.masters.insert(4, joined);
        drop(jobs);
        cluster.stop_all().await;
    })
    .await;
}
