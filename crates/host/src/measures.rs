//! Which measures against side channels workers are started with.

use lazaret_wall::measures::{self, Entry, Expected, Measure};
use lazaret_wall::receipt::Early;
use lazaret_wire::message::{Assignment, Clock};
use thiserror::Error;

/// Which measures are left out, and which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeasureOptions {
    /// Left out on purpose.
    pub off: Vec<Measure>,
    /// Without these no worker runs.
    pub required: Vec<Measure>,
}

/// A measure that is required doesn't hold for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("measure {measure} is required, but: {found}; {}", measure.remedy())]
pub struct Refused {
    /// The measure.
    pub measure: Measure,
    /// How it stands.
    pub found: String,
}

impl MeasureOptions {
    /// What a tenant's worker leaves out, and why.
    pub(crate) fn off_for_tenants(&self) -> Vec<(Measure, &'static str)> {
        self.off_where(None)
    }

    /// What a worker for this leaves out, and why.
    pub(crate) fn off_for(&self, assignment: &Assignment) -> Vec<(Measure, &'static str)> {
        let clocks = match assignment {
            Assignment::Tenant(_) => None,
            Assignment::Compiler => Some("a compiler times its passes"),
            Assignment::Program(setup) => match setup.clock {
                Clock::Exact => Some("the program was given exact clocks"),
                Clock::Coarse | Clock::Frozen => None,
            },
        };
        self.off_where(clocks)
    }

    /// What is left out where the cycle counter is needed for this.
    fn off_where(&self, clocks: Option<&'static str>) -> Vec<(Measure, &'static str)> {
        Measure::ALL
            .iter()
            .filter_map(|&measure| match clocks {
                _ if self.off.contains(&measure) => Some((measure, "turned off")),
                Some(why) if measure == Measure::CycleCounter => Some((measure, why)),
                _ => None,
            })
            .collect()
    }

    /// How every measure stands for a worker, unless one that is required doesn't
    /// hold. A compiler and a program with exact clocks keep the cycle counter,
    /// which was their giver's choice.
    pub(crate) fn verify(
        &self,
        pid: i32,
        status: &str,
        early: &Early,
        told: &[String],
        off: &[(Measure, &'static str)],
    ) -> Result<Vec<Entry>, Refused> {
        let missing: Vec<Measure> = told.iter().filter_map(|name| name.parse().ok()).collect();
        let entries = measures::verify(&Expected {
            pid,
            status,
            early,
            missing: &missing,
            off,
        });
        let refused = entries.iter().find(|entry| {
            self.required.contains(&entry.measure)
                && !entry.standing.holds()
                && off
                    .iter()
                    .all(|(of, _)| *of != entry.measure || self.off.contains(of))
        });
        match refused {
            None => Ok(entries),
            Some(Entry { measure, standing }) => Err(Refused {
                measure: *measure,
                found: standing.words().to_owned(),
            }),
        }
    }
}
