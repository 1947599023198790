//! Settings behind a policy's name: `las:queues=18000,starvation=8`.
//!
//! A name, a colon, then `key=value` separated by commas; a list inside a value is separated by `/`. Nothing in it needs
//! quotes in a shell or in TOML.

use std::str::FromStr;

use berth_core::policy::Backfill;
use thiserror::Error;

/// A policy's name that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// No policy is called so.
    #[error("no policy is called `{name}`; did you mean `{nearest}`? (there are {known})")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The name most like it.
        nearest: &'static str,
        /// All of them.
        known: String,
    },
    /// What stands behind the name is no list of settings.
    #[error("`{text}` is no setting; settings look like `las:queues=18000,starvation=8`")]
    Syntax {
        /// What stands there.
        text: String,
    },
    /// The policy has no such setting.
    #[error("policy `{policy}` has no setting `{key}`; {hint}")]
    Key {
        /// The policy.
        policy: String,
        /// The setting asked for.
        key: String,
        /// What it has instead.
        hint: String,
    },
    /// A setting's value does not hold.
    #[error("policy `{policy}`: {key}={value} does not hold; it takes {wants}")]
    Value {
        /// The policy.
        policy: String,
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        wants: String,
    },
}

/// The settings of one policy. Each is taken by the policy that knows it; what is left over is an error.
#[derive(Clone, Debug)]
pub struct Options {
    policy: String,
    pairs: Vec<(String, String)>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
}

impl Options {
    /// Splits `NAME` or `NAME:KEY=VALUE,...` into the name and its settings.
    ///
    /// # Errors
    /// If a setting has no `=`, or stands there twice.
    pub fn parse(text: &str) -> Result<(&str, Self), NameError> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let mut pairs: Vec<(String, String)> = Vec::new();
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let pair = setting.split_once('=');
            let pair = pair.filter(|(key, _)| pairs.iter().all(|(known, _)| known != key));
            let Some((key, value)) = pair else {
                let text = setting.to_owned();
                return Err(NameError::Syntax { text });
            };
            pairs.push((key.to_owned(), value.to_owned()));
        }
        let options = Self {
            policy: name.to_owned(),
            pairs,
            known: Vec::new(),
        };
        Ok((name, options))
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn wrong(&self, key: &'static str, value: String, wants: &str) -> NameError {
        NameError::Value {
            policy: self.policy.clone(),
            key,
            value,
            wants: wants.to_owned(),
        }
    }

    /// A number within bounds, or the default.
    ///
    /// # Errors
    /// If it is no number, or out of bounds.
    pub fn number<N>(
        &mut self,
        key: &'static str,
        default: N,
        bounds: std::ops::RangeInclusive<N>,
    ) -> Result<N, NameError>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.take(key) else {
            return Ok(default);
        };
        let number = value.parse().ok().filter(|number| bounds.contains(number));
        let wants = || format!("a number from {} to {}", bounds.start(), bounds.end());
        number.ok_or_else(|| self.wrong(key, value, &wants()))
    }

    /// Numbers separated by `/`, ascending, or the default.
    ///
    /// # Errors
    /// If one of them is no number, or they do not ascend.
    pub fn ascending(&mut self, key: &'static str, default: &[u64]) -> Result<Vec<u64>, NameError> {
        let Some(value) = self.take(key) else {
            return Ok(default.to_vec());
        };
        let numbers: Option<Vec<u64>> = value.split('/').map(|n| n.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.is_sorted_by(|a, b| a < b));
        numbers.ok_or_else(|| self.wrong(key, value, "ascending numbers, such as 3250/7200"))
    }

    /// One of several words; the first is the default.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<T, NameError> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let value = self.take(key);
        let word = value.as_deref().or(words.first().copied());
        let chosen = choices.iter().find(|(known, _)| Some(*known) == word);
        chosen.map(|(_, chosen)| *chosen).ok_or_else(|| {
            let wants = format!("one of {}", words.join(", "));
            self.wrong(key, value.unwrap_or_default(), &wants)
        })
    }

    /// `yes` or `no`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, NameError> {
        match default {
            true => self.choice(key, &[("yes", true), ("no", false)]),
            false => self.choice(key, &[("no", false), ("yes", true)]),
        }
    }

    /// What happens behind a job that does not fit: `backfill=easy`, `greedy` or `none`.
    ///
    /// # Errors
    /// If it is another word.
    pub fn backfill(&mut self) -> Result<Backfill, NameError> {
        self.choice(
            "backfill",
            &[
                ("easy", Backfill::BehindReservation),
                ("greedy", Backfill::Greedy),
                ("none", Backfill::Strict),
            ],
        )
    }

    /// Says no to what nobody took.
    ///
    /// # Errors
    /// With the nearest key that there is.
    pub fn finish(self) -> Result<(), NameError> {
        let Some((key, _)) = self.pairs.into_iter().next() else {
            return Ok(());
        };
        let distance = |known: &&&str| strsim::damerau_levenshtein(known, &key);
        let hint = match self.known.iter().min_by_key(distance) {
            Some(near) => format!(
                "did you mean `{near}`? (there are {})",
                self.known.join(", ")
            ),
            None => "it has none".to_owned(),
        };
        let policy = self.policy;
        Err(NameError::Key { policy, key, hint })
    }
}
