//! Which crate knows which: the plan in [`crate::house`] against what `cargo metadata` resolved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::house::{ARROWS, FREE, NEVER_IN_PURE, OWNERS, PURE, STAND_INS};
use crate::tools;

/// Why a package is in another's manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Normal,
    Build,
    Dev,
}

/// One resolved package: its name, whether it is ours, and its edges by package id.
struct Package {
    name: String,
    ours: bool,
    edges: Vec<(String, Kind)>,
}

/// The resolved dependency graph by package id.
struct Graph {
    packages: BTreeMap<String, Package>,
}

/// Checks the workspace and returns one line per forbidden arrow.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let output = tools::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Graph::parse(&metadata)?.faults())
}

impl Graph {
    fn parse(metadata: &Value) -> anyhow::Result<Self> {
        let list = |value: &Value, what: &str| {
            value
                .as_array()
                .cloned()
                .with_context(|| format!("cargo metadata has no {what}"))
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ours: BTreeSet<String> = list(&metadata["workspace_members"], "workspace_members")?
            .iter()
            .map(text)
            .collect();
        let names: BTreeMap<String, String> = list(&metadata["packages"], "packages")?
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let mut packages = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"], "resolve.nodes")? {
            let id = text(&node["id"]);
            let mut edges = Vec::new();
            for dep in list(&node["deps"], "deps")? {
                for dep_kind in list(&dep["dep_kinds"], "dep_kinds")? {
                    let kind = match dep_kind["kind"].as_str() {
                        Some("dev") => Kind::Dev,
                        Some("build") => Kind::Build,
                        _ => Kind::Normal,
                    };
                    edges.push((text(&dep["pkg"]), kind));
                }
            }
            let name = names
                .get(&id)
                .cloned()
                .with_context(|| format!("{id} has no package"))?;
            packages.insert(
                id.clone(),
                Package {
                    name,
                    ours: ours.contains(&id),
                    edges,
                },
            );
        }
        Ok(Self { packages })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = BTreeSet::new();
        for (id, package) in self.packages.iter().filter(|(_, package)| package.ours) {
            if !FREE.contains(&package.name.as_str()) {
                self.check_direct(package, &mut faults);
            }
            if is_pure(&package.name) {
                self.check_reach(id, package, &mut faults);
            }
        }
        faults.into_iter().collect()
    }

    fn check_direct(&self, package: &Package, faults: &mut BTreeSet<String>) {
        let name = &package.name;
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| from == name) else {
            faults.insert(format!(
                "{name} is not in the plan of the house (xtask/src/house.rs)"
            ));
            return;
        };
        for (target, kind) in &package.edges {
            let Some(target) = self.packages.get(target) else {
                continue;
            };
            let to = target.name.as_str();
            if target.ours && to != name {
                let dev_may = *kind == Kind::Dev && (is_pure(to) || STAND_INS.contains(&to));
                if !allowed.contains(&to) && !dev_may {
                    faults.insert(format!(
                        "{name} -> {to} ({kind:?} dependency) is no allowed arrow"
                    ));
                }
            } else if let Some((_, owners)) = OWNERS.iter().find(|(owned, _)| *owned == to)
                && !owners.contains(&name.as_str())
            {
                faults.insert(format!(
                    "{name} -> {to}: only {} may know it",
                    owners.join(", ")
                ));
            }
        }
    }

    /// Follows normal dependencies from a PURE crate and names the path to whatever must not be there.
    fn check_reach(&self, id: &str, package: &Package, faults: &mut BTreeSet<String>) {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([id]);
        while let Some(at) = queue.pop_front() {
            let Some(here) = self.packages.get(at) else {
                continue;
            };
            for (to, _) in here.edges.iter().filter(|(_, kind)| *kind == Kind::Normal) {
                if to == id || came_from.contains_key(to.as_str()) {
                    continue;
                }
                came_from.insert(to, at);
                queue.push_back(to);
                let name = self.name(to);
                if NEVER_IN_PURE.contains(&name) {
                    faults.insert(format!(
                        "{} is PURE and reaches {name}: {}",
                        package.name,
                        self.path(to, &came_from)
                    ));
                }
            }
        }
    }

    fn path(&self, to: &str, came_from: &BTreeMap<&str, &str>) -> String {
        let mut names = vec![self.name(to)];
        let mut at = to;
        while let Some(previous) = came_from.get(at) {
            names.push(self.name(previous));
            at = previous;
        }
        names.reverse();
        names.join(" -> ")
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages.get(id).map_or(id, |package| &package.name)
    }
}

fn is_pure(name: &str) -> bool {
    PURE.iter().any(|(pure, _)| *pure == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A graph from `(from, to, kind)`; names that start with `berth` or are `xtask` are ours.
    fn faults_of(edges: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let names: BTreeSet<&str> = edges
            .iter()
            .flat_map(|(from, to, _)| [*from, *to])
            .collect();
        let ours: Vec<&&str> = names
            .iter()
            .filter(|n| n.starts_with("berth") || **n == "xtask")
            .collect();
        let packages: Vec<Value> = names.iter().map(|n| json!({"id": n, "name": n})).collect();
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|(from, _, _)| from == name)
                    .map(|(_, to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]}))
                    .collect();
                json!({"id": name, "deps": deps})
            })
            .collect();
        let metadata =
            json!({"workspace_members": ours, "packages": packages, "resolve": {"nodes": nodes}});
        Graph::parse(&metadata).unwrap().faults()
    }

    #[test]
    fn the_plan_itself_is_allowed() {
        let edges: Vec<_> = ARROWS
            .iter()
            .flat_map(|(from, allowed)| allowed.iter().map(|to| (*from, *to, None)))
            .collect();
        assert_eq!(faults_of(&edges), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_outside_the_plan_is_named() {
        let faults = faults_of(&[("berth-types", "berth-core", None)]);
        assert_eq!(
            faults,
            ["berth-types -> berth-core (Normal dependency) is no allowed arrow"]
        );
        let build = faults_of(&[("berth-cli", "berth-core", Some("build"))]);
        assert_eq!(
            build,
            ["berth-cli -> berth-core (Build dependency) is no allowed arrow"]
        );
    }

    #[test]
    fn tests_may_use_pure_crates_only() {
        assert!(faults_of(&[("berth-types", "berth-core", Some("dev"))]).is_empty());
        let faults = faults_of(&[("berth-core", "berth-agent", Some("dev"))]);
        assert_eq!(
            faults,
            ["berth-core -> berth-agent (Dev dependency) is no allowed arrow"]
        );
        assert!(
            faults_of(&[
                ("berth-tests", "berth-agent", None),
                ("xtask", "sled", None)
            ])
            .is_empty()
        );
    }

    #[test]
    fn a_runtime_is_found_through_any_number_of_crates() {
        let faults = faults_of(&[
            ("berth-core", "berth-raft", None),
            ("berth-raft", "raft", None),
            ("raft", "sneaky", None),
            ("sneaky", "tokio", None),
        ]);
        assert_eq!(
            faults,
            [
                "berth-core is PURE and reaches tokio: berth-core -> berth-raft -> raft -> sneaky -> tokio",
                "berth-raft is PURE and reaches tokio: berth-raft -> raft -> sneaky -> tokio",
            ]
        );
    }

    #[test]
    fn a_runtime_at_build_or_test_time_is_no_fault_and_elsewhere_neither() {
        assert!(
            faults_of(&[
                ("berth-policy", "criterion", Some("dev")),
                ("criterion", "tokio", None)
            ])
            .is_empty()
        );
        assert!(
            faults_of(&[
                ("berth-core", "codegen", Some("build")),
                ("codegen", "tokio", None)
            ])
            .is_empty()
        );
        assert!(faults_of(&[("berth-agent", "tokio", None)]).is_empty());
    }

    #[test]
    fn a_crate_outside_the_plan_and_a_stolen_dependency_are_named() {
        assert_eq!(
            faults_of(&[("berth-new", "serde", None)]),
            ["berth-new is not in the plan of the house (xtask/src/house.rs)"]
        );
        assert_eq!(
            faults_of(&[("berth-scheduler", "sled", None)]),
            ["berth-scheduler -> sled: only berth-raft-store may know it"]
        );
    }
}
