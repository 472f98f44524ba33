//! What was found, in words.

use serde::Serialize;

use super::controller::Controller;
use super::limits::Mode;

/// Whether a controller can be used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Availability {
    /// It can.
    Works {
        /// Where groups are made.
        detail: String,
    },
    /// It can't.
    Missing {
        /// Why.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// What was found of one controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// The controller.
    pub controller: Controller,
    /// Whether it can be used.
    #[serde(flatten)]
    pub availability: Availability,
}

impl Probed {
    /// Why it can't be used, and what to do.
    pub fn missing(&self) -> Option<(&str, &'static str)> {
        match &self.availability {
            Availability::Works { .. } => None,
            Availability::Missing { why, remedy } => Some((why, remedy)),
        }
    }
}

/// A line about controllers that are missing, and the first one's remedy; nothing
/// if all that a whole set of limits needs are there.
pub(super) fn degraded(mode: Mode, found: &[Probed]) -> Option<(String, &'static str)> {
    if mode == Mode::Off {
        return None;
    }
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    let mut first = None;
    for probed in found {
        let Some((why, remedy)) = probed.missing() else {
            continue;
        };
        if !Controller::REQUIRED.contains(&probed.controller) {
            continue;
        }
        first.get_or_insert(remedy);
        let name = probed.controller.name();
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why.to_owned(), vec![name])),
        }
    }
    let parts: Vec<String> = reasons
        .into_iter()
        .map(|(why, names)| format!("no {}: {why}", names.join(", ")))
        .collect();
    Some((parts.join("; "), first?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_are_the_same_are_said_once() {
        let probed = |controller, why: Option<&str>| Probed {
            controller,
            availability: match why {
                None => Availability::Works {
                    detail: "v2".into(),
                },
                Some(why) => Availability::Missing {
                    why: why.into(),
                    remedy: "do something",
                },
            },
        };
        let found = [
            probed(Controller::Memory, Some("read-only")),
            probed(Controller::Cpu, None),
            probed(Controller::Pids, Some("read-only")),
            probed(Controller::Io, Some("no weights")),
        ];
        assert_eq!(
            degraded(Mode::Auto, &found),
            Some(("no memory, pids: read-only".into(), "do something"))
        );
        assert_eq!(degraded(Mode::Off, &found), None);
        assert_eq!(degraded(Mode::Auto, &found[1..2]), None);
        let without_io = [probed(Controller::Io, Some("no weights"))];
        assert_eq!(degraded(Mode::Require, &without_io), None);
    }
}
