//! Values that TOML has no type for.

/// Bytes from `80GiB`, `80G`, `512 MiB` or a plain number.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len()
        - text
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            .len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, fraction)) => {
            let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
            let digits = u32::try_from(fraction.len())
                .ok()
                .filter(|n| (1..=9).contains(n))?;
            let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor);
            let part = u64::try_from(part / 10u128.pow(digits)).ok()?;
            whole.checked_add(part)
        }
    }
}

/// First port and how many, from `20000-20999`.
pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let parse = |part: &str| part.trim().parse::<u16>().ok();
    let range = text
        .split_once('-')
        .and_then(|(a, b)| Some((parse(a)?, parse(b)?)));
    match range {
        Some((first, last)) if first >= 1024 && first <= last => {
            Ok((first, (last - first).saturating_add(1)))
        }
        Some((first, last)) => Err(format!("{first}-{last} is no range of free ports")),
        None => Err(format!("`{text}` is no range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_ranges() {
        for (text, expected) in [
            ("80GiB", Some(80 << 30)),
            ("1.5G", Some(3 << 29)),
            ("1000 MB", Some(1_000_000_000)),
            ("12", Some(12)),
            ("", None),
            ("GiB", None),
            ("-1G", None),
            ("5 apples", None),
            ("99999999999T", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(ports("20000-20999"), Ok((20_000, 1_000)));
        assert_eq!(ports("1024-65535"), Ok((1_024, 64_512)));
        for bad in ["", "20000", "7-9", "3000-2000", "1-70000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
