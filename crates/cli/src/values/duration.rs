//! Durations, such as `500ms` or `2s`.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A limit in time: more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeLimit(pub Duration);

/// Text that is no time limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is not a time limit: {reason}; write a number and a unit such as 500ms, 2s or 1m"
)]
pub(crate) struct TimeLimitError {
    text: String,
    reason: String,
}

impl FromStr for TimeLimit {
    type Err = TimeLimitError;

    fn from_str(text: &str) -> Result<Self, TimeLimitError> {
        let fail = |reason: String| TimeLimitError {
            text: text.to_owned(),
            reason,
        };
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err(fail("it is zero".into())),
            Ok(limit) => Ok(Self(limit)),
            Err(error) => Err(fail(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2000),
            ("1m", 60_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(
                text.parse::<TimeLimit>(),
                Ok(TimeLimit(Duration::from_millis(millis))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_limit_is_named() {
        for text in [
            "",
            "2",
            "s",
            "-1s",
            "0s",
            "1 fortnight",
            "99999999999999999999s",
        ] {
            let error = text.parse::<TimeLimit>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("500ms"),
                "{error}"
            );
        }
    }
}
