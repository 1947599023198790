//! Where control groups of version 2 are mounted, and which one this process is in.

use std::path::{Path, PathBuf};

/// Processes that are no task's stay in this child of a group that was given to us: a group with limited children must
/// have no processes of its own.
pub const SUPERVISOR: &str = "supervisor";

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Which group is shown there; `/` outside of containers.
    pub root: String,
}

/// A group: its directory, and its name as `/proc/PID/cgroup` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its files are.
    pub dir: PathBuf,
    /// Starts with `/`, ends without.
    pub name: String,
}

/// The hierarchy of version 2 in a `mountinfo`, on hosts of either layout.
pub fn mount(mountinfo: &str) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        if filesystem.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Mount {
            point: PathBuf::from(point),
            root: root.to_owned(),
        })
    })
}

/// The group in a `/proc/PID/cgroup`.
pub fn name_in(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

impl Mount {
    /// The hierarchy of this host.
    pub fn of_host() -> Option<Self> {
        mount(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
    }

    /// The group of this name.
    pub fn named(&self, name: &str) -> Option<Place> {
        let below = match self.root.as_str() {
            "/" => name,
            root => name.strip_prefix(root)?,
        };
        Some(Place {
            dir: self.point.join(below.trim_start_matches('/')),
            name: name.trim_end_matches('/').to_owned(),
        })
    }

    /// The group of this directory.
    pub fn at(&self, dir: &Path) -> Option<Place> {
        let below = dir.strip_prefix(&self.point).ok()?.to_str()?;
        let name = format!("{}/{below}", self.root.trim_end_matches('/'));
        Some(Place {
            dir: dir.to_path_buf(),
            name: name.trim_end_matches('/').to_owned(),
        })
    }
}

/// The group that this process was given: the one it is in, or the one above if it has moved itself already.
///
/// # Errors
/// Why there is none.
pub fn own() -> Result<Place, String> {
    let mount = Mount::of_host().ok_or("the host has no control groups of version 2")?;
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let name = name_in(&cgroup).ok_or("this process is in no control group of version 2")?;
    let name = name.strip_suffix(&format!("/{SUPERVISOR}")).unwrap_or(name);
    if name.trim_matches('/').is_empty() {
        return Err(
            "this process is in the root of all control groups, which nobody gave to it".into(),
        );
    }
    mount
        .named(name)
        .ok_or_else(|| format!("control group {name} is not visible here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 30 0:22 / /proc rw,nosuid - proc proc rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
    const HYBRID: &str = "\
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hierarchy_is_found_in_either_layout() {
        let point = |text| mount(text).map(|m| m.point.display().to_string());
        assert_eq!(point(UNIFIED).as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(point(HYBRID).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(point("1 2 0:3 / /proc rw - proc proc rw"), None);
        assert_eq!(point(""), None);
    }

    #[test]
    fn names_and_directories_belong_together() {
        let whole = mount(UNIFIED).unwrap();
        let service = whole.named("/system.slice/berth-agent.service").unwrap();
        assert_eq!(
            service.dir,
            Path::new("/sys/fs/cgroup/system.slice/berth-agent.service")
        );
        assert_eq!(whole.at(&service.dir), Some(service));
        assert_eq!(whole.at(Path::new("/elsewhere")), None);
        let container = Mount {
            root: "/pod7".into(),
            ..whole
        };
        let inner = container.named("/pod7/x").unwrap();
        assert_eq!(inner.dir, Path::new("/sys/fs/cgroup/x"));
        assert_eq!(container.at(&inner.dir), Some(inner));
        assert_eq!(container.named("/other"), None);
    }

    #[test]
    fn the_line_of_version_2_is_read() {
        let text = "9:name=systemd:/\n4:memory:/a\n0::/user.slice/x.scope\n";
        assert_eq!(name_in(text), Some("/user.slice/x.scope"));
        assert_eq!(name_in("4:memory:/a\n"), None);
    }
}
