//! What a storage engine has to offer: two spaces of ordered keys, atomic changes, and an explicit flush.

use crate::StoreError;

/// The two spaces of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// Log, hard state, membership.
    Log,
    /// Finished jobs.
    History,
}

/// A key and its new value, or `None` to remove it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Which pairs of a space to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range<'a> {
    /// First key, inclusive.
    pub(crate) from: &'a [u8],
    /// Last key, exclusive.
    pub(crate) to: &'a [u8],
    /// At most this many.
    pub(crate) limit: usize,
    /// From the last key downwards.
    pub(crate) backwards: bool,
}

/// A storage engine. Changes are visible at once and durable after the next flush.
pub(crate) trait Engine: Send + Sync {
    /// Makes all changes or none.
    fn apply(&self, space: Space, changes: Vec<Change>) -> Result<(), StoreError>;
    /// Everything applied so far is on the disk when this returns.
    fn flush(&self) -> Result<(), StoreError>;
    /// Reads one value.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Reads a range, in order.
    fn range(&self, space: Space, range: Range<'_>) -> Result<Vec<Pair>, StoreError>;
}
