//! From what a driver lists to what a node offers.
//!
//! Places of tasks are indices in the offer, so an index once given to a GPU stays its own: one that is no longer listed
//! keeps its place (and is lost), a new one gets a place at the end.

use berth_types::GpuInfo;
use berth_types::telemetry::{GpuIdentity, GpuPath};

/// The offer, from the one before and what was found now. `paths` are absent while they are not known.
pub fn offer(before: &[GpuInfo], found: &[GpuIdentity], paths: Option<&[GpuPath]>) -> Vec<GpuInfo> {
    let mut offer = before.to_vec();
    for gpu in found {
        let own = u16::try_from(offer.len()).unwrap_or(u16::MAX);
        let known = offer.iter().position(|known| known.uuid == gpu.uuid);
        let group = known
            .and_then(|at| offer.get(at))
            .map_or(own, |known| known.nvlink_group);
        let info = GpuInfo {
            uuid: gpu.uuid.clone(),
            model: short_model(&gpu.name),
            mem_bytes: gpu.mem_bytes.unwrap_or(0),
            nvlink_group: group,
            numa: gpu.numa.unwrap_or(0),
        };
        match known.and_then(|at| offer.get_mut(at)) {
            Some(place) => *place = info,
            None => offer.push(info),
        }
    }
    if let Some(paths) = paths {
        group(&mut offer, found, paths);
    }
    offer
}

/// GPUs that NVLink joins get the index of the first of them, directly or over others.
fn group(offer: &mut [GpuInfo], found: &[GpuIdentity], paths: &[GpuPath]) {
    let place = |index: u16| {
        let uuid = &found.iter().find(|gpu| gpu.index == index)?.uuid;
        offer.iter().position(|known| known.uuid == *uuid)
    };
    let pairs: Vec<(usize, usize)> = paths
        .iter()
        .filter(|path| path.nvlink)
        .filter_map(|path| Some((place(path.a)?, place(path.b)?)))
        .collect();
    let listed: Vec<bool> = offer
        .iter()
        .map(|known| found.iter().any(|g| g.uuid == known.uuid))
        .collect();
    // One that is gone says nothing of its links: those that were of its group stay there.
    let kept = (0..offer.len()).flat_map(|a| (0..offer.len()).map(move |b| (a, b)));
    let kept: Vec<(usize, usize)> = kept
        .filter(|(a, b)| !listed[*a] && offer[*a].nvlink_group == offer[*b].nvlink_group)
        .collect();
    let mut groups: Vec<usize> = (0..offer.len()).collect();
    // A node has at most a few hundred GPUs.
    loop {
        let before = groups.clone();
        for (a, b) in pairs.iter().chain(&kept) {
            let least = groups[*a].min(groups[*b]);
            (groups[*a], groups[*b]) = (least, least);
        }
        if groups == before {
            break;
        }
    }
    for ((gpu, group), listed) in offer.iter_mut().zip(groups).zip(listed) {
        if listed {
            gpu.nvlink_group = u16::try_from(group).unwrap_or(u16::MAX);
        }
    }
}

/// What jobs ask for, from the driver's name of a model: `NVIDIA A100-SXM4-80GB` is an `a100`. Memory, socket and brand
/// are left out, since memory is asked for by itself.
pub fn short_model(name: &str) -> String {
    const BRANDS: [&str; 6] = ["nvidia", "tesla", "geforce", "quadro", "graphics", "device"];
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split([' ', '-', '_'])
        .filter(|word| !word.is_empty() && !BRANDS.contains(word))
        .collect();
    let mut model = String::new();
    for word in &words {
        let memory = word
            .strip_suffix("gb")
            .is_some_and(|n| n.parse::<u32>().is_ok());
        let socket = ["sxm", "pcie", "hbm", "nvl", "oam"]
            .iter()
            .any(|s| word.starts_with(s));
        if memory || socket || *word == "generation" {
            break;
        }
        model.push_str(word);
    }
    match model.as_str() {
        "" => lower.split_whitespace().collect(),
        _ => model,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: u16, uuid: &str) -> GpuIdentity {
        GpuIdentity {
            index,
            uuid: uuid.into(),
            name: "NVIDIA H100 80GB HBM3".into(),
            ..GpuIdentity::default()
        }
    }

    fn nvlink(a: u16, b: u16) -> GpuPath {
        GpuPath {
            a,
            b,
            nvlink: true,
            pcie: None,
        }
    }

    fn uuids(offer: &[GpuInfo]) -> Vec<&str> {
        offer.iter().map(|gpu| gpu.uuid.as_str()).collect()
    }

    #[test]
    fn an_index_once_given_stays() {
        let first = offer(&[], &[found(0, "a"), found(1, "b"), found(2, "c")], None);
        assert_eq!(uuids(&first), ["a", "b", "c"]);
        // b is gone, so the driver counts anew; d is new.
        let second = offer(&first, &[found(0, "a"), found(1, "c"), found(2, "d")], None);
        assert_eq!(uuids(&second), ["a", "b", "c", "d"]);
        assert_eq!(offer(&second, &[], None), second);
    }

    #[test]
    fn nvlink_joins_over_others() {
        let gpus: Vec<GpuIdentity> = (0..6).map(|i| found(i, &format!("g{i}"))).collect();
        let groups = |paths: &[GpuPath]| -> Vec<u16> {
            offer(&[], &gpus, Some(paths))
                .iter()
                .map(|gpu| gpu.nvlink_group)
                .collect()
        };
        assert_eq!(groups(&[]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(groups(&[nvlink(0, 1), nvlink(2, 3)]), [0, 0, 2, 2, 4, 5]);
        assert_eq!(
            groups(&[nvlink(4, 5), nvlink(3, 4), nvlink(0, 5)]),
            [0, 1, 2, 0, 0, 0]
        );
        let no_link = GpuPath {
            nvlink: false,
            ..nvlink(0, 1)
        };
        assert_eq!(groups(&[no_link]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn groups_hold_while_paths_are_not_known() {
        let gpus = [found(0, "a"), found(1, "b")];
        let linked = offer(&[], &gpus, Some(&[nvlink(0, 1)]));
        assert_eq!(offer(&linked, &gpus, None), linked);
        // And while the one that holds them together is gone.
        assert_eq!(offer(&linked, &gpus[1..], Some(&[])), linked);
    }

    #[test]
    fn models_are_what_jobs_ask_for() {
        for (name, model) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA A100 80GB PCIe", "a100"),
            ("Tesla V100-SXM2-16GB", "v100"),
            ("Tesla T4", "t4"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
            ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA B200", "b200"),
            ("NVIDIA GH200 480GB", "gh200"),
            ("NVIDIA Graphics Device", "nvidiagraphicsdevice"),
            ("", ""),
        ] {
            assert_eq!(short_model(name), model, "{name}");
        }
    }
}
