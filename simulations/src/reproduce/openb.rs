//! FGD's packing experiments: 13 pod lists, six policies, five recorded orders of arrival.
//!
//! Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 6, and the per-seed results published with
//! it (hkust-adsl/kubernetes-scheduler-simulator, `experiments/analysis/expected_results/analysis_allo_discrete.csv`).
//! What is compared is the share of all GPUs that is allocated when pods that ask for so much of the cluster have
//! arrived, as the mean over the orders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_policy::packing::Workload;
use berth_policy::{NameError, by_name_for};
use berth_world::twin::{self, Cluster, Setting, Trace, TwinError};
use thiserror::Error;

use crate::cluster;
use crate::input::{Dialect, InputError, Source, Table};
use crate::load::openb;

/// The lists that have recorded orders of arrival.
pub const LISTS: [&str; 13] = [
    "default",
    "cpu050",
    "cpu100",
    "cpu200",
    "gpushare40",
    "gpushare60",
    "gpushare80",
    "gpuspec10",
    "gpuspec20",
    "gpuspec25",
    "multigpu20",
    "multigpu30",
    "multigpu40",
];

/// The orders that are recorded.
pub const SEEDS: [u64; 5] = [42, 43, 44, 45, 46];

/// What has arrived, in percent of the cluster, where the figures are compared.
pub const LOADS: [u32; 3] = [95, 100, 130];

/// Policies by Berth's name, with their name in the published results, and how far a mean may be off, in points.
pub const POLICIES: [(&str, &str, f64); 6] = [
    ("fgd", "06-FGD", 0.2),
    ("best-fit", "05-BestFit", 0.2),
    ("random", "01-Random", 0.3),
    ("dot-product", "02-DotProd", 0.3),
    ("gpu-packing", "04-GpuPacking", 0.5),
    ("gpu-clustering", "03-GpuClustering", 0.5),
];

/// Why a comparison could not be made.
#[derive(Debug, Error)]
pub enum OpenbError {
    /// A file is not as it should be.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The run broke off.
    #[error("the run of list `{list}` with seed {seed} under `{policy}` broke off")]
    Run {
        /// The list.
        list: String,
        /// The seed of its order.
        seed: u64,
        /// The policy.
        policy: String,
        /// Why.
        #[source]
        source: TwinError,
    },
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] NameError),
}

/// A list in one order of arrivals, on the cluster in the order of its ranks.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Name of the list.
    pub list: String,
    /// The order's seed.
    pub seed: u64,
    /// The nodes, by rank.
    pub cluster: Arc<Cluster>,
    /// The pods, in order.
    pub trace: Arc<Trace>,
    /// What the list asks for.
    pub workload: Workload,
}

impl Packing {
    /// Reads a list and one of its orders from the folder `openb-2023` of recorded traces, and the cluster `openb`.
    ///
    /// # Errors
    /// With file, line and column, if something is missing or wrong.
    pub fn read(traces: &Path, list: &str, seed: u64) -> Result<Self, InputError> {
        let folder = traces.join("openb-2023");
        let orders = folder.join(format!("fgd_arrivals/openb_pod_list_{list}.tsv.gz"));
        let mut arrivals = openb::Arrivals::read(Source::open(&orders)?, seed)?;
        let mut cluster = cluster::open("openb")?.cluster;
        let pods = folder.join(format!("pods/openb_pod_list_{list}.csv.gz"));
        let loaded = openb::load_packing(Source::open(&pods)?, &arrivals)?;
        arrivals.as_published(seed, &loaded.typical, cluster.milligpu());
        arrivals.arrange(&mut cluster)?;
        Ok(Self {
            list: list.to_owned(),
            seed,
            workload: Workload::of(loaded.typical.iter().map(|spec| &**spec)),
            cluster: Arc::new(cluster),
            trace: Arc::new(loaded.trace),
        })
    }

    /// Runs it under a policy, with this seed for what the policy draws. Answers with the allocation in percent at each
    /// load from 0 to 130 that was reached.
    ///
    /// # Errors
    /// If there is no such policy, or the run breaks off.
    pub fn run(&self, policy: &str, seed: u64) -> Result<BTreeMap<u32, f64>, OpenbError> {
        let mut chosen = by_name_for(policy, &self.workload)?;
        let mut setting = Setting::new(Arc::clone(&self.cluster), Arc::clone(&self.trace));
        setting.seed = seed;
        let outcome =
            twin::run(&setting, &mut *chosen, &mut twin::unwatched).map_err(|source| {
                OpenbError::Run {
                    list: self.list.clone(),
                    seed: self.seed,
                    policy: policy.to_owned(),
                    source,
                }
            })?;
        let capacity = self.cluster.milligpu();
        let at = |load: u32| Some((load, outcome.gpu_allocation_at(load.into(), capacity)?));
        Ok((0..=130).filter_map(at).collect())
    }
}

/// The published allocation of some runs, in percent by load.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// By list, policy as it is called there, and seed.
    rows: BTreeMap<(String, String, u64), Vec<f64>>,
}

impl Published {
    /// Reads the results from the folder of recorded traces.
    ///
    /// # Errors
    /// With file, line and column, if something is missing or wrong.
    pub fn read(traces: &Path) -> Result<Self, InputError> {
        let file: PathBuf = traces.join("openb-2023/fgd_published/analysis_allo_discrete.csv.gz");
        let mut table = Table::open(Source::open(&file)?, Dialect::CSV)?;
        let list = table.column("workload")?;
        let policy = table.column("sc_policy")?;
        let seed = table.column("seed")?;
        let loads = (0..=130).map(|load: u32| table.column(&load.to_string()));
        let loads: Vec<_> = loads.collect::<Result<_, _>>()?;
        let mut rows = BTreeMap::new();
        while let Some(row) = table.next_row()? {
            let name = row.text(&list)?;
            let name = name.strip_prefix("openb_pod_list_").unwrap_or(name);
            let key = (
                name.to_owned(),
                row.text(&policy)?.to_owned(),
                u64::from(row.count(&seed, u32::MAX)?),
            );
            let cells = loads.iter().map(|column| match row.text(column)? {
                "" => Ok(f64::NAN),
                _ => row.number(column),
            });
            rows.insert(key, cells.collect::<Result<_, InputError>>()?);
        }
        Ok(Self { rows })
    }

    /// The allocation in percent; `None` if it is not published.
    pub fn at(&self, list: &str, policy: &str, seed: u64, load: u32) -> Option<f64> {
        let key = (list.to_owned(), policy.to_owned(), seed);
        let cell = self.rows.get(&key)?.get(load as usize).copied();
        cell.filter(|cell| cell.is_finite())
    }
}

/// One figure beside the published one.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The list.
    pub list: String,
    /// The policy.
    pub policy: &'static str,
    /// What has arrived, in percent of the cluster.
    pub load: u32,
    /// Allocation in percent, mean over the seeds.
    pub measured: f64,
    /// The published mean of the same seeds.
    pub published: f64,
    /// How far it may be off, in points.
    pub band: f64,
}

impl Cell {
    /// True if the figure is within its band.
    pub fn holds(&self) -> bool {
        (self.measured - self.published).abs() <= self.band
    }
}

/// The figures of one list under one policy: `runs` are what [`Packing::run`] answered, each with the seed of
/// its order. A load that a run did
/// not reach, or that is not published for one of the seeds, has no cell.
pub fn cells(
    published: &Published,
    list: &str,
    policy: &str,
    runs: &[(u64, BTreeMap<u32, f64>)],
) -> Vec<Cell> {
    let Some(&(policy, called, band)) = POLICIES.iter().find(|known| known.0 == policy) else {
        return Vec::new();
    };
    let mean = |values: Option<Vec<f64>>| {
        let values = values.filter(|values| !values.is_empty())?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    };
    let cell = |&load: &u32| {
        let measured = runs.iter().map(|(_, at)| at.get(&load).copied()).collect();
        let there = runs.iter();
        let there = there.map(|(seed, _)| published.at(list, called, *seed, load));
        Some(Cell {
            list: list.to_owned(),
            policy,
            load,
            measured: mean(measured)?,
            published: mean(there.collect())?,
            band,
        })
    };
    LOADS.iter().filter_map(cell).collect()
}

/// Draws per order under `random`, whose figures are their means: one draw of an order differs from the next by 0.3
/// points and more, which would say nothing about the rule.
pub const RANDOM_DRAWS: u64 = 5;

/// All figures of one list: each policy over these orders.
///
/// # Errors
/// If a file is missing or wrong, or a run breaks off.
pub fn list_cells(
    traces: &Path,
    published: &Published,
    list: &str,
    seeds: &[u64],
) -> Result<Vec<Cell>, OpenbError> {
    let packings: Result<Vec<Packing>, InputError> = (seeds.iter())
        .map(|&seed| Packing::read(traces, list, seed))
        .collect();
    let packings = packings?;
    let mut all = Vec::new();
    for (policy, ..) in POLICIES {
        let draws = if policy == "random" { RANDOM_DRAWS } else { 1 };
        let mut runs = Vec::new();
        for packing in &packings {
            for draw in 0..draws {
                runs.push((packing.seed, packing.run(policy, draw)?));
            }
        }
        all.extend(cells(published, list, policy, &runs));
    }
    Ok(all)
}
