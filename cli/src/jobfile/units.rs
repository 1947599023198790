//! Amounts with units: durations, memory, and numbers in thousandths.

/// Longest duration that a job file may name; ten years.
const MAX_DURATION_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// Units of memory, smallest first.
const MEMORY_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// What is wrong with an amount, and what would be right.
pub(super) type Wrong = (String, String);

/// Milliseconds of a text such as `1h 30m`.
pub(super) fn duration_ms(text: &str) -> Result<u64, Wrong> {
    let hint = || "a number with a unit, such as \"90s\", \"15m\" or \"1h 30m\"".to_owned();
    let duration = humantime::parse_duration(text.trim())
        .map_err(|e| (format!("`{text}` is no duration: {e}"), hint()))?;
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms > MAX_DURATION_MS {
        return Err((
            format!("`{text}` is longer than 10 years"),
            "leave it out if there is no limit".into(),
        ));
    }
    if ms == 0 && !duration.is_zero() {
        return Err((
            format!("`{text}` is shorter than a millisecond"),
            "at least \"1ms\"".into(),
        ));
    }
    Ok(ms)
}

/// Bytes of a text such as `1.5GiB`.
pub(super) fn memory_bytes(text: &str) -> Result<u64, Wrong> {
    let hint = || "a number with a unit, such as \"256MiB\" or \"16GiB\"".to_owned();
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim();
    if trimmed.starts_with('-') {
        return Err((format!("`{text}` is negative"), hint()));
    }
    if number.is_empty() {
        return Err((format!("`{text}` is no amount of memory"), hint()));
    }
    if unit.is_empty() {
        return Err((format!("`{text}` has no unit"), hint()));
    }
    let Some((_, scale)) = MEMORY_UNITS.iter().find(|(name, _)| *name == unit) else {
        let nearest = super::reader::nearest(unit, MEMORY_UNITS.iter().map(|(name, _)| *name));
        let hint = nearest.map_or_else(hint, |n| format!("did you mean `{number}{n}`?"));
        return Err((format!("`{unit}` is no unit of memory"), hint));
    };
    decimal(number, *scale)
        .ok_or_else(|| (format!("`{text}` is no whole number of bytes"), hint()))
        .and_then(|bytes| {
            u64::try_from(bytes).map_err(|_| (format!("`{text}` is too large"), hint()))
        })
}

/// `number` times `scale`, rounded down; `None` if it is no decimal number.
fn decimal(number: &str, scale: u64) -> Option<u128> {
    // Long enough for every sensible amount, short enough not to overflow below.
    const MAX_DIGITS: usize = 18;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let mut value = whole * u128::from(scale);
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().ok()?;
        value += digits * u128::from(scale) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    }
    Some(value)
}

/// Thousandths of a number from 0 to `max` with at most three decimals.
pub(super) fn thousandths(number: f64, max: u32) -> Result<u32, Wrong> {
    // Far above what doubles lose in a product, far below a thousandth.
    const SLACK: f64 = 1e-6;
    let range = || format!("a number from 0 to {max}");
    if !number.is_finite() {
        return Err((format!("{number} is no amount"), range()));
    }
    if number < 0.0 {
        return Err((format!("{number} is negative"), range()));
    }
    if number > f64::from(max) {
        return Err((format!("{number} is too large"), range()));
    }
    let milli = (number * 1000.0).round();
    if (number * 1000.0 - milli).abs() > SLACK {
        return Err((
            format!("{number} has more than three decimals"),
            "thousandths are the finest share".into(),
        ));
    }
    Ok(milli as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("256MiB", 256 << 20),
            ("1.5GiB", 3 << 29),
            ("16 GiB", 16 << 30),
            ("2GB", 2_000_000_000),
            ("1kB", 1_000),
        ] {
            assert_eq!(memory_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_memory_says_what_is_wrong() {
        for (text, what) in [
            ("-1GiB", "negative"),
            ("256", "no unit"),
            ("256MIB", "no unit of memory"),
            ("much", "no amount"),
            ("", "no amount"),
            ("1.2.3GiB", "no whole number"),
            ("999999999999TiB", "too large"),
        ] {
            let (said, _) = memory_bytes(text).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
        assert!(memory_bytes("256Mib").unwrap_err().1.contains("`256MiB`"));
    }

    #[test]
    fn durations_need_a_unit_and_a_bound() {
        assert_eq!(duration_ms("1h 30m"), Ok(5_400_000));
        assert_eq!(duration_ms("250ms"), Ok(250));
        for text in ["", "90", "ten seconds", "-1s", "1ns", "11years", "1s x"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_exact_thousandths() {
        assert_eq!(thousandths(0.1, 8), Ok(100));
        assert_eq!(thousandths(0.333, 8), Ok(333));
        assert_eq!(thousandths(8.0, 8), Ok(8_000));
        for number in [-1.0, 8.001, 0.0001, f64::NAN, f64::INFINITY] {
            assert!(thousandths(number, 8).is_err(), "{number}");
        }
    }
}
