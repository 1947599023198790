//! Clusters with an authority, and certificates for whoever calls.

use std::path::{Path, PathBuf};

use berth_scheduler::Config;
use berth_tls::{Authority, Dialler, lifetime_ms, now_ms, save_identity};
use berth_types::{Identity, Role};
use tonic::transport::Channel;

use super::{Running, configs, free_ports, ok};

/// A cluster's masters, its authority, and a directory for certificates.
pub struct Secured {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
    pub masters: Vec<Running>,
}

impl Secured {
    /// `n` masters, of which one leads.
    pub async fn start(n: usize) -> Secured {
        let dir = tempfile::tempdir().expect("a directory");
        let tls_dir = dir.path().join("authority");
        Authority::generate(now_ms())
            .unwrap()
            .save(&tls_dir)
            .unwrap();
        let authority = Authority::load(&tls_dir).unwrap();
        let mut masters = Vec::new();
        for config in configs(dir.path(), &free_ports(n)) {
            let config = Config {
                tls_dir: Some(tls_dir.clone()),
                ..config
            };
            masters.push(Running::start(&config).await);
        }
        let cluster = Secured {
            dir,
            authority,
            masters,
        };
        let admin = cluster.issue(Role::Admin, "root");
        let channel = cluster.channel(&admin, 0);
        let mut client = berth_proto::v1::cluster_client::ClusterClient::new(channel);
        ok(client.status(berth_proto::v1::StatusRequest {})).await;
        cluster
    }

    /// Where a certificate of this name lies, or is to lie.
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join("people").join(name)
    }

    /// A certificate beside the log.
    pub fn issue(&self, role: Role, name: &str) -> Dialler {
        self.issue_at(role, name, now_ms(), lifetime_ms(role))
    }

    /// One that was issued at a time of its own.
    pub fn issue_at(&self, role: Role, name: &str, at_ms: u64, life_ms: u64) -> Dialler {
        let identity = Identity::new(role, name).unwrap();
        let signed = self.authority.issue(&identity, at_ms, life_ms).unwrap();
        let place = self.place(name);
        save_identity(&place, &self.authority, &signed).unwrap();
        dialler(&place)
    }

    pub fn channel(&self, dialler: &Dialler, master: usize) -> Channel {
        dialler
            .lazy(&self.masters[master].address)
            .expect("an address")
    }
}

pub fn dialler(place: &Path) -> Dialler {
    Dialler::from_dir(place).expect("a certificate")
}
