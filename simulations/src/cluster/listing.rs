//! Nodes that a file of a published trace lists, in one of three shapes:
//!
//! - `nodes`: a row is a node; `columns` says which column holds what.
//! - `groups`: a row is a group (a virtual cluster) with its number of nodes.
//! - `days`: a row is a day, and each column a group with its number of GPUs on that day.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_types::{MILLI, NodeSpec};

use super::section::Section;
use crate::input::{Column, Dialect, InputError, Place, Row, Source, Table, nearest, traces_dir};

/// Most nodes or GPUs in one field.
const MOST: u32 = 1_000_000;
/// What a node's columns can be about.
const NODE_COLUMNS: [&str; 10] = [
    "name",
    "gpus",
    "gpu",
    "millicpu",
    "cpus",
    "memory_mib",
    "memory_gib",
    "rack",
    "pod",
    "spine",
];

/// A file of a trace, and how it is read.
#[derive(Debug)]
pub(super) struct Listing {
    /// The pool whose nodes it lists.
    pub(super) pool: String,
    file: PathBuf,
    place: Place,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Nodes {
        columns: Vec<(String, String)>,
        header: Option<Vec<String>>,
    },
    Groups {
        label: String,
        group: String,
        nodes: String,
    },
    Days {
        label: String,
        date: String,
        except: Vec<String>,
    },
}

/// A node as listed. What the list does not say is empty or 0.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) gpus: u64,
    pub(super) gpu_model: Option<String>,
    pub(super) millicpu: u32,
    pub(super) mem_bytes: u64,
    pub(super) rack: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Listing {
    pub(super) fn read(mut section: Section<'_>) -> Result<Self, InputError> {
        let mut needed = |key: &'static str, hint: &str| match section.text(key)? {
            Some(text) => Ok(text),
            None => Err(section.missing(key, hint)),
        };
        let pool = needed("pool", "the pool that these nodes are of")?;
        let file = needed("file", "a file, relative to BERTH_TRACES")?;
        let shape = needed("rows", "\"nodes\", \"groups\" or \"days\"")?;
        let shape = match shape.as_str() {
            "groups" => Shape::Groups {
                label: needed("label", "the label that names a node's group")?,
                group: needed("group", "the column with the group's name")?,
                nodes: needed("nodes", "the column with the number of nodes")?,
            },
            "days" => Shape::Days {
                label: needed("label", "the label that names a node's group")?,
                date: needed("date", "the day to take, as in the first column")?,
                except: split(&section.text("except")?.unwrap_or_default()),
            },
            "nodes" => {
                let columns = section.texts("columns")?;
                for (what, _) in &columns {
                    if !NODE_COLUMNS.contains(&what.as_str()) {
                        let near = nearest(what, NODE_COLUMNS).unwrap_or("name");
                        let what = format!("columns has no `{what}`");
                        let hint = format!("did you mean `{near}`? ({})", NODE_COLUMNS.join(", "));
                        return Err(section.place().error(what, hint));
                    }
                }
                let header = section.text("header")?.as_deref().map(split);
                Shape::Nodes { columns, header }
            }
            other => {
                let what = format!("rows are `{other}`");
                let hint = "\"nodes\", \"groups\" or \"days\"";
                return Err(section.place().key("rows").error(what, hint));
            }
        };
        let place = section.place();
        section.finish()?;
        Ok(Self {
            pool,
            file: file.into(),
            place,
            shape,
        })
    }

    /// The nodes, in the list's order.
    pub(super) fn nodes(&self, template: &NodeSpec) -> Result<Vec<Listed>, InputError> {
        let path = self.find()?;
        let source = Source::open(&path)?;
        let each = template.gpus.len() as u32;
        match &self.shape {
            Shape::Nodes { columns, header } => {
                let table = match header {
                    Some(names) => {
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        Table::without_header(source, Dialect::CSV, &names)
                    }
                    None => Table::open(source, Dialect::CSV)?,
                };
                read_nodes(table, columns)
            }
            Shape::Groups {
                label,
                group,
                nodes,
            } => {
                let mut table = Table::open(source, Dialect::CSV)?;
                let (group, nodes) = (table.column(group)?, table.column(nodes)?);
                let mut listed = Vec::new();
                while let Some(row) = table.next_row()? {
                    let count = row.count(&nodes, MOST)?;
                    listed.extend(members(label, row.text(&group)?, count));
                }
                Ok(listed)
            }
            Shape::Days {
                label,
                date,
                except,
            } => read_day(
                Table::open(source, Dialect::CSV)?,
                label,
                date,
                except,
                each,
            ),
        }
    }

    fn find(&self) -> Result<PathBuf, InputError> {
        let path = match traces_dir() {
            _ if self.file.is_absolute() => self.file.clone(),
            Some(traces) => traces.join(&self.file),
            None => {
                let what = format!("its nodes are listed in {}", self.file.display());
                let hint = "set BERTH_TRACES to the folder of traces (docs/workloads.md)";
                return Err(self.place.clone().error(what, hint));
            }
        };
        if path.is_file() {
            return Ok(path);
        }
        let what = format!("{} is not there", path.display());
        let hint = "fetch that trace into the folder that BERTH_TRACES names (docs/workloads.md)";
        Err(self.place.clone().error(what, hint))
    }
}

fn split(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim);
    parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

/// The nodes of a group.
fn members(label: &str, group: &str, count: u32) -> impl Iterator<Item = Listed> {
    let (label, group) = (label.to_owned(), group.to_owned());
    (0..count).map(move |number| Listed {
        name: format!("{group}-{number:03}"),
        labels: BTreeMap::from([(label.clone(), group.clone())]),
        ..Listed::default()
    })
}

fn read_nodes(mut table: Table, columns: &[(String, String)]) -> Result<Vec<Listed>, InputError> {
    let mut found: BTreeMap<&str, Column> = BTreeMap::new();
    for (what, column) in columns {
        found.insert(what, table.column(column)?);
    }
    let mut listed = Vec::new();
    while let Some(row) = table.next_row()? {
        listed.push(Listed::of(&row, &found)?);
    }
    Ok(listed)
}

impl Listed {
    fn of(row: &Row<'_>, columns: &BTreeMap<&str, Column>) -> Result<Self, InputError> {
        let text = |what| match columns.get(what) {
            Some(column) => row.text(column).map(str::to_owned),
            None => Ok(String::new()),
        };
        let number = |what: &str, unit: u64| match columns.get(what) {
            Some(column) => Ok(u64::from(row.count(column, u32::MAX)?) * unit),
            None => Ok(0),
        };
        let millicpu = number("millicpu", 1)?.max(number("cpus", MILLI.into())?);
        let mem_bytes = number("memory_mib", 1 << 20)?.max(number("memory_gib", 1 << 30)?);
        let gpus = number("gpus", 1)?;
        let mut labels = BTreeMap::new();
        for layer in ["pod", "spine"] {
            let value = text(layer)?;
            if !value.is_empty() {
                labels.insert(layer.to_owned(), value);
            }
        }
        Ok(Self {
            name: text("name")?,
            gpus,
            gpu_model: columns.contains_key("gpus").then_some(text("gpu")?),
            millicpu: u32::try_from(millicpu).unwrap_or(u32::MAX),
            mem_bytes,
            rack: text("rack")?,
            labels,
        })
    }
}

fn read_day(
    mut table: Table,
    label: &str,
    date: &str,
    except: &[String],
    each: u32,
) -> Result<Vec<Listed>, InputError> {
    let names = table.columns().to_vec();
    let Some((first, groups)) = names.split_first() else {
        return Ok(Vec::new());
    };
    let groups = groups.iter().filter(|name| !except.contains(name));
    let columns = groups.map(|name| table.column(name).map(|column| (name, column)));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let day = table.column(first)?;
    while let Some(row) = table.next_row()? {
        if row.text(&day)? != date {
            continue;
        }
        let mut listed = Vec::new();
        for (name, column) in &columns {
            let gpus = row.count(column, MOST)?;
            if each == 0 || gpus % each != 0 {
                let what = format!("`{gpus}` GPUs on nodes of {each}");
                return Err(row.error(column, what, "is gpus_per_node of the pool right?"));
            }
            listed.extend(members(label, name, gpus / each));
        }
        return Ok(listed);
    }
    let what = format!("no row is of {date}");
    Err(Place::file(table.file()).error(what, "choose a day that the file has"))
}
