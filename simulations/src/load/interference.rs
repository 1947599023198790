//! Measured interference of jobs on the same GPU, in the table that Gavel published (OSDI 2020,
//! `simulation_throughputs.json`): steps per second by GPU model and type of job, alone and beside another type.
//!
//! ```text
//! { "v100": { "('ResNet-18 (batch size 16)', 1)": { "null": 32.4, "('LM (batch size 5)', 1)": [20.2, 30.1] } } }
//! ```
//!
//! What is made of it:
//! - The share of its speed that a type keeps is its rate beside the other over its rate alone; never above 1.
//! - A pair that could not run together (0 steps per second, for lack of memory) takes turns: half of the speed each.
//! - Types are families of jobs, with one worker each (`1` behind the name); what was measured with more workers, or
//!   over several machines (`_unconsolidated`), is left out.
//! - A pair that was not measured keeps the mean of all pairs that ran together on that model.
//! - A model of the table stands for every GPU whose own model contains its name, in whatever case (`v100` for
//!   `Tesla V100-SXM2`). On other GPUs a pair keeps the mean over the models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_world::twin::{Cluster, Interference, Neighbours};
use serde_json::Value;

use crate::input::{InputError, Place, Source, traces_dir};

/// Below `BERTH_TRACES`.
const USUAL_FILE: &str = "gavel-2020/simulation_throughputs.json.gz";
/// Longest table.
const MAX_BYTES: u64 = 64 << 20;
/// Of jobs that cannot be in memory together.
const TURNS: f64 = 0.5;
/// The key of a rate without neighbour.
const ALONE: &str = "null";
/// What stands behind the models of GPUs in several machines.
const APART: &str = "_unconsolidated";

type Table = BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>;

/// The usual table.
///
/// # Errors
/// If it is not there.
pub fn usual_file() -> Result<PathBuf, InputError> {
    let path = traces_dir().map(|traces| traces.join(USUAL_FILE));
    path.filter(|path| path.is_file()).ok_or_else(|| {
        let what = format!("{USUAL_FILE}, which has the usual measurements, is not found");
        let hint = "name a file, or set BERTH_TRACES to the folder of traces";
        Place::file(&"--interference".into()).error(what, hint)
    })
}

/// What jobs on the same GPU do to each other on this cluster, by a table.
///
/// # Errors
/// With the file and the key, for anything that is not as described above.
pub fn read(path: &Path, cluster: &Cluster) -> Result<Interference, InputError> {
    parse(Source::open(path)?, cluster)
}

/// The same from any source.
///
/// # Errors
/// As [`read`].
pub fn parse(source: Source, cluster: &Cluster) -> Result<Interference, InputError> {
    let file = Arc::clone(source.name());
    let text = source.text(MAX_BYTES)?;
    let table: Table = serde_json::from_str(&text).map_err(|error| {
        let place = Place::line(&file, error.line() as u64);
        let hint = "GPU model, type of job, neighbour: as in Gavel's simulation_throughputs.json";
        place.error(error.to_string(), hint)
    })?;
    let mut models: BTreeMap<&str, Neighbours> = BTreeMap::new();
    for (model, types) in &table {
        if !model.ends_with(APART) {
            models.insert(model, of_model(&file, model, types)?);
        }
    }
    if models.values().all(|model| model.beside.is_empty()) {
        let hint = "it has rates by GPU model, type of job and neighbour";
        return Err(Place::file(&file).error("no pair was measured", hint));
    }
    let mut interference = Interference {
        elsewhere: mean(models.values()),
        ..Interference::default()
    };
    for gpu in cluster.all_nodes().flat_map(|node| &node.gpus) {
        let known = gpu.model.to_lowercase();
        let mut named = models
            .iter()
            .filter(|(name, _)| known.contains(&name.to_lowercase()));
        if !interference.by_gpu.contains_key(&gpu.model)
            && let Some((_, neighbours)) = named.next()
        {
            let neighbours = neighbours.clone();
            interference.by_gpu.insert(gpu.model.clone(), neighbours);
        }
    }
    Ok(interference)
}

/// The name in a key such as `('A3C', 1)`, if it is about one worker.
fn single<'k>(place: &Place, key: &'k str) -> Result<Option<&'k str>, InputError> {
    let inner = key.strip_prefix('(').and_then(|key| key.strip_suffix(')'));
    let parts = inner.and_then(|inner| inner.rsplit_once(", "));
    let parts = parts.and_then(|(name, workers)| {
        let quoted = |quote| name.strip_prefix(quote)?.strip_suffix(quote);
        let name = quoted('\'').or_else(|| quoted('"'))?;
        Some((name, workers.parse::<u32>().ok()?))
    });
    match parts {
        Some((name, workers)) => Ok((workers == 1).then_some(name)),
        None => {
            let what = "no type of job with its number of workers";
            Err(place.clone().error(what, "such as ('A3C', 1)"))
        }
    }
}

fn of_model(
    file: &Arc<str>,
    model: &str,
    types: &BTreeMap<String, BTreeMap<String, Value>>,
) -> Result<Neighbours, InputError> {
    let mut beside = BTreeMap::new();
    let mut together = Vec::new();
    for (key, rates) in types {
        let at = |other: &str| Place::file(file).key(&format!("{model}.{key}{other}"));
        let Some(family) = single(&at(""), key)? else {
            continue;
        };
        let Some(alone) = rates.get(ALONE) else {
            return Err(at(".null").error("missing", "the rate of this type alone"));
        };
        let place = at(".null");
        let alone = rate(&place, alone)?;
        for (key, pair) in rates.iter().filter(|(key, _)| *key != ALONE) {
            let place = at(&format!(".{key}"));
            let Some(neighbour) = single(&place, key)? else {
                continue;
            };
            let Some([own, _]) = pair.as_array().map(Vec::as_slice) else {
                return Err(place.error("no pair of rates", "[this type, the other]"));
            };
            let own = rate(&place, own)?;
            // What does not run alone says nothing.
            if alone == 0.0 {
                continue;
            }
            let share = match own {
                0.0 => TURNS,
                own => (own / alone).min(1.0),
            };
            if own > 0.0 {
                together.push(share);
            }
            beside.insert((family.to_owned(), neighbour.to_owned()), share);
        }
    }
    Ok(Neighbours {
        beside,
        usual: average(&together).unwrap_or(TURNS),
    })
}

fn rate(place: &Place, value: &Value) -> Result<f64, InputError> {
    let rate = value
        .as_f64()
        .filter(|rate| rate.is_finite() && *rate >= 0.0);
    rate.ok_or_else(|| {
        let what = format!("`{value}` is no rate");
        place.clone().error(what, "steps per second, 0 or more")
    })
}

/// Pair by pair over the models that have it.
fn mean<'n>(models: impl Iterator<Item = &'n Neighbours> + Clone) -> Neighbours {
    let mut shares: BTreeMap<&(String, String), Vec<f64>> = BTreeMap::new();
    for (pair, share) in models.clone().flat_map(|model| &model.beside) {
        shares.entry(pair).or_default().push(*share);
    }
    let pairs = shares.into_iter();
    let measured = models.filter(|model| !model.beside.is_empty());
    let usual: Vec<f64> = measured.map(|model| model.usual).collect();
    Neighbours {
        beside: pairs
            .filter_map(|(pair, of)| Some((pair.clone(), average(&of)?)))
            .collect(),
        usual: average(&usual).unwrap_or(TURNS),
    }
}

fn average(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
