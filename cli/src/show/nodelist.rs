//! Lists of node names as Slurm writes them: `n[1-3,7]`, `gpu[01-16]`.

use std::collections::BTreeMap;

/// Most names that one written list may stand for.
const MAX_NAMES: usize = 65_536;

/// Writes names, folding those that differ only in a number at the end.
pub(crate) fn fold<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    // Prefix and width of the number (0 without leading zeros) to the numbers; names without a number by themselves.
    let mut families: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
    let mut parts: Vec<String> = Vec::new();
    for name in names {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[prefix.len()..];
        match digits.parse::<u64>() {
            Ok(number) => {
                let width = if digits.starts_with('0') {
                    digits.len()
                } else {
                    0
                };
                let family = families.entry((prefix, width)).or_default();
                family.push(number);
            }
            Err(_) => parts.push(name.to_owned()),
        }
    }
    merge_widths(&mut families);
    for ((prefix, width), mut numbers) in families {
        numbers.sort_unstable();
        numbers.dedup();
        let number = |n: &u64| format!("{n:0width$}");
        match numbers.as_slice() {
            [only] => parts.push(format!("{prefix}{}", number(only))),
            many => {
                let ranges: Vec<String> = runs(many)
                    .into_iter()
                    .map(|(a, b)| match a == b {
                        true => number(&a),
                        false => format!("{}-{}", number(&a), number(&b)),
                    })
                    .collect();
                parts.push(format!("{prefix}[{}]", ranges.join(",")));
            }
        }
    }
    parts.sort();
    parts.dedup();
    parts.join(",")
}

/// `gpu09` and `gpu10` are one family: a number that fills a padded family's width joins it.
fn merge_widths(families: &mut BTreeMap<(&str, usize), Vec<u64>>) {
    let padded: Vec<(&str, usize)> = families.keys().filter(|k| k.1 > 0).copied().collect();
    for key in padded {
        let Some(plain) = families.get_mut(&(key.0, 0)) else {
            continue;
        };
        let fills = |n: &u64| n.to_string().len() == key.1;
        let joined: Vec<u64> = plain.iter().copied().filter(fills).collect();
        plain.retain(|n| !fills(n));
        if plain.is_empty() {
            families.remove(&(key.0, 0));
        }
        families.entry(key).or_default().extend(joined);
    }
}

fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    runs
}

/// The names that a written list stands for; `None` if it is malformed or stands for too many.
pub(crate) fn unfold(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in split_outside_brackets(list) {
        let Some((prefix, rest)) = part.split_once('[') else {
            if part.is_empty() || part.contains(']') {
                return None;
            }
            names.push(part.to_owned());
            continue;
        };
        let (inside, suffix) = rest.split_once(']')?;
        for range in inside.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let width = first.len();
            let (a, b): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if b < a || b - a >= MAX_NAMES as u64 {
                return None;
            }
            names.extend((a..=b).map(|n| format!("{prefix}{n:0width$}{suffix}")));
            if names.len() > MAX_NAMES {
                return None;
            }
        }
    }
    Some(names)
}

fn split_outside_brackets(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0i32);
    for (i, c) in list.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_as_slurm_writes_them() {
        for (names, expected) in [
            (vec!["n1", "n2", "n3"], "n[1-3]"),
            (vec!["n3", "n1", "n7", "n2"], "n[1-3,7]"),
            (vec!["n1"], "n1"),
            (vec!["gpu08", "gpu09", "gpu10", "gpu11"], "gpu[08-11]"),
            (vec!["a1", "b1", "login"], "a1,b1,login"),
            (vec!["n1", "n01"], "n01,n1"),
            (vec!["n2", "n2"], "n2"),
            (vec![], ""),
        ] {
            assert_eq!(fold(names.iter().copied()), expected, "{names:?}");
        }
    }

    #[test]
    fn what_was_folded_unfolds_again() {
        for names in [
            vec!["gpu08", "gpu09", "gpu10", "gpu11"],
            vec!["n1", "n2", "n9", "n10", "n11", "n100"],
            vec!["login", "n7"],
        ] {
            let mut unfolded = unfold(&fold(names.iter().copied())).unwrap();
            unfolded.sort();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            assert_eq!(unfolded, sorted);
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for list in [
            "n[",
            "n[1-",
            "n[3-1]",
            "n[a-b]",
            "n[1-999999999]",
            "",
            "a,,b",
            "n]",
        ] {
            assert_eq!(unfold(list), None, "{list}");
        }
    }
}
