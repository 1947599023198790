//! One leader per term.

use std::collections::BTreeMap;

use berth_types::MasterId;

use super::Verdict;
use crate::report::Violation;

/// Who served which term.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    served: BTreeMap<u64, MasterId>,
}

impl Leaders {
    /// A master says that it leads and serves.
    pub(crate) fn on_serves(&mut self, id: MasterId, term: u64) -> Verdict {
        let first = *self.served.entry(term).or_insert(id);
        Violation::unless(first == id, "one leader per term", || {
            format!("masters {first} and {id} both served term {term}")
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_types::MasterId;

    use super::Leaders;

    #[test]
    fn two_leaders_of_a_term_are_found() {
        let mut leaders = Leaders::default();
        assert!(leaders.on_serves(MasterId(1), 3).is_ok());
        assert!(leaders.on_serves(MasterId(1), 3).is_ok());
        assert!(leaders.on_serves(MasterId(2), 4).is_ok());
        assert!(leaders.on_serves(MasterId(2), 3).is_err());
    }
}
