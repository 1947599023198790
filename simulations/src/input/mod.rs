//! Reading files that others wrote: plain or compressed, tables with named columns, and errors that name the place.
//!
//! Whatever is wrong with an input is an [`InputError`] with file, line and column, and says what to do about it.

mod error;
mod source;
mod table;

pub use error::{InputError, Place, nearest};
pub(crate) use source::read_error;
pub use source::{Source, traces_dir};
pub use table::{Column, Dialect, Row, Table};
