//! How good a wall is, in one letter.
//!
//! Each promise of the wall is carried by layers that hold independently of one
//! another. The grade counts, for the weakest promise, how many are there.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::layer::Layer;

/// How good a wall is. The first is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Grade {
    /// Every layer is there, and a forbidden call leaves evidence.
    A,
    /// Something is missing, but every promise of isolation is carried by at
    /// least two layers that hold independently, so that one may fail.
    B,
    /// Some promise of isolation is carried by one layer only.
    C,
    /// Some promise of isolation is carried by none: what is left is the engine.
    D,
}

impl Grade {
    /// All, from the best.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// What it means, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::A => "every layer is there, and a forbidden call leaves evidence",
            Self::B => "something is missing, but no promise of isolation rests on one layer alone",
            Self::C => "some promise of isolation rests on one layer alone",
            Self::D => "some promise of isolation is kept by the engine alone",
        }
    }
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        })
    }
}

/// A name that is no grade.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no grade: A, B, C or D")]
pub struct UnknownGrade(pub String);

impl std::str::FromStr for Grade {
    type Err = UnknownGrade;

    fn from_str(name: &str) -> Result<Self, UnknownGrade> {
        Self::ALL
            .into_iter()
            .find(|grade| name.eq_ignore_ascii_case(&grade.to_string()))
            .ok_or_else(|| UnknownGrade(name.to_owned()))
    }
}

/// What the wall promises, and what carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// Its name.
    pub name: &'static str,
    /// What it promises, in a sentence.
    pub what: &'static str,
    /// Whether it is one of isolation, or one that makes an attack harder or
    /// bounds what it costs.
    pub isolation: bool,
    /// What carries it: each holds without the others. One of several layers
    /// needs them all.
    pub carriers: &'static [&'static [Layer]],
}

impl Promise {
    /// How many of its carriers are there, without these layers.
    pub fn carried(&self, missing: &[Layer]) -> usize {
        self.carriers
            .iter()
            .filter(|carrier| carrier.iter().all(|layer| !missing.contains(layer)))
            .count()
    }
}

/// Every promise. Landlock's rules over TCP, sockets and signals are not
/// counted: they depend on the kernel's version, and one is known to leak.
pub const PROMISES: &[Promise] = &[
    Promise {
        name: "files",
        what: "no file but what was granted",
        isolation: true,
        carriers: &[
            &[Layer::Seccomp],
            &[Layer::Landlock],
            &[Layer::MountNamespace, Layer::EmptyRoot],
        ],
    },
    Promise {
        name: "network",
        what: "no network",
        isolation: true,
        carriers: &[&[Layer::Seccomp], &[Layer::NetworkNamespace]],
    },
    Promise {
        name: "processes",
        what: "no other process",
        isolation: true,
        carriers: &[&[Layer::Seccomp], &[Layer::PidNamespace]],
    },
    Promise {
        name: "queues",
        what: "no System V object, no message queue",
        isolation: true,
        carriers: &[&[Layer::Seccomp], &[Layer::IpcNamespace]],
    },
    Promise {
        name: "privileges",
        what: "no privilege over anything outside",
        isolation: true,
        carriers: &[
            &[Layer::Seccomp],
            &[Layer::UserNamespace],
            &[Layer::Capabilities, Layer::NoNewPrivs],
        ],
    },
    Promise {
        name: "inheritance",
        what: "nothing of the host's but what is listed",
        isolation: true,
        carriers: &[&[Layer::Descriptors, Layer::Environment]],
    },
    Promise {
        name: "code",
        what: "no new code",
        isolation: false,
        carriers: &[&[Layer::Seccomp], &[Layer::Mdwe]],
    },
    Promise {
        name: "limits",
        what: "no more memory, files and processes than allowed",
        isolation: false,
        carriers: &[&[Layer::Rlimits]],
    },
    Promise {
        name: "name",
        what: "the host's name isn't told",
        isolation: false,
        carriers: &[&[Layer::UtsNamespace]],
    },
];

/// The grade of a wall without these layers; `evidence` is whether a forbidden
/// call is told to the host.
pub fn grade(missing: &[Layer], evidence: bool) -> Grade {
    let least = |wanted: usize| {
        PROMISES
            .iter()
            .filter(|promise| promise.isolation)
            .all(|promise| promise.carried(missing) >= wanted.min(promise.carriers.len()))
    };
    match () {
        () if missing.is_empty() && evidence => Grade::A,
        () if least(2) => Grade::B,
        () if least(1) => Grade::C,
        () => Grade::D,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_are_as_documented() {
        use Layer::*;
        let namespaces = [
            UserNamespace,
            PidNamespace,
            MountNamespace,
            NetworkNamespace,
            IpcNamespace,
            UtsNamespace,
            EmptyRoot,
        ];
        for (missing, expected) in [
            (&[][..], Grade::A),
            // Older kernels: no MDWE before 6.3, no Landlock before 5.13.
            (&[Mdwe], Grade::B),
            (&[Landlock], Grade::B),
            (&[Mdwe, Landlock], Grade::B),
            (&[UtsNamespace, Rlimits], Grade::B),
            // A container that allows no namespaces.
            (&namespaces, Grade::C),
            // Then one more is one too many, or not.
            (&[Seccomp], Grade::C),
            (&[PidNamespace, Seccomp], Grade::D),
            (&[Environment], Grade::D),
            (Layer::ALL, Grade::D),
        ] {
            assert_eq!(grade(missing, true), expected, "without {missing:?}");
        }
        assert_eq!(grade(&[], false), Grade::B);
    }

    #[test]
    fn losing_more_is_never_better() {
        for a in Layer::ALL {
            for b in Layer::ALL {
                assert!(grade(&[*a, *b], true) >= grade(&[*a], true), "{a} {b}");
            }
        }
    }

    /// Every layer is there for something.
    #[test]
    fn every_layer_carries_a_promise() {
        for layer in Layer::ALL {
            assert!(
                PROMISES
                    .iter()
                    .any(|promise| promise.carriers.iter().any(|all| all.contains(layer))),
                "{layer}"
            );
        }
    }

    #[test]
    fn names_go_both_ways() {
        for grade in Grade::ALL {
            assert_eq!(grade.to_string().parse(), Ok(grade));
            assert_eq!(serde_json::to_value(grade).unwrap(), grade.to_string());
        }
        assert_eq!("b".parse(), Ok(Grade::B));
        assert!("E".parse::<Grade>().is_err());
        assert!(Grade::A < Grade::D);
    }
}
