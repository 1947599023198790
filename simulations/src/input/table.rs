//! A table with named columns, one row per record, read as a stream.

use std::io::Read;
use std::sync::Arc;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::source::read_error;
use super::{InputError, Place, Source, nearest};

/// Longest row that is shown in full in an error.
const SHOWN: usize = 40;
/// Latest time that is believed, in seconds: beyond it, it is a unit that was mistaken.
const LATEST_S: f64 = 1e12;

/// How a table is written.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Between fields.
    pub delimiter: u8,
    /// Whether `"` encloses fields.
    pub quotes: bool,
}

impl Dialect {
    /// Commas, and quotes where a field holds one.
    pub const CSV: Self = Self {
        delimiter: b',',
        quotes: true,
    };
    /// Tabs, no quotes.
    pub const TSV: Self = Self {
        delimiter: b'\t',
        quotes: false,
    };
    /// Vertical bars, no quotes.
    pub const BARS: Self = Self {
        delimiter: b'|',
        quotes: false,
    };
}

/// A table that is being read.
pub struct Table {
    file: Arc<str>,
    reader: csv::Reader<Box<dyn Read + Send>>,
    columns: Vec<String>,
    record: ByteRecord,
}

/// A column by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    index: usize,
    name: String,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'t> {
    file: &'t Arc<str>,
    line: u64,
    record: &'t ByteRecord,
}

impl Table {
    /// A table whose first line names its columns.
    ///
    /// # Errors
    /// If the first line is missing or cannot be read.
    pub fn open(source: Source, dialect: Dialect) -> Result<Self, InputError> {
        let mut table = Self::without_header(source, dialect, &[]);
        let mut first = ByteRecord::new();
        if !table.read(&mut first)? {
            let place = Place::line(&table.file, 1);
            let hint = "the first line names the columns; is this the right file?";
            return Err(place.error("the file is empty", hint));
        }
        let trim = |field: &[u8]| String::from_utf8_lossy(field).trim().to_owned();
        table.columns = first.iter().map(trim).collect();
        if let Some(first) = table.columns.first_mut()
            && let Some(rest) = first.strip_prefix('\u{feff}')
        {
            *first = rest.to_owned();
        }
        Ok(table)
    }

    /// A table without a line of names; `columns` are their names in order.
    pub fn without_header(source: Source, dialect: Dialect, columns: &[&str]) -> Self {
        let (file, bytes) = source.into_reader();
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(dialect.delimiter)
            .quoting(dialect.quotes)
            .from_reader(bytes);
        Self {
            file,
            reader,
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            record: ByteRecord::new(),
        }
    }

    /// Its file's name.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Names of its columns, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The column of this name.
    ///
    /// # Errors
    /// If there is none; says which one is most like it.
    pub fn column(&self, name: &str) -> Result<Column, InputError> {
        self.optional_column(name).ok_or_else(|| {
            let known = self.columns.iter().map(String::as_str);
            let hint = match nearest(name, known) {
                Some(near) => format!("rename `{near}` if that is meant"),
                None => format!("the file has: {}", clip(&self.columns.join(", "), 200)),
            };
            let place = Place::line(&self.file, 1).column(name);
            place.error("this column is missing", hint)
        })
    }

    /// The column of this name, if there is one.
    pub fn optional_column(&self, name: &str) -> Option<Column> {
        let index = self.columns.iter().position(|column| column == name)?;
        let name = name.to_owned();
        Some(Column { index, name })
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// If it cannot be read, or has fewer or more fields than there are columns.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, InputError> {
        let mut record = std::mem::take(&mut self.record);
        let found = self.read(&mut record);
        self.record = record;
        if !found? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        if self.record.len() != self.columns.len() {
            let (found, wanted) = (self.record.len(), self.columns.len());
            let what = format!("{found} fields where {wanted} are expected");
            let hint = match self.columns.get(found) {
                Some(missing) => format!("the row ends before column `{missing}`"),
                None => "a separator too many, or a quote that is not closed".to_owned(),
            };
            return Err(Place::line(&self.file, line).error(what, hint));
        }
        Ok(Some(Row {
            file: &self.file,
            line,
            record: &self.record,
        }))
    }

    fn read(&mut self, record: &mut ByteRecord) -> Result<bool, InputError> {
        self.reader.read_byte_record(record).map_err(|error| {
            let line = self.reader.position().line();
            let place = Place::line(&self.file, line);
            let told = error.to_string();
            match error.into_kind() {
                ErrorKind::Io(source) => read_error(place, source),
                _ => place.error(told, "is this the right file?"),
            }
        })
    }
}

impl<'t> Row<'t> {
    /// Where it is.
    pub fn place(&self) -> Place {
        Place::line(self.file, self.line)
    }

    /// An error in one of its fields.
    pub fn error(&self, column: &Column, what: String, hint: &str) -> InputError {
        self.place().column(&column.name).error(what, hint)
    }

    /// A field as text, without spaces around it.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self, column: &Column) -> Result<&'t str, InputError> {
        let bytes = self.record.get(column.index).unwrap_or_default();
        std::str::from_utf8(bytes).map(str::trim).map_err(|_| {
            let what = "not UTF-8 text".to_owned();
            self.error(column, what, "write the file as UTF-8")
        })
    }

    /// A finite number.
    ///
    /// # Errors
    /// If the field is empty or no number.
    pub fn number(&self, column: &Column) -> Result<f64, InputError> {
        let text = self.text(column)?;
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => {
                let what = format!("`{}` is no number", clip(text, SHOWN));
                let what = if text.is_empty() {
                    "empty".into()
                } else {
                    what
                };
                Err(self.error(column, what, "a number is needed here"))
            }
        }
    }

    /// Seconds, as milliseconds, rounded.
    ///
    /// # Errors
    /// If it is no number, negative, or absurdly large.
    pub fn seconds(&self, column: &Column) -> Result<u64, InputError> {
        let seconds = self.number(column)?;
        if seconds < 0.0 {
            let what = format!("`{}` is negative", self.text(column)?);
            return Err(self.error(column, what, "seconds, 0 or more; correct or drop the row"));
        }
        if seconds > LATEST_S {
            let what = format!("`{}` seconds are over 30,000 years", self.text(column)?);
            return Err(self.error(column, what, "is the unit seconds?"));
        }
        Ok((seconds * 1000.0).round() as u64)
    }

    /// Seconds as milliseconds; `None` if the field is empty.
    ///
    /// # Errors
    /// As [`seconds`](Self::seconds).
    pub fn optional_seconds(&self, column: &Column) -> Result<Option<u64>, InputError> {
        match self.text(column)? {
            "" => Ok(None),
            _ => self.seconds(column).map(Some),
        }
    }

    /// A whole number from 0 to `most`; `8.0` counts as one.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn count(&self, column: &Column, most: u32) -> Result<u32, InputError> {
        let number = self.number(column)?;
        if number < 0.0 || number > f64::from(most) || number.fract() != 0.0 {
            let what = format!("`{}` is not possible", self.text(column)?);
            let hint = format!("a whole number from 0 to {most}");
            return Err(self.error(column, what, &hint));
        }
        Ok(number as u32)
    }
}

/// Enough of a text to recognise it.
fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
