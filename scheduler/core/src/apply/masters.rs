//! The cluster's identity, its masters' addresses and its version. Who votes is Raft's own record.

use berth_types::MasterId;
use berth_types::api::MasterInfo;

use super::{Rejection, transition::Transition};

impl Transition<'_> {
    pub(super) fn bootstrap(
        &mut self,
        cluster_id: u64,
        masters: &[(MasterId, MasterInfo)],
    ) -> Result<(), Rejection> {
        if self.state.cluster_id != 0 {
            return Err(Rejection::AlreadyBootstrapped);
        }
        if cluster_id == 0 || masters.is_empty() {
            return Err(Rejection::BadBootstrap);
        }
        self.state.cluster_id = cluster_id;
        self.state.cluster_version = 1;
        for (id, info) in masters {
            self.state.masters.insert(*id, info.clone());
        }
        let text = format!(
            "cluster {cluster_id:016x} begins with {} masters",
            masters.len()
        );
        self.event("cluster.bootstrapped", None, None, text);
        Ok(())
    }

    pub(super) fn set_master(
        &mut self,
        id: MasterId,
        info: Option<&MasterInfo>,
    ) -> Result<(), Rejection> {
        let known = self.state.masters.get(&id);
        match info {
            Some(info) if known == Some(info) => {}
            Some(info) if id.0 == 0 || info.address.is_empty() => {
                return Err(Rejection::BadMaster(id));
            }
            Some(info) => {
                let (kind, verb) = match known {
                    None => ("master.added", "was added"),
                    Some(_) => ("master.moved", "moved"),
                };
                self.state.masters.insert(id, info.clone());
                let text = format!("master {id} {verb}, at {}", info.address);
                self.event(kind, None, None, text);
            }
            None if known.is_none() => return Err(Rejection::BadMaster(id)),
            None => {
                self.state.masters.remove(&id);
                self.event(
                    "master.removed",
                    None,
                    None,
                    format!("master {id} was removed"),
                );
            }
        }
        Ok(())
    }

    pub(super) fn set_cluster_version(&mut self, version: u32) -> Result<(), Rejection> {
        if version < self.state.cluster_version {
            return Err(Rejection::VersionBehind(self.state.cluster_version));
        }
        if version > self.state.cluster_version {
            self.state.cluster_version = version;
            let text = format!("every master can apply version {version} now");
            self.event("cluster.version", None, None, text);
        }
        Ok(())
    }
}
