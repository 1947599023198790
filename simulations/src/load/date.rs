//! Dates as traces write them.

/// Seconds since 1970 of `2017-10-09 07:01:55` or `2017-10-09T07:01:55` (a fraction and a final `Z` are ignored),
/// counted as if it were UTC. `None` if it is no such date.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' '])?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let sound = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let seconds = hour * 3600 + minute * 60 + second;
    sound.then(|| days_since_1970(year, month, day) * 86_400 + seconds)
}

/// Three whole numbers without signs.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// In the proleptic Gregorian calendar, with years that begin in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::unix_seconds;

    #[test]
    fn known_dates_and_what_is_none() {
        let cases = [
            ("1970-01-01 00:00:00", Some(0)),
            ("2000-03-01T00:00:01", Some(951_868_801)),
            ("2017-10-09 07:01:55", Some(1_507_532_515)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("1969-12-31 23:59:59.5", Some(-1)),
            ("2023-02-29 00:00:00", None),
            ("2023-13-01 00:00:00", None),
            ("2023-1-1", None),
            ("2023-01-01 24:00:00", None),
            ("2023-01-01 -1:00:00", None),
            ("Unknown", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(unix_seconds(text), wanted, "{text}");
        }
    }
}
