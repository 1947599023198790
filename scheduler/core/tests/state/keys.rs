//! Idempotency keys at the limit of what is remembered.

use berth_core::State;
use berth_core::apply::{CommandResult, Rejection, apply, key_time_ms};
use berth_core::state::{MAX_KEYS, Submission};
use berth_types::JobId;
use proptest::prelude::*;

use crate::make;

fn submit(state: &mut State, key: u128) -> CommandResult {
    let command = make::submit(key, make::job("j", 1));
    let entry = make::entry(1_000_000, vec![command]);
    apply(state, 1, &entry).results.remove(0)
}

#[test]
fn beyond_the_limit_the_oldest_go_and_are_refused_from_then_on() {
    let mut state = State::new();
    let hash = berth_core::codec::spec_hash(&make::job("j", 1));
    let known = Submission {
        hash,
        job: JobId(1),
    };
    // Three in each millisecond: when the first has to go, its twins go with it, because their time no longer tells.
    let key = |n: u64| make::key(900_000 + n / 3, n);
    state.submissions = (0..MAX_KEYS as u64).map(|n| (key(n), known)).collect();
    state.next_job = 2;
    let new = make::key(1_000_000, 1);
    let accepted = submit(&mut state, new);
    assert!(matches!(
        accepted,
        CommandResult::Submitted {
            duplicate: false,
            ..
        }
    ));
    assert_eq!(state.submissions.len(), MAX_KEYS - 2);
    assert_eq!(state.keys_from_ms, 900_001);

    for n in 0..3 {
        let gone = submit(&mut state, key(n));
        assert_eq!(gone, CommandResult::Rejected(Rejection::KeyExpired(1)));
    }
    // Drawn in the same millisecond, never seen: nobody can tell any more.
    let unseen = submit(&mut state, make::key(900_000, 77));
    assert_eq!(unseen, CommandResult::Rejected(Rejection::KeyExpired(1)));
    let next = submit(&mut state, key(3));
    let known = CommandResult::Submitted {
        job: JobId(1),
        duplicate: true,
    };
    assert_eq!(next, known);
}

proptest! {
    #[test]
    fn only_version_7_keys_have_a_time(key in any::<u128>()) {
        let version_7 = (key >> 76) & 0xf == 7 && (key >> 62) & 3 == 2;
        prop_assert_eq!(key_time_ms(key).is_some(), version_7);
        let drawn = make::key((key >> 80) as u64, key as u64);
        prop_assert_eq!(key_time_ms(drawn), Some((key >> 80) as u64));
    }

    #[test]
    fn other_keys_are_refused(key in any::<u128>()) {
        prop_assume!(key_time_ms(key).is_none());
        let refused = submit(&mut State::new(), key);
        prop_assert_eq!(refused, CommandResult::Rejected(Rejection::KeyMalformed(key)));
    }
}
