//! The network: delays, losses, duplicates, reordering, and links that are cut one way or both.

use std::collections::BTreeSet;

use crate::dice::Dice;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// A master's host.
    Master(usize),
    /// A machine.
    Machine(usize),
    /// A client.
    Client(usize),
}

/// How a network behaves, in thousandths of messages and milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct NetworkRates {
    /// Shortest way.
    pub delay_min_ms: u64,
    /// Longest ordinary way.
    pub delay_max_ms: u64,
    /// Messages lost.
    pub loss_per_mille: u32,
    /// Messages that arrive twice.
    pub duplicate_per_mille: u32,
    /// Messages that are overtaken by later ones.
    pub late_per_mille: u32,
    /// How late those are at most.
    pub late_ms: u64,
}

/// Counts of what the network did to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Sent.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in a cut link.
    pub cut: u64,
    /// Doubled.
    pub doubled: u64,
    /// Overtaken.
    pub late: u64,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    /// How it behaves.
    pub(crate) rates: NetworkRates,
    /// Additional loss while a storm lasts.
    pub(crate) storm_per_mille: u32,
    /// What it did.
    pub(crate) counts: NetworkCounts,
    cut: BTreeSet<(Place, Place)>,
}

/// The fate of one message: when its copies arrive. None: it is lost.
pub(crate) type Arrivals = [Option<u64>; 2];

impl Network {
    /// A network without cuts.
    pub(crate) fn new(rates: NetworkRates) -> Self {
        Self {
            rates,
            storm_per_mille: 0,
            counts: NetworkCounts::default(),
            cut: BTreeSet::new(),
        }
    }

    /// Cuts the way from `from` to `to`.
    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Mends every way from or to `place`.
    pub(crate) fn mend(&mut self, place: Place) {
        self.cut.retain(|(from, to)| *from != place && *to != place);
    }

    /// Mends everything.
    pub(crate) fn mend_all(&mut self) {
        self.cut.clear();
        self.storm_per_mille = 0;
    }

    /// True if messages pass from `from` to `to`.
    pub(crate) fn passes(&self, from: Place, to: Place) -> bool {
        self.cut.is_empty() || !self.cut.contains(&(from, to))
    }

    /// True if messages pass both ways.
    pub(crate) fn talks(&self, one: Place, other: Place) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// Ordinary delay of one message.
    pub(crate) fn delay(&self, dice: &mut Dice) -> u64 {
        dice.between(self.rates.delay_min_ms, self.rates.delay_max_ms)
    }

    /// Sends a datagram: delays until each copy arrives.
    pub(crate) fn send(&mut self, from: Place, to: Place, dice: &mut Dice) -> Arrivals {
        self.counts.sent += 1;
        if !self.passes(from, to) {
            self.counts.cut += 1;
            return [None, None];
        }
        if dice.chance(self.rates.loss_per_mille + self.storm_per_mille) {
            self.counts.lost += 1;
            return [None, None];
        }
        let mut first = self.delay(dice);
        if dice.chance(self.rates.late_per_mille) {
            self.counts.late += 1;
            first += dice.between(1, self.rates.late_ms.max(1));
        }
        let second = dice.chance(self.rates.duplicate_per_mille).then(|| {
            self.counts.doubled += 1;
            first + dice.between(0, self.rates.late_ms.max(1))
        });
        [Some(first), second]
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, NetworkRates, Place};
    use crate::dice::Dice;

    #[test]
    fn cuts_are_one_way_until_mended() {
        let rates = NetworkRates {
            delay_min_ms: 1,
            delay_max_ms: 2,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            late_per_mille: 0,
            late_ms: 0,
        };
        let (a, b) = (Place::Master(0), Place::Machine(0));
        let (mut network, mut dice) = (Network::new(rates), Dice::new(3, 1));
        network.cut(a, b);
        assert_eq!(network.send(a, b, &mut dice), [None, None]);
        assert!(network.send(b, a, &mut dice)[0].is_some());
        assert!(!network.talks(a, b));
        network.mend(b);
        assert!(network.send(a, b, &mut dice)[0].is_some());
        assert_eq!((network.counts.cut, network.counts.sent), (1, 3));
    }
}
