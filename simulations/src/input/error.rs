//! What is wrong with an input, and where.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

/// Names less alike than this (Jaro-Winkler) are not offered as what was meant.
const ALIKE: f64 = 0.75;

/// An input that cannot be used.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read; hint: check that the path is right and readable")]
    Unreadable {
        /// Its path as given.
        file: Arc<str>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Compressed data that ends too early or is damaged.
    #[error(
        "{place}: the compressed data is cut short or damaged; hint: fetch or copy the file again"
    )]
    Compressed {
        /// How far it could be read.
        place: Place,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// Something that the file says.
    #[error("{place}: {what}; hint: {hint}")]
    Content {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path as given.
    pub file: Arc<str>,
    /// Line from 1; 0 if the whole file is meant.
    pub line: u64,
    /// The column or key, as it is told; empty if the whole line is meant.
    pub field: String,
}

impl Place {
    /// The whole file.
    pub fn file(file: &Arc<str>) -> Self {
        Self::line(file, 0)
    }

    /// A whole line.
    pub fn line(file: &Arc<str>, line: u64) -> Self {
        Self {
            file: Arc::clone(file),
            line,
            field: String::new(),
        }
    }

    /// The same line, this column.
    #[must_use]
    pub fn column(mut self, name: &str) -> Self {
        self.field = format!("column `{name}`");
        self
    }

    /// The same line, this key.
    #[must_use]
    pub fn key(mut self, path: &str) -> Self {
        self.field = format!("key `{path}`");
        self
    }

    /// An error here.
    pub fn error(self, what: impl Into<String>, hint: impl Into<String>) -> InputError {
        InputError::Content {
            place: self,
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        Ok(())
    }
}

/// The name most like `name`, if one is alike enough.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    let alike = |known: &&str| strsim::jaro_winkler(&lower, &known.to_lowercase());
    (names.into_iter().map(|known| (alike(&known), known)))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
