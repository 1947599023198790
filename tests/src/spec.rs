//! Jobs to submit.

use berth_proto::v1;

/// A job of one worker that runs `script` in a shell and needs next to nothing.
pub fn shell(name: &str, script: &str) -> v1::JobSpec {
    v1::JobSpec {
        name: name.to_owned(),
        user: "tests".to_owned(),
        queue: "default".to_owned(),
        groups: vec![v1::GroupSpec {
            name: "worker".to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            min_workers: 1,
            gang: Some(true),
            resources: Some(v1::Resources {
                millicpu: 100,
                ..Default::default()
            }),
            ..Default::default()
        }],
        grace_ms: Some(2_000),
        ..Default::default()
    }
}

/// Changes to a job, one after the other.
pub trait Shape: Sized {
    /// A gang of this many workers.
    fn workers(self, workers: u32) -> Self;
    /// Whole GPUs for each worker.
    fn gpus(self, gpus: u32) -> Self;
    /// What happens when a node is lost.
    fn on_lost_node(self, rule: v1::LostNodeRule) -> Self;
    /// Only nodes with this label.
    fn on_nodes_with(self, label: &str, value: &str) -> Self;
    /// Restarts after failures.
    fn max_restarts(self, restarts: u32) -> Self;
}

impl Shape for v1::JobSpec {
    fn workers(mut self, workers: u32) -> Self {
        self.groups[0].min_workers = workers;
        self
    }

    fn gpus(mut self, gpus: u32) -> Self {
        let resources = self.groups[0].resources.get_or_insert_default();
        resources.milligpu = gpus * 1000;
        self
    }

    fn on_lost_node(mut self, rule: v1::LostNodeRule) -> Self {
        let restart = self.restart.get_or_insert_default();
        restart.on_lost_node = rule.into();
        self
    }

    fn on_nodes_with(mut self, label: &str, value: &str) -> Self {
        let labels = &mut self.groups[0].node_labels;
        labels.insert(label.to_owned(), value.to_owned());
        self
    }

    fn max_restarts(mut self, restarts: u32) -> Self {
        let restart = self.restart.get_or_insert_default();
        restart.max_restarts = Some(restarts);
        self
    }
}
