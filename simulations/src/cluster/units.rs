//! Amounts with units.

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Bytes of a text such as `80GiB`, `1.5 TB` or `4096B`. `None` if it is no such amount.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, factor) = match unit {
        Some((unit, factor)) => (text.strip_suffix(unit)?, *factor),
        None => (text.strip_suffix('B')?, 1),
    };
    let bytes = number.trim().parse::<f64>().ok()? * factor as f64;
    let sound = bytes >= 0.0 && bytes <= (1u64 << 60) as f64;
    sound.then(|| bytes.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn amounts_need_a_unit() {
        let cases = [
            ("80GiB", Some(80 << 30)),
            (" 1.5 TB ", Some(1_500_000_000_000)),
            ("4096B", Some(4096)),
            ("80", None),
            ("-1GiB", None),
            ("GiB", None),
            ("9999999TiB", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }
}
