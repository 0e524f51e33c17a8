//! Times of the server as a person reads them: how long ago, or how long until.

use jiff::Timestamp;

/// How long ago that was, in its greatest unit: `5s`, `12m`, `3h`, `9d`. `0s` when it is to come.
/// A text that is no time stays as it is.
pub(super) fn since(stamp: &str, now: Timestamp) -> String {
    seconds(stamp, |at| now.as_second() - at.as_second())
}

/// The same for how long it is until then. `0s` when it is past.
pub(super) fn until(stamp: &str, now: Timestamp) -> String {
    seconds(stamp, |at| at.as_second() - now.as_second())
}

/// The time itself, and how long ago that was.
pub(in crate::cli) fn at(stamp: &str, now: Timestamp) -> String {
    format!("{stamp} ({} ago)", since(stamp, now))
}

fn seconds(stamp: &str, distance: impl FnOnce(Timestamp) -> i64) -> String {
    let Ok(at) = stamp.parse() else { return stamp.to_owned() };
    match distance(at).max(0) {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7_200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_told_in_its_greatest_unit() {
        let now = "2026-11-23T12:00:00Z".parse().expect("a time");
        for (stamp, age) in [
            ("2026-11-23T11:59:55.500Z", "5s"),
            ("2026-11-23T11:58:01Z", "119s"),
            ("2026-11-23T11:48:00Z", "12m"),
            ("2026-11-23T09:00:00Z", "3h"),
            ("2026-11-14T12:00:00Z", "9d"),
            ("2026-11-23T12:00:07Z", "0s"),
            ("soon", "soon"),
        ] {
            assert_eq!(since(stamp, now), age);
        }
        assert_eq!(until("2026-11-23T12:00:07Z", now), "7s");
    }
}
