//! A table of the file, read key by key; what is left over is unknown.

use std::time::Duration;

use berth_types::Fault;
use toml::{Table, Value};

/// A table, the keys asked for so far, and what was wrong.
pub(super) struct Section {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl Section {
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self {
            path: path.to_owned(),
            table,
            known: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        let field = self.at(key);
        self.faults.push(Fault::new(field, what, hint));
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong_type(&mut self, key: &str, found: &Value, hint: &str) {
        self.fault(key, format!("is a {}", found.type_str()), hint);
    }

    /// `get`, and a fault if the key is absent.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        get: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.fault(key, "missing", "set it");
            return None;
        }
        get(self, key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if text.is_empty() => {
                self.fault(key, "empty", "set it");
                None
            }
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, &other, "give a string in quotes");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, key: &'static str) -> Option<u64> {
        match self.take(key)? {
            Value::Integer(n) => match u64::try_from(n) {
                Ok(n) => Some(n),
                Err(_) => {
                    self.fault(key, format!("{n} is negative"), "give 0 or more");
                    None
                }
            },
            other => {
                self.wrong_type(key, &other, "give a whole number");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(b) => Some(b),
            other => {
                self.wrong_type(key, &other, "give true or false");
                None
            }
        }
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        const HINT: &str = "give a duration with its unit, such as \"250ms\" or \"4s\"";
        let text = match self.take(key)? {
            Value::String(text) => text,
            other => {
                self.wrong_type(key, &other, HINT);
                return None;
            }
        };
        match humantime::parse_duration(&text) {
            Ok(d) if d < Duration::from_millis(1) || d > Duration::from_secs(86_400) => {
                self.fault(
                    key,
                    format!("`{text}` is out of range"),
                    "between 1ms and 1day",
                );
                None
            }
            Ok(d) => Some(d),
            Err(e) => {
                self.fault(key, format!("`{text}`: {e}"), HINT);
                None
            }
        }
    }

    pub(super) fn choice(&mut self, key: &'static str, choices: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        if choices.contains(&text.as_str()) {
            return Some(text);
        }
        let hint = match nearest(&text, choices) {
            Some(near) => format!("did you mean `{near}`? One of {}", choices.join(", ")),
            None => format!("one of {}", choices.join(", ")),
        };
        self.fault(key, format!("`{text}` is not known"), hint);
        None
    }

    /// The value, or its fault.
    pub(super) fn checked<T>(
        &mut self,
        key: &str,
        value: Result<T, (String, String)>,
    ) -> Option<T> {
        value
            .map_err(|(what, hint)| self.fault(key, what, hint))
            .ok()
    }

    /// A table within this one; empty if absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section {
        let path = self.at(key);
        match self.take(key) {
            None => Section::new(&path, Table::new()),
            Some(Value::Table(table)) => Section::new(&path, table),
            Some(other) => {
                self.wrong_type(key, &other, &format!("write a table, [{path}]"));
                Section::new(&path, Table::new())
            }
        }
    }

    /// A list of tables; empty if absent.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section> {
        let path = self.at(key);
        let hint = format!("write tables, [[{path}]]");
        let items = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong_type(key, &other, &hint);
                Vec::new()
            }
        };
        let mut sections = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::Table(table) => sections.push(Section::new(&format!("{path}[{i}]"), table)),
                other => self.wrong_type(&format!("{key}[{i}]"), &other, &hint),
            }
        }
        sections
    }

    /// Reports what was wrong here, and keys that nobody asked for.
    pub(super) fn finish(mut self, faults: &mut Vec<Fault>) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            let hint = match nearest(&key, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.fault(&key, "unknown key", hint);
        }
        faults.append(&mut self.faults);
    }
}

/// The choice that `text` was probably meant to be.
fn nearest<'a>(text: &str, choices: &[&'a str]) -> Option<&'a str> {
    let distance = |c: &&str| strsim::damerau_levenshtein(text, c);
    let best = choices.iter().copied().min_by_key(distance)?;
    (distance(&best) <= text.len().max(3) / 3 + 1).then_some(best)
}
