//! Measures: what makes it harder to learn anything from beside the wall.
//!
//! A layer keeps a worker from doing something, and nothing runs without it. A
//! measure narrows what can be learned through the processor, the memory and the
//! files that all processes of a machine share. Processors and kernels differ in
//! which of them they have, so measures are best effort: each is tried, its state
//! is on the receipt and in `lazaret doctor`, and only an operator who asks for
//! one is refused a worker without it.
//!
//! One file each, with `probe` (what this host has), `apply` (in the worker,
//! right before its lock) and `verify` (from outside).

pub mod core_scheduling;
pub mod cycle_counter;
pub mod executable;
pub mod merging;
pub mod speculation;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::layer::Probe;
use crate::probe::Finding;
use crate::receipt::Early;

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Measure {
    /// The file that a worker runs can't be written by whoever runs it.
    #[serde(rename = "read-only-executable")]
    Executable,
    /// Loads don't run ahead of stores to addresses that aren't known yet.
    StoreBypass,
    /// Indirect branches aren't predicted from what others trained.
    IndirectBranch,
    /// No other worker runs on the same core at the same time.
    CoreScheduling,
    /// The cycle counter can't be read.
    CycleCounter,
    /// The kernel doesn't merge pages of the same content with anybody's.
    #[serde(rename = "no-page-merging")]
    Merging,
}

impl Measure {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Executable,
        Self::StoreBypass,
        Self::IndirectBranch,
        Self::CoreScheduling,
        Self::CycleCounter,
        Self::Merging,
    ];

    /// The name used on the command line and in receipts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Executable => "read-only-executable",
            Self::StoreBypass => "store-bypass",
            Self::IndirectBranch => "indirect-branch",
            Self::CoreScheduling => "core-scheduling",
            Self::CycleCounter => "cycle-counter",
            Self::Merging => "no-page-merging",
        }
    }

    /// What it is for, in a sentence.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Executable => {
                "a worker can't overwrite the file that the host executes next (CVE-2019-5736)"
            }
            Self::StoreBypass => {
                "guest code can't read stale data by speculating past a store (Spectre v4)"
            }
            Self::IndirectBranch => {
                "guest code can't be steered, nor steer others, by trained branch predictors (Spectre v2)"
            }
            Self::CoreScheduling => {
                "no two workers run on the threads of one core at the same time (L1TF, MDS, port contention)"
            }
            Self::CycleCounter => "a worker has no clock that is fine enough to time a cache",
            Self::Merging => {
                "a worker can't tell by the time of a write what others have in memory (KSM)"
            }
        }
    }

    /// What it costs not to have it.
    pub fn cost(self) -> &'static str {
        match self {
            Self::Executable => {
                "an ordinary user's workers are kept from that user's executable by the other layers alone"
            }
            Self::StoreBypass | Self::IndirectBranch => {
                "the engine's own measures against speculation in guest code are what is left, and what the kernel does for all processes"
            }
            Self::CoreScheduling => {
                "where cores have several threads, two tenants' workers may share one at the same time"
            }
            Self::CycleCounter => {
                "guest code that broke out of the engine can time single instructions"
            }
            Self::Merging => {
                "where merging is on for the whole process tree, a tenant can find out whether somebody has a page of known content"
            }
        }
    }

    /// What to do on a host that lacks it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Executable => "run Linux 5.12 or later; elsewhere a sealed copy is executed",
            Self::StoreBypass => {
                "boot with spec_store_bypass_disable=prctl, or =on for all processes, on a processor whose microcode has SSBD"
            }
            Self::IndirectBranch => {
                "boot with spectre_v2_user=prctl, or =on for all processes, on a processor that has IBPB and STIBP; on AMD without STIBP turn simultaneous multithreading off"
            }
            Self::CoreScheduling => {
                "boot a kernel with CONFIG_SCHED_CORE (Linux 5.14) or turn simultaneous multithreading off (nosmt)"
            }
            Self::CycleCounter => "x86-64 always has it; on aarch64 run Linux 6.12 or later",
            Self::Merging => {
                "run Linux 6.4 or later; before it nothing is merged that didn't ask for it"
            }
        }
    }

    /// What this host has of it, tried for real.
    pub fn probe(self) -> Probe {
        match self {
            Self::Executable => executable::probe(),
            Self::StoreBypass => speculation::STORE_BYPASS.probe(),
            Self::IndirectBranch => speculation::INDIRECT_BRANCH.probe(),
            Self::CoreScheduling => core_scheduling::probe(),
            Self::CycleCounter => cycle_counter::probe(),
            Self::Merging => merging::probe(),
        }
    }

    /// Takes it for this process, for good.
    fn apply(self) -> std::io::Result<()> {
        match self {
            // The launcher's.
            Self::Executable => Ok(()),
            Self::StoreBypass => speculation::STORE_BYPASS.apply(),
            Self::IndirectBranch => speculation::INDIRECT_BRANCH.apply(),
            Self::CoreScheduling => core_scheduling::apply(),
            Self::CycleCounter => cycle_counter::apply(),
            Self::Merging => merging::apply(),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no measure's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{name}` is not a measure; the measures are {known}", known = Measure::ALL.iter().map(|measure| measure.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownMeasure {
    /// The name.
    pub name: String,
}

impl FromStr for Measure {
    type Err = UnknownMeasure;

    fn from_str(name: &str) -> Result<Self, UnknownMeasure> {
        Self::ALL
            .iter()
            .copied()
            .find(|measure| measure.name() == name)
            .ok_or_else(|| UnknownMeasure {
                name: name.to_owned(),
            })
    }
}

/// How a measure stands for one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "evidence")]
pub enum Standing {
    /// Seen from outside.
    Verified(String),
    /// The worker says that it took it, and there is nothing to see from
    /// outside.
    Applied(String),
    /// There is nothing here to protect from.
    NotNeeded(String),
    /// Left out on purpose, and why.
    Off(String),
    /// This host doesn't have it.
    Missing(String),
}

impl Standing {
    /// Whether what it protects from is closed.
    pub fn holds(&self) -> bool {
        matches!(
            self,
            Self::Verified(_) | Self::Applied(_) | Self::NotNeeded(_)
        )
    }

    /// The evidence, or why there is none.
    pub fn words(&self) -> &str {
        match self {
            Self::Verified(words)
            | Self::Applied(words)
            | Self::NotNeeded(words)
            | Self::Off(words)
            | Self::Missing(words) => words,
        }
    }
}

/// One measure on a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The measure.
    pub measure: Measure,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// In a worker, right before its lock: takes every measure but those that are
/// `off`. Returns those that this host doesn't have.
///
/// Nothing of the worker may read the cycle counter afterwards: clocks that do
/// are refused by a signal ([`cycle_counter`]).
pub fn apply(off: &[Measure]) -> Vec<Measure> {
    Measure::ALL
        .iter()
        .copied()
        .filter(|measure| !off.contains(measure) && measure.apply().is_err())
        .collect()
}

/// What is to be seen of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its number on the host.
    pub pid: i32,
    /// `/proc/PID/status` of it.
    pub status: &'a str,
    /// What was seen of it since it was closed in.
    pub early: &'a Early,
    /// What the worker says that it could not take.
    pub missing: &'a [Measure],
    /// What was left out on purpose.
    pub off: &'a [(Measure, &'static str)],
}

/// Looks at a worker from outside: how every measure stands.
pub fn verify(expected: &Expected<'_>) -> Vec<Entry> {
    Measure::ALL
        .iter()
        .map(|&measure| Entry {
            measure,
            standing: standing(measure, expected),
        })
        .collect()
}

/// How a worker stands with the file that it runs.
pub(crate) fn executable(pid: i32) -> Standing {
    executable::verify(pid)
}

fn standing(measure: Measure, expected: &Expected<'_>) -> Standing {
    let off = expected.off.iter().find(|(which, _)| *which == measure);
    let missing = expected.missing.contains(&measure);
    let (pid, status) = (expected.pid, expected.status);
    let found = match measure {
        Measure::Executable => expected.early.executable().clone(),
        Measure::StoreBypass => speculation::STORE_BYPASS.verify(status),
        Measure::IndirectBranch => speculation::INDIRECT_BRANCH.verify(status),
        Measure::CoreScheduling => core_scheduling::verify(pid),
        Measure::CycleCounter => cycle_counter::verify(missing),
        Measure::Merging => merging::verify(pid, missing),
    };
    match off {
        // The launcher does its own in any case: it costs nothing.
        Some((_, why))
            if measure != Measure::Executable && !matches!(found, Standing::NotNeeded(_)) =>
        {
            Standing::Off((*why).to_owned())
        }
        _ => found,
    }
}

/// All measures, for `lazaret doctor`.
pub(crate) fn findings() -> Vec<Finding> {
    Measure::ALL
        .iter()
        .map(|measure| Finding {
            name: measure.name(),
            purpose: measure.purpose(),
            required: false,
            probe: measure.probe(),
            cost: measure.cost(),
            remedy: measure.remedy(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_a_name_of_its_own_that_parses_and_is_no_layer_s() {
        for measure in Measure::ALL {
            assert_eq!(measure.name().parse(), Ok(*measure));
            assert_eq!(serde_json::to_value(measure).unwrap(), measure.name());
            assert!(measure.name().parse::<crate::Layer>().is_err());
        }
        let error = "prayer".parse::<Measure>().unwrap_err().to_string();
        assert!(error.contains("core-scheduling"), "{error}");
    }

    /// A child takes them all, and this process sees from outside what it says.
    #[test]
    fn what_a_process_says_is_what_is_seen_of_it() {
        let (mut told, tell) = std::io::pipe().unwrap();
        let (wait, go) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls and allocates in a copy of this
        // process; with nextest it is the only thread but the harness's.
        let cloned = unsafe { crate::launcher::clone(0, None) }.unwrap();
        let crate::launcher::Cloned::Parent(pid, _pidfd) = cloned else {
            drop((told, go));
            let missing = apply(&[]);
            let bits = Measure::ALL.iter().enumerate().fold(0u8, |bits, (at, of)| {
                bits | u8::from(missing.contains(of)) << at
            });
            let _ = std::io::Write::write_all(&mut &tell, &[bits]);
            let _ = std::io::Read::read(&mut &wait, &mut [0]);
            // SAFETY: ends the child without running anybody's destructors.
            unsafe { libc::_exit(0) }
        };
        drop((tell, wait));
        let mut bits = [0];
        std::io::Read::read_exact(&mut told, &mut bits).unwrap();
        let missing: Vec<Measure> = Measure::ALL
            .iter()
            .enumerate()
            .filter(|(at, _)| bits[0] >> at & 1 == 1)
            .map(|(_, of)| *of)
            .collect();
        let looked = |pid| {
            (
                crate::receipt::status(pid).unwrap(),
                Early::look(pid).unwrap(),
            )
        };
        let (status, early) = looked(pid);
        let seen = verify(&Expected {
            pid,
            status: &status,
            early: &early,
            missing: &missing,
            off: &[],
        });
        let own = std::process::id() as i32;
        let (status, early) = looked(own);
        let before = verify(&Expected {
            pid: own,
            status: &status,
            early: &early,
            missing: &[],
            off: &[],
        });
        drop(go);
        for (entry, before) in seen.iter().zip(&before) {
            let Entry { measure, standing } = entry;
            // The executable is the launcher's business, and this has none.
            if *measure == Measure::Executable {
                assert!(!standing.holds(), "{standing:?}");
                continue;
            }
            let works = measure.probe().works();
            assert_eq!(
                standing.holds(),
                works,
                "{measure}: {standing:?}, the probe says {:?}",
                measure.probe()
            );
            assert!(
                works || missing.contains(measure),
                "{measure}: it said that it had taken it"
            );
            if let Standing::Verified(_) = standing {
                let had = matches!(measure, Measure::Merging);
                assert_eq!(before.standing.holds(), had, "{measure}: {before:?}");
            }
        }
    }
}
