//! Bounded memories: what the agent must not forget soon, without growing for ever.

use std::collections::{BTreeMap, VecDeque};

/// A map that drops its oldest insertion when it is full. Old entries may go because the fence refuses the old
/// directives that they guard against; they only shorten the argument.
#[derive(Clone, Debug)]
pub(crate) struct BoundedMap<K, V> {
    most: usize,
    order: VecDeque<K>,
    map: BTreeMap<K, V>,
}

impl<K: Ord + Copy, V> BoundedMap<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            order: VecDeque::new(),
            map: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Inserts or replaces; a replaced key keeps its age.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key, value).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut map = BoundedMap::new(2);
        for (key, value) in [(1, 'a'), (2, 'b'), (1, 'c'), (3, 'd')] {
            map.insert(key, value);
        }
        assert_eq!(map.get(&1), None);
        assert_eq!((map.get(&2), map.get(&3)), (Some(&'b'), Some(&'d')));
    }
}
