//! What the tool leaves behind: files that are whole or not there, progress bars, tables.

mod atomic;
mod interrupt;
mod progress;

pub use atomic::{OutputError, check_writable, write};
pub use interrupt::{INTERRUPTED, Interrupt};
pub use progress::Bar;
