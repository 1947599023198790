//! The event log of a run: a hash over everything that happened, and the newest lines for people.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::digest::Digest;

/// Lines kept for a failure report.
pub const TAIL_LINES: usize = 60;
/// Most lines kept when all are wanted; bounds memory, far above what a run writes.
const MAX_LINES: usize = 2_000_000;

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Actor {
    /// The world itself: faults, checks.
    World,
    /// A master's host, by number.
    Master(usize),
    /// A machine with an agent, by number.
    Machine(usize),
    /// A client, by number.
    Client(usize),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::World => write!(f, "world    "),
            Actor::Master(n) => write!(f, "master {n:<2}"),
            Actor::Machine(n) => write!(f, "machine {n}"),
            Actor::Client(n) => write!(f, "client {n:<2}"),
        }
    }
}

/// One thing that happened. `{}` in `what` stands for the numbers in turn.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Line {
    /// Virtual time.
    pub(crate) at_ms: u64,
    /// Who.
    pub(crate) actor: Actor,
    /// What, with gaps.
    pub(crate) what: &'static str,
    /// Fills the gaps.
    pub(crate) numbers: [u64; 4],
    /// More, for people; empty if there is none.
    pub(crate) text: Arc<str>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6}.{:03} {} ",
            self.at_ms / 1000,
            self.at_ms % 1000,
            self.actor
        )?;
        let mut parts = self.what.split("{}");
        write!(f, "{}", parts.next().unwrap_or_default())?;
        for (part, number) in parts.zip(self.numbers) {
            write!(f, "{number}{part}")?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

/// The log of one run.
#[derive(Debug)]
pub(crate) struct Chronicle {
    digest: Digest,
    lines: VecDeque<Line>,
    keep: usize,
    empty: Arc<str>,
    events: u64,
}

impl Chronicle {
    /// An empty log; `verbose` keeps every line instead of the newest [`TAIL_LINES`].
    pub(crate) fn new(verbose: bool) -> Self {
        let keep = if verbose { MAX_LINES } else { TAIL_LINES };
        Self {
            digest: Digest::default(),
            lines: VecDeque::new(),
            keep,
            empty: Arc::from(""),
            events: 0,
        }
    }

    /// Adds an event to the hash only: ticks, heartbeats and the like.
    pub(crate) fn mark(&mut self, at_ms: u64, actor: Actor, kind: u64, detail: u64) {
        self.events += 1;
        self.digest.word(at_ms);
        actor.hash(&mut self.digest);
        self.digest.word(kind);
        self.digest.word(detail);
    }

    /// Adds a line.
    pub(crate) fn note(&mut self, at_ms: u64, actor: Actor, what: &'static str, numbers: [u64; 4]) {
        let text = self.empty.clone();
        self.push(Line {
            at_ms,
            actor,
            what,
            numbers,
            text,
        });
    }

    /// Adds a line with words.
    pub(crate) fn say(
        &mut self,
        at_ms: u64,
        actor: Actor,
        what: &'static str,
        numbers: [u64; 4],
        text: &str,
    ) {
        let text = Arc::from(text);
        self.push(Line {
            at_ms,
            actor,
            what,
            numbers,
            text,
        });
    }

    fn push(&mut self, line: Line) {
        self.events += 1;
        line.at_ms.hash(&mut self.digest);
        line.actor.hash(&mut self.digest);
        self.digest.write(line.what.as_bytes());
        for number in line.numbers {
            self.digest.word(number);
        }
        self.digest.write(line.text.as_bytes());
        if self.lines.len() >= self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Hash over everything so far.
    pub(crate) fn hash(&self) -> u64 {
        self.digest.value()
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The lines kept, oldest first, as text.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Actor, Chronicle, TAIL_LINES};

    #[test]
    fn lines_fill_their_gaps_and_old_ones_go() {
        let mut log = Chronicle::new(false);
        for n in 0..100 {
            log.note(
                1_234 + n,
                Actor::Master(2),
                "leads term {} of {}",
                [n, 3, 0, 0],
            );
        }
        assert_eq!(log.lines().len(), TAIL_LINES);
        let last = log.lines().pop().unwrap_or_default();
        assert_eq!(last, "     1.333 master 2  leads term 99 of 3");
    }

    #[test]
    fn the_hash_sees_marks_lines_and_words() {
        let hash = |f: &dyn Fn(&mut Chronicle)| {
            let mut log = Chronicle::new(false);
            f(&mut log);
            log.hash()
        };
        let base = hash(&|log| log.mark(1, Actor::World, 2, 3));
        assert_eq!(base, hash(&|log| log.mark(1, Actor::World, 2, 3)));
        assert_ne!(base, hash(&|log| log.mark(1, Actor::World, 2, 4)));
        assert_ne!(
            hash(&|log| log.say(1, Actor::World, "x", [0; 4], "a")),
            hash(&|log| log.say(1, Actor::World, "x", [0; 4], "b"))
        );
    }
}
