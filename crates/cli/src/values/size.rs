//! Sizes in bytes, such as `64MiB` or `1G`.

use std::str::FromStr;

use parse_size::Config;
use thiserror::Error;

/// A number of bytes. Units are powers of 1024, with or without the `i`, as
/// memory is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

/// Text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a size: {reason}; write bytes or a unit such as 64MiB or 1G")]
pub(crate) struct SizeError {
    text: String,
    reason: String,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let config = Config::new().with_binary();
        config
            .parse_size(text)
            .map(Self)
            .map_err(|error| SizeError {
                text: text.to_owned(),
                reason: error.to_string(),
            })
    }
}

/// A size for people: `17 B`, `1.5 MiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        // What would be printed as 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("64MiB", 64 << 20),
            ("1G", 1 << 30),
            ("1GB", 1 << 30),
            ("1.5 k", 1536),
            ("2tib", 2 << 40),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named() {
        for text in ["", "MiB", "-1", "1X", "1e400", "99999999999E"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("64MiB"),
                "{error}"
            );
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
