//! Laws that hold whatever the order of events: a leader, a keeper and an agent that dies, with everything in flight
//! delivered late, repeated, or lost with whoever held it.

#![allow(clippy::unwrap_used)]

mod model;

use berth_agent_core::Hooks;
use berth_types::{TaskEvent, TaskInventory};
use model::{Move, World};
use proptest::prelude::*;

fn moves() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec(
        prop_oneof![
            6 => (0u64..3, 0u32..2, any::<bool>()).prop_map(|(job, rank, newer)| Move::Launch { job, rank, newer }),
            3 => (0u64..3).prop_map(Move::Tombstone),
            4 => Just(Move::ForgetSome),
            2 => any::<prop::sample::Index>().prop_map(Move::Replay),
            2 => Just(Move::Reconnect),
            1 => Just(Move::Disconnect),
            8 => Just(Move::KeeperTakes),
            8 => Just(Move::AgentHears),
            6 => any::<bool>().prop_map(Move::Prepared),
            6 => prop::bool::weighted(0.8).prop_map(Move::HookEnds),
            5 => any::<prop::sample::Index>().prop_map(Move::ProcessEnds),
            4 => (1u64..4_000).prop_map(Move::Time),
            1 => any::<bool>().prop_map(Move::AgentRestarts),
            1 => Just(Move::KeeperRestarts),
        ],
        1..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_in_any_order(
        moves in moves(),
        hooks in prop_oneof![3 => Just((false, false)), 1 => any::<(bool, bool)>(), 2 => Just((true, true))],
    ) {
        let (prolog, epilog) = hooks;
        let mut world = World::new(Hooks { prolog, epilog });
        for step in moves {
            // The laws themselves are asserted inside, where each effect is carried out.
            world.play(step);
        }
        world.heal();
        prop_assert!(world.running().is_empty(), "everything stops after a tombstone: {:?}", world.running());
        let told: Vec<_> = world.inventory().into_iter().filter_map(|event| match event {
            TaskEvent::State(key, TaskInventory::Ended(_)) => Some(key),
            _ => None,
        }).collect();
        prop_assert_eq!(told, world.recorded(), "each record is in the inventory");
        world.forget_all();
        prop_assert_eq!((world.held(), world.recorded().len()), (0, 0), "nothing is kept for ever");
    }
}
