//! Takes keys out of a TOML table and knows the line of each; what nobody took is an unknown key.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units;
use crate::input::{InputError, Place, nearest};

/// A TOML file that is being read.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) file: Arc<str>,
    /// Byte offsets at which lines end.
    line_ends: Arc<[usize]>,
}

/// One table of it.
pub(super) struct Section<'t> {
    document: Document,
    path: String,
    line: u64,
    table: DeTable<'t>,
    known: Vec<&'static str>,
}

type Taken<'t> = Option<(Place, DeValue<'t>)>;

impl Document {
    pub(super) fn new(file: &Arc<str>, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at);
        Self {
            file: Arc::clone(file),
            line_ends: ends.collect(),
        }
    }

    fn line(&self, offset: usize) -> u64 {
        1 + self.line_ends.partition_point(|end| *end < offset) as u64
    }

    /// The whole file as a table.
    pub(super) fn parse<'t>(&self, text: &'t str) -> Result<Section<'t>, InputError> {
        match DeTable::parse(text) {
            Ok(table) => Ok(self.section("", table)),
            Err(error) => {
                let line = error.span().map_or(0, |span| self.line(span.start));
                let what = error.message().to_owned();
                let hint = "the file is TOML: see docs/workloads.md";
                Err(Place::line(&self.file, line).error(what, hint))
            }
        }
    }

    fn section<'t>(&self, path: &str, table: Spanned<DeTable<'t>>) -> Section<'t> {
        Section {
            document: self.clone(),
            path: path.to_owned(),
            line: self.line(table.span().start),
            table: table.into_inner(),
            known: Vec::new(),
        }
    }
}

impl<'t> Section<'t> {
    /// The table itself.
    pub(super) fn place(&self) -> Place {
        Place::line(&self.document.file, self.line)
    }

    /// A key of this table that is missing.
    pub(super) fn missing(&self, key: &str, hint: &str) -> InputError {
        let place = self.place().key(&self.key_path(key));
        place.error("missing", hint)
    }

    fn key_path(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn take(&mut self, key: &'static str) -> Taken<'t> {
        self.known.push(key);
        let (name, value) = self.table.remove_entry(key)?;
        let line = self.document.line(name.span().start);
        let place = Place::line(&self.document.file, line).key(&self.key_path(key));
        Some((place, value.into_inner()))
    }

    /// What the key says, read by `read`, which answers with what would be right if it cannot.
    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Result<Option<T>, InputError> {
        let Some((place, value)) = self.take(key) else {
            return Ok(None);
        };
        match read(&value) {
            Ok(value) => Ok(Some(value)),
            Err(hint) => Err(place.error(format!("{} is not possible", told(&value)), hint)),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, InputError> {
        self.read(key, |value| {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| "a text in quotes".to_owned())
        })
    }

    pub(super) fn count(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, InputError> {
        let hint = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, |value| {
            let number = whole(value).filter(|number| range.contains(number));
            number.ok_or(hint)
        })
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f64>, InputError> {
        let hint = format!("a number from {} to {}", range.start(), range.end());
        self.read(key, |value| {
            let float = value.as_float().and_then(|f| f.as_str().parse().ok());
            let number = float.or_else(|| whole(value).map(|n| n as f64));
            number.filter(|number| range.contains(number)).ok_or(hint)
        })
    }

    pub(super) fn bytes(&mut self, key: &'static str) -> Result<Option<u64>, InputError> {
        self.read(key, |value| {
            let bytes = value.as_str().and_then(units::bytes);
            bytes.ok_or_else(|| "an amount such as \"80GiB\"".to_owned())
        })
    }

    pub(super) fn duration_ms(&mut self, key: &'static str) -> Result<Option<u64>, InputError> {
        self.read(key, |value| {
            let duration = value
                .as_str()
                .and_then(|text| humantime::parse_duration(text).ok());
            let ms = duration.and_then(|d| u64::try_from(d.as_millis()).ok());
            ms.ok_or_else(|| "a duration such as \"90s\" or \"30days\"".to_owned())
        })
    }

    /// A table of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<(String, String)>, InputError> {
        let found = self.read(key, |value| {
            let pairs = value.as_table().and_then(|table| {
                let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                    let key: &std::borrow::Cow<'_, str> = key.get_ref();
                    Some((key.to_string(), value.get_ref().as_str()?.to_owned()))
                };
                table.iter().map(pair).collect::<Option<Vec<_>>>()
            });
            pairs.ok_or_else(|| "a table of texts, such as { zone = \"a\" }".to_owned())
        });
        found.map(Option::unwrap_or_default)
    }

    /// A table below this one.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Section<'t>>, InputError> {
        let path = self.key_path(key);
        match self.take(key) {
            None => Ok(None),
            Some((place, DeValue::Table(table))) => Ok(Some(Section {
                document: self.document.clone(),
                path,
                line: place.line,
                table,
                known: Vec::new(),
            })),
            Some((place, other)) => {
                let what = format!("{} is no table", told(&other));
                Err(place.error(what, format!("a table: [{path}]")))
            }
        }
    }

    /// A list of tables below this one.
    pub(super) fn tables(&mut self, key: &'static str) -> Result<Vec<Section<'t>>, InputError> {
        let path = self.key_path(key);
        let Some((place, value)) = self.take(key) else {
            return Ok(Vec::new());
        };
        let wrong = |what: &DeValue<'_>| {
            let hint = format!("tables: [[{path}]]");
            place
                .clone()
                .error(format!("{} is not possible", told(what)), hint)
        };
        let DeValue::Array(list) = value else {
            return Err(wrong(&value));
        };
        let mut sections = Vec::new();
        for (index, entry) in list.into_iter().enumerate() {
            let span = entry.span();
            match entry.into_inner() {
                DeValue::Table(table) => {
                    let path = format!("{path}[{index}]");
                    sections.push(self.document.section(&path, Spanned::new(span, table)));
                }
                other => return Err(wrong(&other)),
            }
        }
        Ok(sections)
    }

    /// Every key below this table with its own table.
    pub(super) fn named_tables(
        &mut self,
        key: &'static str,
    ) -> Result<Vec<(String, Section<'t>)>, InputError> {
        let Some(section) = self.table(key)? else {
            return Ok(Vec::new());
        };
        let mut tables = Vec::new();
        for (name, value) in section.table {
            let line = section.document.line(name.span().start);
            let name = name.into_inner().into_owned();
            let path = format!("{}.{name}", section.path);
            let DeValue::Table(table) = value.into_inner() else {
                let place = Place::line(&section.document.file, line).key(&path);
                return Err(place.error("no table", format!("a table: [{path}]")));
            };
            let below = Section {
                document: section.document.clone(),
                path,
                line,
                table,
                known: Vec::new(),
            };
            tables.push((name, below));
        }
        Ok(tables)
    }

    /// Done: no key may be left.
    pub(super) fn finish(self) -> Result<(), InputError> {
        let Some((name, _)) = self.table.iter().next() else {
            return Ok(());
        };
        let line = self.document.line(name.span().start);
        let place = Place::line(&self.document.file, line).key(&self.key_path(name.get_ref()));
        let hint = match nearest(name.get_ref(), self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known keys: {}", self.known.join(", ")),
        };
        Err(place.error("unknown key", hint))
    }
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn told(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
        DeValue::Integer(number) => format!("`{number}`"),
        DeValue::Float(number) => format!("`{number}`"),
        other => format!("a value of type {}", other.type_str()),
    }
}
