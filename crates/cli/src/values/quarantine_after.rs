//! When a tenant is quarantined: `3`, or `1:critical`.

use std::num::NonZeroU32;
use std::str::FromStr;

use lazaret::QuarantinePolicy;
use lazaret::incident::Severity;

/// A number of incidents, and how bad they must be to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuarantineAfter(pub QuarantinePolicy);

impl FromStr for QuarantineAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, severity) = match text.split_once(':') {
            Some((number, severity)) => {
                let severity: Severity = severity.parse().map_err(|error| format!("{error}"))?;
                (number, severity)
            }
            None => (text, Severity::High),
        };
        let after: NonZeroU32 = number
            .parse()
            .map_err(|_| format!("`{number}` is no number of incidents, 1 or more"))?;
        Ok(Self(QuarantinePolicy { after, severity }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_severities_are_read() {
        let read = |text: &str| {
            text.parse::<QuarantineAfter>()
                .map(|QuarantineAfter(policy)| (policy.after.get(), policy.severity))
        };
        assert_eq!(read("3"), Ok((3, Severity::High)));
        assert_eq!(read("1:critical"), Ok((1, Severity::Critical)));
        assert!(read("0").unwrap_err().contains("`0`"));
        assert!(read("-1").is_err());
        assert!(read("3:dire").unwrap_err().contains("no severity"));
        assert!(read(":low").is_err());
    }
}
