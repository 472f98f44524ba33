//! Numbers of processors, such as `0.5`.

use std::str::FromStr;

use thiserror::Error;

/// Thousandths of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores(pub u32);

/// Text that is no number of processors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a number of processors; write one such as 0.5, with at most three digits behind the point"
)]
pub(crate) struct CoresError(String);

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        let fail = || CoresError(text.to_owned());
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.is_empty() || part.len() > 3 || !digits(whole) || !digits(part)
        {
            return Err(fail());
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| fail());
        // Thousandths: as many zeros as are missing.
        let part = number(&format!("{part:0<3}"))?;
        number(whole)?
            .checked_mul(1000)
            .and_then(|whole| whole.checked_add(part))
            .map(Self)
            .ok_or_else(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths() {
        for (text, thousandths) in [("0.5", 500), ("1", 1000), ("0.25", 250), ("1.001", 1001)] {
            assert_eq!(text.parse(), Ok(Cores(thousandths)), "{text}");
        }
        for text in [
            "",
            ".",
            "0.",
            ".5",
            "-1",
            "+1",
            "0.0001",
            "half",
            "1e3",
            "5000000",
            "99999999999",
            "0,5",
        ] {
            let error = text.parse::<Cores>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
