//! Times for people and for scripts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 9999-12-31: the last moment that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_000;

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn rfc3339(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS));
    humantime::format_rfc3339_millis(at).to_string()
}

/// Seconds, for scripts.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A span as Slurm writes it: `0:05`, `12:34`, `1:02:03`, `2-01:02:03`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() == 0.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Thousandths as a number without needless zeros: 1000 is `1`, 500 is `0.5`.
pub(crate) fn milli(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1000, n % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_slurm_does() {
        for (ms, expected) in [
            (0, "0:00"),
            (59_999, "0:59"),
            (754_000, "12:34"),
            (3_723_000, "1:02:03"),
            (176_523_000, "2-01:02:03"),
        ] {
            assert_eq!(span(ms), expected);
        }
    }

    #[test]
    fn times_are_rfc3339_in_utc_and_never_panic() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn amounts_have_no_needless_digits() {
        for (n, expected) in [
            (0, "0"),
            (1000, "1"),
            (500, "0.5"),
            (1_125, "1.125"),
            (80_000, "80"),
        ] {
            assert_eq!(milli(n), expected);
        }
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(256 << 20), "256 MiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
    }
}
