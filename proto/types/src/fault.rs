//! One thing that is wrong with an input: where, what, and what to do.

use std::fmt;

/// A fault in a document or request. Validators return all faults at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field's path, such as `groups[0].resources.gpus`.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            what: what.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}
