//! Who belongs to the group.

use crate::PeerId;

/// Members of the group. Both lists are sorted, free of duplicates, and disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members that vote.
    pub voters: Vec<PeerId>,
    /// Members that receive the log but do not vote.
    pub learners: Vec<PeerId>,
}

/// One step from a membership to the next. Only one may be under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembershipChange {
    /// Adds a member that receives the log without a vote.
    AddLearner(PeerId),
    /// Gives a learner its vote.
    Promote(PeerId),
    /// Removes a voter or a learner.
    Remove(PeerId),
}

impl MembershipChange {
    /// The member that the change is about.
    pub fn peer(self) -> PeerId {
        match self {
            MembershipChange::AddLearner(id)
            | MembershipChange::Promote(id)
            | MembershipChange::Remove(id) => id,
        }
    }
}

impl Membership {
    /// A membership of voters only; sorts and removes duplicates.
    pub fn of_voters(voters: impl IntoIterator<Item = PeerId>) -> Membership {
        Membership::new(voters, [])
    }

    /// A membership; sorts and removes duplicates.
    pub fn new(
        voters: impl IntoIterator<Item = PeerId>,
        learners: impl IntoIterator<Item = PeerId>,
    ) -> Membership {
        Membership {
            voters: sorted(voters),
            learners: sorted(learners),
        }
    }

    /// True when nobody belongs to it: a member that waits to be added to a group.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty()
    }

    /// True when `id` votes or learns.
    pub fn contains(&self, id: PeerId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Every member, voters first.
    pub fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// The membership after `change`.
    ///
    /// # Errors
    /// Says in words why the change makes no sense for this membership.
    pub fn after(&self, change: MembershipChange) -> Result<Membership, String> {
        let mut next = self.clone();
        match change {
            MembershipChange::AddLearner(0) => return Err("a member id is never 0".into()),
            MembershipChange::AddLearner(id) if self.contains(id) => {
                return Err(format!("{id} is a member already"));
            }
            MembershipChange::AddLearner(id) => next.learners.push(id),
            MembershipChange::Promote(id) if !self.learners.contains(&id) => {
                return Err(format!("{id} is no learner"));
            }
            MembershipChange::Promote(id) => {
                next.learners.retain(|l| *l != id);
                next.voters.push(id);
            }
            MembershipChange::Remove(id) if !self.contains(id) => {
                return Err(format!("{id} is no member"));
            }
            MembershipChange::Remove(id) if self.voters == [id] => {
                return Err(format!("{id} is the last voter"));
            }
            MembershipChange::Remove(id) => {
                next.voters.retain(|v| *v != id);
                next.learners.retain(|l| *l != id);
            }
        }
        next.voters.sort_unstable();
        next.learners.sort_unstable();
        Ok(next)
    }

    /// Checks the invariants of the type; what comes from a peer or a disk is not trusted.
    pub(crate) fn is_sound(&self) -> bool {
        let ordered = |ids: &[PeerId]| ids.windows(2).all(|w| w[0] < w[1]) && !ids.contains(&0);
        ordered(&self.voters)
            && ordered(&self.learners)
            && self
                .learners
                .iter()
                .all(|l| self.voters.binary_search(l).is_err())
            && (!self.voters.is_empty() || self.learners.is_empty())
    }
}

fn sorted(ids: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut ids: Vec<PeerId> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_follow_the_rules() {
        let three = Membership::of_voters([3, 1, 2, 2]);
        assert_eq!(three.voters, [1, 2, 3]);
        let with = three.after(MembershipChange::AddLearner(9)).unwrap();
        assert_eq!(with.learners, [9]);
        assert!(with.after(MembershipChange::AddLearner(9)).is_err());
        assert!(with.after(MembershipChange::AddLearner(1)).is_err());
        assert!(three.after(MembershipChange::AddLearner(0)).is_err());
        let four = with.after(MembershipChange::Promote(9)).unwrap();
        assert_eq!(
            (four.voters.as_slice(), four.learners.len()),
            (&[1, 2, 3, 9][..], 0)
        );
        assert!(three.after(MembershipChange::Promote(1)).is_err());
        assert_eq!(
            four.after(MembershipChange::Remove(1)).unwrap().voters,
            [2, 3, 9]
        );
        assert!(four.after(MembershipChange::Remove(5)).is_err());
        assert!(
            Membership::of_voters([1])
                .after(MembershipChange::Remove(1))
                .is_err()
        );
    }

    #[test]
    fn soundness_rejects_overlap_zero_and_disorder() {
        assert!(Membership::new([1, 2], [3]).is_sound());
        assert!(Membership::default().is_sound());
        for (voters, learners) in [
            (vec![2, 1], vec![]),
            (vec![0, 1], vec![]),
            (vec![1], vec![1]),
            (vec![], vec![1]),
        ] {
            assert!(!Membership { voters, learners }.is_sound());
        }
    }
}
