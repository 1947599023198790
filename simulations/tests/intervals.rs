//! Policies that think at intervals are asked again when the interval is over, even if nothing happens until then.

use std::sync::Arc;

use berth_policy::registry;
use berth_sim::cluster;
use berth_sim::input::Source;
use berth_sim::load::{self, Extras, Format, Limits};
use berth_world::twin::{self, Setting};

const CLUSTER: &str = r#"
[gpu_models.a]

[[pools]]
name = "only"
gpu = "a"
nodes = 1
gpus_per_node = 4
"#;

/// A job a second, gone before the next round, and then silence.
const JOBS: &str = "job_id,submit_s,user,family,gpus,run_s,end,expected_s
0,0,u,f,1,3,completed,0
1,1,u,f,1,3,completed,0
2,2,u,f,2,3,completed,0
3,3,u,f,4,3,completed,0
";

#[test]
fn every_policy_finishes_what_comes_between_its_rounds() {
    for name in registry::NAMES {
        let cluster = cluster::read("c.toml", CLUSTER)
            .expect("it is sound")
            .cluster;
        let source = Source::memory("jobs.csv", JOBS).expect("it is in memory");
        let limits = Limits::of(&cluster);
        let loaded = load::load(Format::BerthCsv, source, &Extras::default(), &limits);
        let trace = loaded.expect("it is sound").trace;
        let setting = Setting::new(Arc::new(cluster), Arc::new(trace));
        let mut policy = registry::by_name(name).expect("it is listed");
        let outcome = twin::run(&setting, &mut *policy, &mut twin::unwatched).expect("it runs");
        assert_eq!(outcome.unfinished, 0, "{name}");
    }
}
