//! Three masters over real gRPC: any of them serves, and losing the leader loses nothing.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::master_message::Kind;
use berth_scheduler::Config;
use support::agent::{FakeAgent, node};
use support::{Running, configs, error, free_ports, job, ok, output, spec, submit, within};

struct Cluster {
    dir: tempfile::TempDir,
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
            dir,
            configs,
            masters,
        }
    }

    /// The leader as `via` sees it.
    async fn leader(&self, via: u64) -> u64 {
        let members = ok(self.masters[&via].cluster().members(v1::MembersRequest {})).await;
        let leader = members.masters.iter().find(|m| m.leader);
        leader.expect("one leads").id
    }

    async fn leader_and_follower(&self) -> (&Running, &Running) {
        let leader = self.leader(1).await;
        let follower = (1..=3).find(|id| *id != leader).expect("three masters");
        (&self.masters[&leader], &self.masters[&follower])
    }

    async fn stop_all(self) {
        for master in self.masters.into_values() {
            master.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_knocks_at_a_follower_is_sent_to_the_leader() {
    within(async {
        let cluster = Cluster::start().await;
        let (leader, follower) = cluster.leader_and_follower().await;
        let mut agent = FakeAgent::connect(follower.channel(), &node("n1", 1))
            .await
            .expect("a stream");
        let redirect = loop {
            if let Some(Kind::Redirect(redirect)) = agent.hear().await.expect("no failure") {
                break redirect;
            }
        };
        assert_eq!(redirect.leader_address, leader.address);
        assert!(agent.hear().await.expect("no failure").is_none(), "the end");
        drop(agent);
        cluster.stop_all().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_serves_and_passes_on() {
    within(async {
        let cluster = Cluster::start().await;
        let (leader, follower) = cluster.leader_and_follower().await;
        let mut jobs = follower.jobs();
        let (from_seq, of) = (1, None);
        let mut events = ok(jobs.watch(v1::WatchRequest { from_seq, job: of })).await;
        let mut agent = FakeAgent::connect(leader.channel(), &node("n1", 1))
            .await
            .expect("registered");
        agent.output = b"from afar".to_vec();
        let agent = tokio::spawn(agent.obey());

        let id = submit(&mut jobs, 1, &spec("a", 1000)).await;
        loop {
            let event = events.message().await.expect("no failure").expect("no end");
            if event.job == Some(id) && event.kind == "job.finished" {
                break;
            }
        }
        assert_eq!(output(&mut jobs, id).await, b"from afar");
        let mut copy = ok(follower.cluster().snapshot(v1::SnapshotRequest {})).await;
        let chunk = copy.message().await.expect("no failure");
        assert!(chunk.is_some_and(|c| !c.data.is_empty()));
        let refused = error(jobs.get(v1::GetJobRequest { job: 77 }).await);
        assert_eq!(refused.reason, "JOB_NOT_FOUND");
        agent.abort();
        drop((events, copy, jobs));
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
            let mut jobs = cluster.masters[&(n % 3 + 1)].jobs();
            accepted.push(submit(&mut jobs, n, &spec("a", 1000)).await);
        }
        let old = cluster.masters.remove(&leader).expect("it runs");
        old.stop().await;

        let survivor = *cluster.masters.keys().next().expect("two are left");
        let mut jobs = cluster.masters[&survivor].jobs();
        accepted.push(submit(&mut jobs, 99, &spec("b", 1000)).await);
        assert_ne!(cluster.leader(survivor).await, leader);
        for id in &accepted {
            job(&mut jobs, *id).await;
        }
        // The old leader comes back and knows everything, too.
        let config = cluster.configs.iter().find(|c| c.id.0 == leader);
        let back = Running::start(config.expect("configured")).await;
        assert_eq!(job(&mut back.jobs(), accepted[20]).await.spec.name, "b");
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
        let id = submit(&mut cluster.masters[&1].jobs(), 1, &spec("a", 1000)).await;

        let mut config = configs(cluster.dir.path(), &free_ports(5)).remove(3);
        config.join = true;
        config.masters = cluster.configs[0].masters.clone();
        let joined = Running::start(&config).await;
        let add = v1::AddMasterRequest {
            id: 4,
            address: joined.address.clone(),
            replaces: None,
        };
        ok(cluster.masters[&1].cluster().add_master(add)).await;
        loop {
            let members = joined.cluster().members(v1::MembersRequest {}).await;
            let votes = |m: &v1::MembersResponse| m.masters.iter().any(|m| m.id == 4 && m.voter);
            if members.is_ok_and(|m| votes(m.get_ref())) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        job(&mut joined.jobs(), id).await;
        cluster.masters.insert(4, joined);
        cluster.stop_all().await;
    })
    .await;
}
