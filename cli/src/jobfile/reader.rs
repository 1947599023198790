//! A typed reader over a parsed document that collects every fault instead of stopping at the first.

use std::collections::BTreeMap;

use berth_types::Fault;
use serde_json::{Map, Value};

use super::keys::{Key, Kind, home_of};
use super::units::{self, Wrong};

/// What TOML's parser makes of a date, which no key wants.
const TOML_DATE: &str = "$__toml_private_datetime";
/// Names more alike than this are taken for a slip of the pen.
const ALIKE: f64 = 0.75;

/// One table of the document: its path, the keys that it may have, and what it has.
pub(super) struct Table<'a> {
    at: String,
    keys: &'static [Key],
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Table<'a> {
    /// Opens a table and reports every key that it must not have.
    pub(super) fn open(
        at: &str,
        keys: &'static [Key],
        value: Option<&'a Value>,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let map = match value {
            None => None,
            Some(Value::Object(map)) if !map.contains_key(TOML_DATE) => Some(map),
            Some(other) => {
                let field = if at.is_empty() { "job file" } else { at };
                faults.push(Fault::new(field, found(other), "a table of keys"));
                None
            }
        };
        let table = Self {
            at: at.to_owned(),
            keys,
            map,
        };
        for name in map.iter().flat_map(|m| m.keys()) {
            if !keys.iter().any(|k| k.name == name) {
                let hint = unknown_hint(name, keys);
                faults.push(Fault::new(table.path(name), "unknown key", hint));
            }
        }
        table
    }

    /// The path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        // As TOML wants odd keys to be written; an empty one would not be seen otherwise.
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = if !key.is_empty() && key.chars().all(bare) {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.at.is_empty() {
            key
        } else {
            format!("{}.{key}", self.at)
        }
    }

    /// The raw value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key)
    }

    /// True if the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn kind(&self, key: &str) -> Kind {
        let known = self.keys.iter().find(|k| k.name == key);
        known
            .expect("the reader asks only for keys of its table")
            .kind
    }

    /// Reads a key with `read`, reporting what is wrong.
    fn read<T>(
        &self,
        key: &str,
        faults: &mut Vec<Fault>,
        read: impl FnOnce(Kind, &'a Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        let kind = self.kind(key);
        let value = self.get(key)?;
        match read(kind, value) {
            Ok(value) => Some(value),
            Err((what, hint)) => {
                faults.push(Fault::new(self.path(key), what, hint));
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str, faults: &mut Vec<Fault>) -> Option<String> {
        self.read(key, faults, |kind, value| match (kind, value) {
            (Kind::Choice(words), Value::String(text)) => choice(text, words),
            (_, Value::String(text)) => Ok(text.clone()),
            (Kind::Choice(words), other) => Err((found(other), one_of(words))),
            (_, other) => Err((found(other), "a text in quotes".into())),
        })
    }

    /// A whole number within the key's range; the range makes the conversion to `T` sound.
    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &str, faults: &mut Vec<Fault>) -> Option<T> {
        self.read(key, faults, |kind, value| {
            let Kind::Integer { min, max } = kind else {
                unreachable!("{key} is declared as a number")
            };
            let range = || format!("a whole number from {min} to {max}");
            let Value::Number(number) = value else {
                return Err((found(value), range()));
            };
            let Some(number) = number.as_i64() else {
                let what = if number.is_u64() {
                    format!("{number} is too large")
                } else {
                    format!("{number} is no whole number")
                };
                return Err((what, range()));
            };
            let wrong = if number < 0 && min >= 0 {
                "is negative"
            } else if number < min {
                "is too small"
            } else {
                "is too large"
            };
            let fits = (min..=max).contains(&number).then_some(number);
            fits.and_then(|n| T::try_from(n).ok())
                .ok_or_else(|| (format!("{number} {wrong}"), range()))
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str, faults: &mut Vec<Fault>) -> Option<bool> {
        self.read(key, faults, |_, value| match value {
            Value::Bool(flag) => Ok(*flag),
            other => Err((found(other), "true or false, without quotes".into())),
        })
    }

    /// A duration in milliseconds.
    pub(super) fn duration_ms(&self, key: &str, faults: &mut Vec<Fault>) -> Option<u64> {
        self.read(key, faults, |_, value| match value {
            Value::String(text) => units::duration_ms(text),
            Value::Number(n) => Err((
                format!("{n} has no unit"),
                format!("a text with a unit, such as \"{n}s\""),
            )),
            other => Err((found(other), "a text with a unit, such as \"90s\"".into())),
        })
    }

    /// Memory in bytes.
    pub(super) fn memory_bytes(&self, key: &str, faults: &mut Vec<Fault>) -> Option<u64> {
        self.read(key, faults, |_, value| match value {
            Value::String(text) => units::memory_bytes(text),
            Value::Number(n) => Err((
                format!("{n} has no unit"),
                format!("a text with a unit, such as \"{n}MiB\""),
            )),
            other => Err((
                found(other),
                "a text with a unit, such as \"256MiB\"".into(),
            )),
        })
    }

    /// A number in thousandths.
    pub(super) fn thousandths(&self, key: &str, faults: &mut Vec<Fault>) -> Option<u32> {
        self.read(key, faults, |kind, value| {
            let Kind::Amount { max } = kind else {
                unreachable!("{key} is declared as an amount")
            };
            match value.as_f64() {
                Some(number) => units::thousandths(number, max),
                None => Err((found(value), format!("a number from 0 to {max}"))),
            }
        })
    }

    /// A command: a list of texts, or one text for the shell.
    pub(super) fn command(&self, key: &str, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
        if let Some(Value::String(line)) = self.get(key) {
            if line.trim().is_empty() {
                faults.push(Fault::new(self.path(key), "empty", "give a program"));
                return None;
            }
            return Some(vec!["/bin/sh".into(), "-c".into(), line.clone()]);
        }
        self.texts(key, faults)
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
        let list = self.read(key, faults, |_, value| match value {
            Value::Array(list) => Ok(list),
            other => Err((found(other), "a list of texts".into())),
        })?;
        let mut texts = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                other => {
                    let field = format!("{}[{index}]", self.path(key));
                    faults.push(Fault::new(field, found(other), quoted_hint(other)));
                }
            }
        }
        (texts.len() == list.len()).then_some(texts)
    }

    /// A table from text to text.
    pub(super) fn map(
        &self,
        key: &str,
        faults: &mut Vec<Fault>,
    ) -> Option<BTreeMap<String, String>> {
        let table = self.read(key, faults, |_, value| match value {
            Value::Object(table) if !table.contains_key(TOML_DATE) => Ok(table),
            other => Err((found(other), "a table of texts".into())),
        })?;
        let mut map = BTreeMap::new();
        for (name, value) in table {
            match value {
                Value::String(text) => {
                    map.insert(name.clone(), text.clone());
                }
                other => {
                    let field = format!("{}.{name}", self.path(key));
                    faults.push(Fault::new(field, found(other), quoted_hint(other)));
                }
            }
        }
        (map.len() == table.len()).then_some(map)
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &str, faults: &mut Vec<Fault>) -> Table<'a> {
        let Kind::Table(keys) = self.kind(key) else {
            unreachable!("{key} is declared as a table")
        };
        Table::open(&self.path(key), keys, self.get(key), faults)
    }

    /// A list of tables below this one.
    pub(super) fn tables(&self, key: &str, faults: &mut Vec<Fault>) -> Vec<Table<'a>> {
        let Kind::Tables(keys) = self.kind(key) else {
            unreachable!("{key} is declared as a list of tables")
        };
        let list = self.read(key, faults, |_, value| match value {
            Value::Array(list) => Ok(list),
            other => Err((found(other), format!("a list of tables ([[{key}]])"))),
        });
        let list = list.into_iter().flatten().enumerate();
        list.map(|(i, v)| Table::open(&format!("{}[{i}]", self.path(key)), keys, Some(v), faults))
            .collect()
    }
}

fn choice(text: &str, words: &'static [&'static str]) -> Result<String, Wrong> {
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = nearest(text, words.iter().copied()).map_or_else(
        || one_of(words),
        |n| format!("did you mean `{n}`? {}", one_of(words)),
    );
    Err((format!("`{text}` is not known"), hint))
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing where a value is wanted".into(),
        Value::Bool(b) => format!("{b} is of the wrong type"),
        Value::Number(n) => format!("{n} is of the wrong type"),
        Value::String(s) => format!("the text `{}` is of the wrong type", clip(s)),
        Value::Array(_) => "a list is of the wrong type".into(),
        Value::Object(map) if map.contains_key(TOML_DATE) => "a date is of the wrong type".into(),
        Value::Object(_) => "a table is of the wrong type".into(),
    }
}

fn quoted_hint(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => format!("put it into quotes: \"{value}\""),
        _ => "a text in quotes".into(),
    }
}

/// Enough of a text to recognise it.
fn clip(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn unknown_hint(name: &str, keys: &'static [Key]) -> String {
    if let Some(home) = home_of(name) {
        return format!("`{name}` belongs into {home}");
    }
    match nearest(name, keys.iter().map(|k| k.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "known keys: {}",
            keys.iter().map(|k| k.name).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The name most like `name`, if one is alike enough.
pub(crate) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    names
        .into_iter()
        .map(|n| {
            let edits = strsim::damerau_levenshtein(&lower, &n.to_lowercase());
            let alike = strsim::jaro_winkler(&lower, &n.to_lowercase());
            (edits, alike, n)
        })
        .filter(|(edits, alike, _)| *edits <= 2 || *alike > ALIKE + 0.1)
        .filter(|(_, alike, _)| *alike > ALIKE)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, n)| n)
}
