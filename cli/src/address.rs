//! Where the masters are: from flags, the environment, a local cluster's directory, a file, or the default.

use std::path::{Path, PathBuf};

use berth_proto::channel;
use serde_json::Value;

use crate::args::Global;
use crate::failure::Failure;
use crate::jobfile::nearest;
use crate::local::layout::Cluster;

/// Where `berth dev` listens, and who says nothing else asks.
pub(crate) const DEFAULT: &str = "127.0.0.1:7600";
/// Keys of the user's configuration file.
const KEYS: &[&str] = &["addresses", "dir", "tls_dir"];

/// Everything that may name the masters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// `--addr`.
    pub(crate) addr: Option<String>,
    /// `--dir`.
    pub(crate) dir: Option<PathBuf>,
    /// `--tls-dir`, or else `BERTH_TLS_DIR`.
    pub(crate) tls_dir: Option<PathBuf>,
    /// `BERTH_ADDR`.
    pub(crate) env_addr: Option<String>,
    /// `BERTH_DIR`.
    pub(crate) env_dir: Option<PathBuf>,
    /// The user's configuration file, which need not exist.
    pub(crate) config: Option<PathBuf>,
}

/// The masters, and the local cluster's directory if it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `host:port` of each.
    pub(crate) masters: Vec<String>,
    /// Directory of the local cluster.
    pub(crate) dir: Option<PathBuf>,
    /// Directory of the certificate to show them.
    pub(crate) tls_dir: Option<PathBuf>,
    /// True if nobody named any: the default.
    pub(crate) default: bool,
}

impl Sources {
    /// What this process was given.
    pub(crate) fn of_process(global: &Global) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let config_home = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
        Self {
            addr: global.addr.clone(),
            dir: global.dir.clone(),
            tls_dir: global
                .tls_dir
                .clone()
                .or_else(|| set("BERTH_TLS_DIR").map(PathBuf::from)),
            env_addr: set("BERTH_ADDR"),
            env_dir: set("BERTH_DIR").map(PathBuf::from),
            config: config_home.map(|c| c.join("berth/config.toml")),
        }
    }

    /// The directory of the local cluster that is meant, if one is.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.dir.clone().or_else(|| self.env_dir.clone())
    }

    /// Finds the masters: a flag before the environment before the file before the default.
    pub(crate) fn resolve(&self) -> Result<Address, Failure> {
        let mut address = self.masters()?;
        // The processes of a local cluster are on this host and have no authority.
        let local = self.addr.is_none() && address.dir.is_some();
        if !local {
            let listed = || self.listed(&address);
            address.tls_dir = self.tls_dir.clone().or_else(listed);
        }
        Ok(address)
    }

    /// The certificate that goes with the configuration file's masters, if these are some of them or on another host.
    fn listed(&self, address: &Address) -> Option<PathBuf> {
        let file = self.config.as_deref().and_then(from_config)?.ok()?;
        let known = |m: &String| file.masters.contains(m) || !channel::is_loopback(m);
        file.tls_dir.filter(|_| address.masters.iter().all(known))
    }

    /// `--tls-dir`, or else `BERTH_TLS_DIR`.
    pub(crate) fn tls_dir(&self) -> Option<PathBuf> {
        self.tls_dir.clone()
    }

    /// Where a person's certificate lies if nothing is said: beside the configuration file.
    pub(crate) fn personal_tls_dir(&self) -> Result<PathBuf, Failure> {
        let config = self.config.as_deref().and_then(Path::parent);
        config
            .map(|dir| dir.join("tls"))
            .ok_or_else(|| Failure::usage("there is no home directory", "give --tls-dir DIR"))
    }

    /// Writes the configuration file if there is none; where it is, then.
    pub(crate) fn found_config(&self, text: &str) -> Result<Option<PathBuf>, Failure> {
        let Some(path) = self.config.as_deref().filter(|path| !path.exists()) else {
            return Ok(None);
        };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| Failure::file(dir, e))?;
        }
        std::fs::write(path, text).map_err(|e| Failure::file(path, e))?;
        Ok(Some(path.to_owned()))
    }

    fn masters(&self) -> Result<Address, Failure> {
        if let Some(addr) = &self.addr {
            // A directory beside it tells which processes the masters are.
            return from_list(addr, "--addr", self.directory());
        }
        if let Some(dir) = &self.dir {
            return from_dir(dir);
        }
        if let Some(addr) = &self.env_addr {
            return from_list(addr, "BERTH_ADDR", self.env_dir.clone());
        }
        if let Some(dir) = &self.env_dir {
            return from_dir(dir);
        }
        if let Some(address) = self.config.as_deref().and_then(from_config) {
            return address;
        }
        Ok(Address {
            default: true,
            ..from_list(DEFAULT, "the default", None)?
        })
    }
}

fn from_list(list: &str, source: &str, dir: Option<PathBuf>) -> Result<Address, Failure> {
    let parts = list.split(',').map(str::trim).filter(|p| !p.is_empty());
    let masters: Vec<String> = parts
        .map(|p| {
            p.strip_prefix("http://")
                .unwrap_or(p)
                .trim_end_matches('/')
                .to_owned()
        })
        .collect();
    if let Some(bad) = masters.iter().find(|m| !is_address(m)) {
        return Err(Failure::usage(
            format!("{source}: `{bad}` is no address"),
            "give host:port, several with commas between",
        ));
    }
    if masters.is_empty() {
        return Err(Failure::usage(
            format!("{source} names no master"),
            "give host:port, several with commas between",
        ));
    }
    Ok(Address {
        masters,
        dir,
        tls_dir: None,
        default: false,
    })
}

fn is_address(text: &str) -> bool {
    let host_and_port = text.rsplit_once(':');
    host_and_port.is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(['/', ' ', '@'])
            && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}

fn from_dir(dir: &Path) -> Result<Address, Failure> {
    let cluster = Cluster::load(dir)?;
    Ok(Address {
        masters: cluster.masters.iter().map(|m| m.address.clone()).collect(),
        dir: Some(dir.to_path_buf()),
        tls_dir: None,
        default: false,
    })
}

/// `None` if there is no such file or it names no masters.
fn from_config(path: &Path) -> Option<Result<Address, Failure>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => return Some(Err(Failure::file(path, e))),
    };
    let wrong = |what: String, hint: String| {
        Some(Err(Failure::usage(
            format!("{}: {what}", path.display()),
            hint,
        )))
    };
    let table: serde_json::Map<String, Value> = match toml::from_str(&text) {
        Ok(table) => table,
        Err(e) => return wrong(e.to_string(), String::new()),
    };
    if let Some(key) = table.keys().find(|k| !KEYS.contains(&k.as_str())) {
        let hint = nearest(key, KEYS.iter().copied())
            .map_or(format!("known keys: {}", KEYS.join(", ")), |n| {
                format!("did you mean `{n}`?")
            });
        return wrong(format!("unknown key `{key}`"), hint);
    }
    let source = path.display().to_string();
    match (table.get("addresses"), table.get("dir")) {
        (Some(Value::Array(list)), _) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            if texts.len() < list.len() {
                return wrong(
                    "`addresses` holds something that is no text".into(),
                    String::new(),
                );
            }
            let tls_dir = match table.get("tls_dir") {
                None => None,
                Some(Value::String(dir)) => Some(PathBuf::from(dir)),
                Some(_) => {
                    return wrong("`tls_dir` is no text".into(), "tls_dir = \"/path\"".into());
                }
            };
            let address = from_list(&texts.join(","), &source, None);
            Some(address.map(|address| Address { tls_dir, ..address }))
        }
        (None, Some(Value::String(dir))) => Some(from_dir(Path::new(dir))),
        (None, None) => None,
        _ => wrong(
            "`addresses` or `dir` is of the wrong type".into(),
            "addresses = [\"host:port\"] or dir = \"/path\"".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masters(sources: &Sources) -> Vec<String> {
        sources.resolve().unwrap().masters
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.toml");
        std::fs::write(&config, "addresses = [\"file:1\"]").unwrap();
        let mut sources = Sources {
            addr: Some("flag:1, flag:2".into()),
            env_addr: Some("env:1".into()),
            config: Some(config.clone()),
            ..Sources::default()
        };
        assert_eq!(masters(&sources), ["flag:1", "flag:2"]);
        sources.addr = None;
        assert_eq!(masters(&sources), ["env:1"]);
        sources.env_addr = None;
        assert_eq!(masters(&sources), ["file:1"]);
        std::fs::remove_file(&config).unwrap();
        assert_eq!(masters(&sources), [DEFAULT]);
        assert!(sources.resolve().unwrap().default);
    }

    #[test]
    fn a_certificate_goes_with_the_masters_that_ask_for_it() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.toml");
        std::fs::write(
            &config,
            "addresses = ['head:1', '127.0.0.1:1']\ntls_dir = '/file'",
        )
        .unwrap();
        let resolve = |addr: Option<&str>, tls_dir: Option<&str>| {
            let sources = Sources {
                addr: addr.map(str::to_owned),
                tls_dir: tls_dir.map(PathBuf::from),
                config: Some(config.clone()),
                ..Sources::default()
            };
            sources.resolve().unwrap().tls_dir
        };
        let dir = |text: &str| Some(PathBuf::from(text));
        assert_eq!(resolve(None, None), dir("/file"));
        assert_eq!(resolve(None, Some("/flag")), dir("/flag"));
        assert_eq!(resolve(Some("127.0.0.1:1"), None), dir("/file"));
        assert_eq!(resolve(Some("other:9"), None), dir("/file"));
        assert_eq!(resolve(Some("127.0.0.1:7600"), None), None, "`berth dev`");
        assert_eq!(resolve(Some("127.0.0.1:7600"), Some("/flag")), dir("/flag"));
        let cluster = tempfile::tempdir().unwrap();
        Cluster::example().save(cluster.path()).unwrap();
        let local = Sources {
            dir: Some(cluster.path().into()),
            tls_dir: dir("/env"),
            ..Sources::default()
        };
        assert_eq!(local.resolve().unwrap().tls_dir, None);
    }

    #[test]
    fn a_directory_names_its_own_masters() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources = Sources {
            dir: Some(dir.path().into()),
            env_addr: Some("env:1".into()),
            ..Sources::default()
        };
        let missing = sources.resolve().unwrap_err();
        assert!(missing.to_string().contains("no cluster"), "{missing}");
        let cluster = Cluster::example();
        cluster.save(dir.path()).unwrap();
        let address = sources.resolve().unwrap();
        assert_eq!(address.masters, ["127.0.0.1:7001"]);
        assert_eq!(address.dir.as_deref(), Some(dir.path()));
        sources.env_dir = sources.dir.take();
        assert_eq!(masters(&sources), ["env:1"]);
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for addr in ["", "host", "host:0", ":7600", "host:99999", "a/b:1", ","] {
            let sources = Sources {
                addr: Some(addr.into()),
                ..Sources::default()
            };
            assert!(sources.resolve().is_err(), "{addr}");
        }
        let sources = Sources {
            addr: Some("http://[::1]:7600/".into()),
            ..Sources::default()
        };
        assert_eq!(masters(&sources), ["[::1]:7600"]);
    }

    #[test]
    fn a_slip_in_the_configuration_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.toml");
        std::fs::write(&config, "adresses = []").unwrap();
        let sources = Sources {
            config: Some(config),
            ..Sources::default()
        };
        assert!(
            sources
                .resolve()
                .unwrap_err()
                .hint()
                .contains("`addresses`")
        );
    }
}
