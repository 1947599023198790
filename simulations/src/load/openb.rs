//! Alibaba openb (cluster-trace-gpu-v2023): pods that ask for a part of a GPU, for some, or for none.
//!
//! Columns: `name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,
//! scheduled_time`; times in seconds. Some lists end after `gpu_milli`.
//!
//! Without an order of arrivals, pods come at their own times and stay as long as they did. With one ([`Arrivals`]),
//! the list becomes a packing run as in FGD's evaluation (Weng et al., USENIX ATC 2023, section 6): pods come one at a
//! time in the given order, some several times; each starts at once or never, and none ever leaves. The limit of 1,001
//! pods per node that holds there is never met: every pod asks for at least one CPU, and no node has more than 128.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use berth_types::{GroupSpec, JobSpec, MILLI, Resources, RestartSpec};
use berth_world::twin::{Cluster, End, Rigid, TraceJob, Truth};

use super::go_random::GoRandom;
use super::helios::MAX_GPUS;
use super::{Builder, Limits, Loaded, Origin};
use crate::input::{Column, Dialect, InputError, Place, Row, Source, Table};

/// Most CPUs of one pod that are believed, in thousandths.
const MAX_MILLICPU: u32 = 1 << 24;
/// Most memory of one pod that is believed, in MiB.
const MAX_MEM_MIB: u32 = 1 << 26;
/// Time between two arrivals of a packing run. Only their order matters.
const ARRIVAL_MS: u64 = 1_000;

/// Pods of FGD's evaluation ask for so many tenths of the cluster.
const TUNED_TENTHS: u64 = 13;
/// Numbers that the published runs drew between the order of pods and the ranks of nodes: one for each of the
/// scheduler's ten watches of the API server, which choose their timeouts from the same source.
const WATCHES: usize = 10;

/// A pod of a list.
#[derive(Clone, Debug)]
struct Pod {
    place: Place,
    name: String,
    resources: Resources,
    /// Creation, start and end.
    times_ms: Option<[u64; 3]>,
    end: End,
}

/// An order of arrivals, and the ranks of nodes that decide between equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    file: Arc<str>,
    /// Line of the order, and of the ranks.
    lines: (u64, u64),
    /// Indexes into the list sorted by name.
    order: Vec<usize>,
    /// By node, sorted by name: its rank.
    ranks: Vec<usize>,
}

impl Arrivals {
    /// Reads the order of one seed: lines of `kind`, `seed` and numbers, separated by tabs and spaces.
    ///
    /// # Errors
    /// With file, line and column, if something is no number, or the seed's order or ranks are missing.
    pub fn read(source: Source, seed: u64) -> Result<Self, InputError> {
        let columns = ["kind", "seed", "numbers"];
        let mut table = Table::without_header(source, Dialect::TSV, &columns);
        let file = Arc::clone(table.file());
        let column = |name| table.column(name);
        let (kind, seeds, numbers) = (column("kind")?, column("seed")?, column("numbers")?);
        let (mut order, mut ranks, mut known) = (None, None, Vec::new());
        while let Some(row) = table.next_row()? {
            let this: u64 = parse(&row, &seeds, row.text(&seeds)?)?;
            if !known.contains(&this) {
                known.push(this);
            }
            let wanted = match row.text(&kind)? {
                "pod_order" => &mut order,
                "node_rank" => &mut ranks,
                other => {
                    let what = format!("`{other}` is not known");
                    return Err(row.error(&kind, what, "pod_order or node_rank"));
                }
            };
            if this == seed {
                let words = row.text(&numbers)?.split_ascii_whitespace();
                let numbers: Result<Vec<usize>, InputError> =
                    words.map(|word| parse(&row, &numbers, word)).collect();
                *wanted = Some((row.place().line, numbers?));
            }
        }
        let (Some((order_line, order)), Some((ranks_line, ranks))) = (order, ranks) else {
            let known: Vec<String> = known.iter().map(u64::to_string).collect();
            let what = format!("seed {seed} has no pod_order or no node_rank");
            let hint = format!("the file has seeds {}", known.join(", "));
            return Err(Place::file(&file).column("seed").error(what, hint));
        };
        Ok(Self {
            file,
            lines: (order_line, ranks_line),
            order,
            ranks,
        })
    }

    /// Takes the ranks of the published runs if these are the order and the ranks that FGD's simulator draws for this
    /// seed when nothing else draws: in the published runs ten other numbers came in between, and only with them do
    /// their figures come out, run by run. `list` are the pods by name, on a cluster of so many thousandths of GPUs.
    /// True if ranks were replaced; an order or ranks of any other origin stay as they are.
    pub fn as_published(&mut self, seed: u64, list: &[Arc<JobSpec>], milligpu: u64) -> bool {
        let mut random = GoRandom::new(seed);
        if draw_order(&mut random, list, milligpu, self.order.len()) != self.order {
            return false;
        }
        let count = self.ranks.len();
        let mut at_once = random.clone();
        if at_once.permutation(count) != self.ranks {
            return false;
        }
        (0..WATCHES).for_each(|_| {
            random.draw();
        });
        self.ranks = random.permutation(count);
        true
    }

    /// Puts a cluster's nodes into the order of their ranks: policies prefer the node that registered first among equal
    /// ones.
    ///
    /// # Errors
    /// If there is not exactly one rank for each node.
    pub fn arrange(&self, cluster: &mut Cluster) -> Result<(), InputError> {
        let mut sorted = self.ranks.clone();
        sorted.sort_unstable();
        let place = || Place::line(&self.file, self.lines.1).column("node_rank");
        if !sorted.iter().copied().eq(0..sorted.len()) {
            let what = "ranks are not the numbers from 0, each once";
            return Err(place().error(what, "is this the right file?"));
        }
        if self.ranks.len() != cluster.nodes.len() {
            let (ranks, nodes) = (self.ranks.len(), cluster.nodes.len());
            let what = format!("{ranks} ranks for a cluster of {nodes} nodes");
            return Err(place().error(what, "these orders were drawn for the cluster `openb`"));
        }
        let nodes = &mut cluster.nodes;
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ranked: Vec<_> = self.ranks.iter().zip(std::mem::take(nodes)).collect();
        ranked.sort_by_key(|(rank, _)| **rank);
        nodes.extend(ranked.into_iter().map(|(_, node)| node));
        Ok(())
    }
}

/// The order of FGD's evaluation (Weng et al., USENIX ATC 2023, section 6.1): the list shuffled; then more of its pods,
/// drawn one by one, until the next would ask for more than 130 % of the cluster, or fewer, if there were too many. Ends
/// early beyond `most` pods.
fn draw_order(
    random: &mut GoRandom,
    list: &[Arc<JobSpec>],
    milligpu: u64,
    most: usize,
) -> Vec<usize> {
    random.draw();
    let mut order: Vec<usize> = (0..list.len()).collect();
    random.shuffle(&mut order);
    let asked = |pod: usize| list[pod].groups.first().map(|group| &group.resources);
    let total_of = |pod| asked(pod).map_or(0, |resources| u64::from(resources.milligpu));
    let mut total: u64 = order.iter().map(|&pod| total_of(pod)).sum();
    let limit = milligpu * TUNED_TENTHS / 10;
    if list.is_empty() || total == 0 {
        return order;
    }
    while total > limit {
        let pod = order.remove(random.below(order.len() as u32) as usize);
        total -= total_of(pod);
        if total <= limit {
            return order;
        }
    }
    loop {
        let pod = random.below(list.len() as u32) as usize;
        // The simulator looks at one GPU of the pod only, and so goes a little beyond.
        let of_one = asked(pod).map_or(0, |r| u64::from(r.milligpu.min(MILLI)));
        if total + of_one > limit || order.len() > most {
            return order;
        }
        total += total_of(pod);
        order.push(pod);
    }
}

fn parse<N: FromStr>(row: &Row<'_>, column: &Column, text: &str) -> Result<N, InputError> {
    text.parse().map_err(|_| {
        let what = format!("`{}` is no whole number", text.escape_debug());
        row.error(column, what, "numbers from 0, separated by spaces")
    })
}

/// Reads a list, pods at their own times.
///
/// # Errors
/// With file, line and column, for anything that is not as described above; a list without times needs an order of
/// arrivals.
pub fn load(source: Source, limits: &Limits) -> Result<Loaded, InputError> {
    let name = source.stem();
    let mut builder = Builder::new(limits);
    for pod in read(source)? {
        let Some([created, started, ended]) = pod.times_ms else {
            let hint = "give an order with --arrivals and --arrival-seed";
            let place = Place::line(&pod.place.file, 1).column("creation_time");
            return Err(place.error("this list has no times", hint));
        };
        let truth = Rigid {
            run_ms: ended - started,
            end: pod.end,
        };
        let job = job(&pod, pod.name.clone(), created, false, truth);
        builder.push(pod.place, job)?;
    }
    Ok(builder.finish(&name, Origin::FirstSubmission, None))
}

/// Reads a list for a packing run: its pods in an order of arrivals. [`Loaded::typical`] is the list itself, each pod
/// once: the distribution by which FGD's evaluation measures fragments. A pod that no node of a cluster could ever hold
/// counts as arrived, too, and is rejected then: two of `gpuspec10` ask for more CPUs than nodes of their model have.
///
/// # Errors
/// With file, line and column, for anything that is not as described above, and if the order names a pod that the list
/// does not have.
pub fn load_packing(source: Source, arrivals: &Arrivals) -> Result<Loaded, InputError> {
    let name = source.stem();
    let mut pods = read(source)?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let forever = Rigid {
        run_ms: u64::MAX,
        end: End::Completed,
    };
    let specs: Vec<TraceJob> = (pods.iter())
        .map(|pod| job(pod, pod.name.clone(), 0, true, forever))
        .collect();
    let mut times = vec![0u32; pods.len()];
    let limits = Limits::none();
    let mut builder = Builder::new(&limits);
    for (at, &index) in (0u64..).zip(&arrivals.order) {
        let (Some(pod), Some(first)) = (pods.get(index), specs.get(index)) else {
            let what = format!("pod {index} where the list has {}", pods.len());
            let place = Place::line(&arrivals.file, arrivals.lines.0).column("pod_order");
            return Err(place.error(what, "is this the order of this list?"));
        };
        times[index] += 1;
        let mut arrival = first.clone();
        arrival.submit_ms = at * ARRIVAL_MS;
        if times[index] > 1 {
            arrival.key = format!("{}.{}", pod.name, times[index]);
        }
        builder.push(pod.place.clone(), arrival)?;
    }
    Ok(Loaded {
        typical: specs.into_iter().map(|job| job.spec).collect(),
        ..builder.finish(&name, Origin::Kept, None)
    })
}

fn job(pod: &Pod, key: String, submit_ms: u64, start_now: bool, truth: Rigid) -> TraceJob {
    let group = GroupSpec {
        name: "worker".into(),
        command: vec!["replayed".into()],
        min_workers: 1,
        max_workers: 1,
        gang: true,
        resources: pod.resources.clone(),
        node_labels: Default::default(),
    };
    let spec = JobSpec {
        name: pod.name.clone(),
        user: "unknown".into(),
        groups: vec![group],
        start_now,
        restart: RestartSpec {
            max_restarts: 0,
            ..RestartSpec::default()
        },
        ..JobSpec::default()
    };
    TraceJob {
        key,
        submit_ms,
        spec: Arc::new(spec),
        truth: Truth::Rigid(truth),
    }
}

/// The list's columns.
struct Columns {
    name: Column,
    cpu: Column,
    memory: Column,
    gpus: Column,
    share: Column,
    models: Option<Column>,
    phase: Option<Column>,
    times: Option<[Column; 3]>,
}

fn read(source: Source) -> Result<Vec<Pod>, InputError> {
    let mut table = Table::open(source, Dialect::CSV)?;
    let times = match table.optional_column("creation_time") {
        None => None,
        Some(created) => Some([
            created,
            table.column("scheduled_time")?,
            table.column("deletion_time")?,
        ]),
    };
    let columns = Columns {
        name: table.column("name")?,
        cpu: table.column("cpu_milli")?,
        memory: table.column("memory_mib")?,
        gpus: table.column("num_gpu")?,
        share: table.column("gpu_milli")?,
        models: table.optional_column("gpu_spec"),
        phase: table.optional_column("pod_phase"),
        times,
    };
    let mut lines: HashMap<String, u64> = HashMap::new();
    let mut pods = Vec::new();
    while let Some(row) = table.next_row()? {
        let pod = pod(&row, &columns)?;
        if let Some(first) = lines.insert(pod.name.clone(), pod.place.line) {
            let what = format!("pod `{}` was on line {first} already", pod.name);
            return Err(row.error(&columns.name, what, "each pod has its own name"));
        }
        pods.push(pod);
    }
    Ok(pods)
}

fn pod(row: &Row<'_>, columns: &Columns) -> Result<Pod, InputError> {
    let optional = |column: &Option<Column>| column.as_ref().map_or(Ok(""), |c| row.text(c));
    let gpus = row.count(&columns.gpus, MAX_GPUS)?;
    let share = row.count(&columns.share, MILLI)?;
    let milligpu = match (gpus, share) {
        (0, _) => 0,
        (1, 1..) => share,
        (gpus, MILLI) => gpus * MILLI,
        (gpus, share) => {
            let what = format!("`{share}` of each of {gpus} GPUs");
            let hint = "a part of one GPU, or 1000 of each";
            return Err(row.error(&columns.share, what, hint));
        }
    };
    let models = optional(&columns.models)?;
    let gpu_types = (models.split('|').map(str::trim))
        .filter(|model| !model.is_empty() && milligpu > 0)
        .map(str::to_owned)
        .collect();
    let times_ms = match &columns.times {
        None => None,
        Some(columns) => Some(times(row, columns)?),
    };
    Ok(Pod {
        place: row.place(),
        name: row.text(&columns.name)?.to_owned(),
        resources: Resources {
            milligpu,
            millicpu: row.count(&columns.cpu, MAX_MILLICPU)?,
            mem_bytes: u64::from(row.count(&columns.memory, MAX_MEM_MIB)?) << 20,
            gpu_types,
            gpu_mem_bytes: 0,
        },
        times_ms,
        end: match optional(&columns.phase)? {
            "Failed" => End::Failed,
            _ => End::Completed,
        },
    })
}

/// Creation, start and end; a pod that never started is taken to have run from its creation.
fn times(row: &Row<'_>, [created, started, ended]: &[Column; 3]) -> Result<[u64; 3], InputError> {
    let created_ms = row.seconds(created)?;
    let started_ms = row.optional_seconds(started)?.unwrap_or(created_ms);
    let ended_ms = row.seconds(ended)?;
    if started_ms < created_ms || ended_ms < started_ms {
        let (column, what) = match started_ms < created_ms {
            true => (started, "is before the pod was created"),
            false => (ended, "is before the pod started"),
        };
        let what = format!("`{}` {what}", row.text(column)?);
        return Err(row.error(column, what, "correct or drop the row"));
    }
    Ok([created_ms, started_ms, ended_ms])
}
