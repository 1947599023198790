//! What is going to happen, in order of time; ties in order of arrival.

use std::collections::BTreeMap;

/// Events by virtual time.
#[derive(Debug)]
pub(crate) struct Calendar<E> {
    events: BTreeMap<(u64, u64), E>,
    next: u64,
    now_ms: u64,
}

impl<E> Default for Calendar<E> {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            next: 0,
            now_ms: 0,
        }
    }
}

impl<E> Calendar<E> {
    /// Virtual time: that of the event taken last.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Puts an event `delay_ms` from now.
    pub(crate) fn after(&mut self, delay_ms: u64, event: E) {
        self.at(self.now_ms.saturating_add(delay_ms), event);
    }

    /// Puts an event at a time; one in the past happens now.
    pub(crate) fn at(&mut self, at_ms: u64, event: E) {
        let key = (at_ms.max(self.now_ms), self.next);
        self.next += 1;
        self.events.insert(key, event);
    }

    /// When the next event is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Takes the next event if it is due by `until_ms`, and moves the clock to it; else moves the clock to `until_ms`.
    pub(crate) fn pop(&mut self, until_ms: u64) -> Option<E> {
        match self.events.first_entry() {
            Some(entry) if entry.key().0 <= until_ms => {
                self.now_ms = entry.key().0;
                Some(entry.remove())
            }
            _ => {
                self.now_ms = self.now_ms.max(until_ms);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Calendar;

    #[test]
    fn time_orders_and_arrival_breaks_ties() {
        let mut calendar = Calendar::default();
        calendar.at(5, 'c');
        calendar.at(3, 'a');
        calendar.at(3, 'b');
        assert_eq!(calendar.pop(4), Some('a'));
        calendar.at(1, 'x');
        assert_eq!(calendar.pop(4), Some('b'));
        assert_eq!(
            calendar.pop(4),
            Some('x'),
            "an event in the past happens now"
        );
        assert_eq!((calendar.pop(4), calendar.now_ms()), (None, 4));
        assert_eq!((calendar.pop(9), calendar.now_ms()), (Some('c'), 5));
    }
}
