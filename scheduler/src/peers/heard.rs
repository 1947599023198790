//! Where masters said that they listen. A fallback only: what the log says comes first.

use std::collections::VecDeque;

use berth_proto::channel;
use berth_types::MasterId;

/// Most masters remembered; the one heard first is forgotten for one more. Above any cluster with its replacements.
const MOST: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Heard(VecDeque<(MasterId, String)>);

impl Heard {
    /// Remembers it. False if it changes nothing: it is known, or no address.
    pub(super) fn hear(&mut self, from: MasterId, address: String) -> bool {
        if self.of(from) == Some(&address) || !channel::is_address(&address) {
            return false;
        }
        self.0.retain(|(id, _)| *id != from);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((from, address));
        true
    }

    /// Where it said last that it listens.
    pub(super) fn of(&self, id: MasterId) -> Option<&str> {
        let (_, address) = self.0.iter().find(|(known, _)| *known == id)?;
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_address_counts_and_nonsense_changes_nothing() {
        let mut heard = Heard::default();
        assert!(heard.hear(MasterId(9), "127.0.0.1:7109".to_owned()));
        assert!(!heard.hear(MasterId(9), "127.0.0.1:7109".to_owned()));
        for nonsense in [
            "", "nowhere", "host:", ":1", "a b:1", "a/b:1", "h:70000", "h:0",
        ] {
            assert!(!heard.hear(MasterId(9), nonsense.to_owned()), "{nonsense}");
        }
        assert!(!heard.hear(MasterId(9), format!("{}:1", "h".repeat(300))));
        assert_eq!(heard.of(MasterId(9)), Some("127.0.0.1:7109"));
        assert!(heard.hear(MasterId(9), "[::1]:7110".to_owned()));
        assert_eq!(heard.of(MasterId(9)), Some("[::1]:7110"));
    }

    #[test]
    fn there_is_a_bound() {
        let mut heard = Heard::default();
        for id in 1..=100 {
            assert!(heard.hear(MasterId(id), format!("127.0.0.1:{id}")));
        }
        assert_eq!(heard.0.len(), MOST);
        assert_eq!(heard.of(MasterId(100)), Some("127.0.0.1:100"));
        assert_eq!(heard.of(MasterId(1)), None);
    }
}
