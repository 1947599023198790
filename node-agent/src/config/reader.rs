//! Takes keys out of a table, collects every fault, and names the nearest key for those that are left.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_types::{Fault, MILLI};
use toml::{Table, Value};

use super::{millis, parse};

/// A key this far from a known one is taken for a slip of the pen.
const NEAR: f64 = 0.7;

/// One table of the file.
pub(super) struct Reader {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self {
            path: path.to_owned(),
            table,
            known: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A fault of a key of this table.
    pub(super) fn fault(&mut self, key: &str, what: &str, hint: &str) {
        let field = self.field(key);
        self.faults.push(Fault::new(field, what, hint));
    }

    fn field(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong(&mut self, key: &str, value: &Value, hint: &str) {
        let what = format!("{} where something else belongs", value.type_str());
        self.fault(key, &what, hint);
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(key, &other, "a text in quotes");
                None
            }
        }
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Vec<String> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let texts = value.as_array().and_then(|list| {
            list.iter()
                .map(|v| v.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        texts.unwrap_or_else(|| {
            self.wrong(key, &value, "a list of texts");
            Vec::new()
        })
    }

    pub(super) fn string_map(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        match self.take(key) {
            None => {}
            Some(Value::Table(table)) => {
                for (name, value) in table {
                    match value.as_str() {
                        Some(text) => {
                            map.insert(name, text.to_owned());
                        }
                        None => self.wrong(&format!("{key}.{name}"), &value, "a text in quotes"),
                    }
                }
            }
            Some(other) => self.wrong(key, &other, "a table of texts"),
        }
        map
    }

    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Reader> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(list)) if list.iter().all(Value::is_table) => list
                .into_iter()
                .enumerate()
                .filter_map(|(i, value)| match value {
                    Value::Table(table) => Some(Reader::new(&format!("{key}[{i}]"), table)),
                    _ => None,
                })
                .collect(),
            Some(other) => {
                self.wrong(key, &other, &format!("tables: [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// Takes this very text, where something else may stand as well.
    pub(super) fn is_text(&mut self, key: &'static str, text: &str) -> bool {
        let there = self.table.get(key).and_then(Value::as_str) == Some(text);
        if there {
            self.take(key);
        }
        there
    }

    /// A table of its own, empty if it is not there.
    pub(super) fn table(&mut self, key: &'static str) -> Reader {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong(key, &other, &format!("a table: [{key}]"));
                Table::new()
            }
        };
        Reader::new(key, table)
    }

    /// Takes over the faults of an entry that has been read.
    pub(super) fn adopt(&mut self, entry: Reader) {
        self.faults.extend(entry.finish());
    }

    pub(super) fn optional_count(&mut self, key: &'static str, most: u64) -> Option<u64> {
        let value = self.take(key)?;
        let count = value
            .as_integer()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n <= most);
        if count.is_none() {
            self.fault(
                key,
                &format!("`{value}` is not possible"),
                &format!("a whole number from 0 to {most}"),
            );
        }
        count
    }

    pub(super) fn count(&mut self, key: &'static str, default: u64, most: u64) -> u64 {
        self.optional_count(key, most).unwrap_or(default)
    }

    /// CPUs, whole or with a fraction, in thousandths.
    pub(super) fn cpus(&mut self, key: &'static str, default: u32, most: u64) -> u32 {
        let Some(value) = self.take(key) else {
            return millis(default);
        };
        let number = value
            .as_float()
            .or_else(|| value.as_integer().map(|n| n as f64));
        match number {
            Some(n) if n > 0.0 && n <= most as f64 => (n * f64::from(MILLI)).round() as u32,
            _ => {
                self.fault(
                    key,
                    &format!("`{value}` is not possible"),
                    "a number such as 8 or 0.5",
                );
                millis(default)
            }
        }
    }

    pub(super) fn bytes(&mut self, key: &'static str) -> Option<u64> {
        let value = self.take(key)?;
        let bytes = match &value {
            Value::String(text) => parse::bytes(text),
            Value::Integer(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        if bytes.is_none() {
            self.fault(key, &format!("`{value}` is no amount"), "such as \"80GiB\"");
            return Some(0);
        }
        bytes
    }

    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let Some(text) = self.string(key) else {
            return default;
        };
        humantime::parse_duration(&text).unwrap_or_else(|error| {
            self.fault(
                key,
                &format!("`{text}` is no duration: {error}"),
                "such as \"500ms\" or \"2s\"",
            );
            default
        })
    }

    /// Every fault, with one for each key that nobody took.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        let left: Vec<String> = self.table.keys().cloned().collect();
        for key in left {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::jaro_winkler(&key, known), *known))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(near, _)| *near >= NEAR);
            let hint = match nearest {
                Some((_, known)) => format!("did you mean `{known}`?"),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            self.fault(&key, "unknown key", &hint);
        }
        self.faults
    }
}
