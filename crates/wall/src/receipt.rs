//! The receipt: what was verified, from outside, about one worker.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::address_layout::AddressLayout;
use crate::cgroup::{Cgroups, Evidence};
use crate::grade::{Grade, grade};
use crate::layer::Layer;
use crate::layers::seccomp::Denied;
use crate::layers::{
    capabilities, descriptors, environment, landlock, mdwe, namespaces, no_new_privs, read,
    rlimits, root, seccomp, status_field,
};
use crate::measures;
use crate::off::Off;
use crate::policy::Kind;
use crate::posture::Posture;

/// How a layer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "evidence")]
pub enum State {
    /// Seen from outside.
    Verified(String),
    /// The worker says that it put it on, and there is nothing to see from
    /// outside.
    Applied(String),
    /// Missing, which the operator has accepted.
    Missing(String),
    /// Left out on purpose, by the host: why.
    Off(String),
}

/// One layer on a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The layer.
    pub layer: Layer,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

/// What was verified about one worker before any guest code ran in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The worker's number on the host.
    pub pid: i32,
    /// Its user id on the host.
    pub host_uid: u32,
    /// Its threads: always 1.
    pub threads: u32,
    /// How good the wall is, all in all.
    pub grade: Grade,
    /// Every layer.
    pub layers: Vec<Entry>,
    /// Every measure against side channels and leftovers, and how it stands.
    pub measures: Vec<measures::Entry>,
    /// The filter that its kind loads last: the hash of its instructions
    /// ([`seccomp::name`]), as the host compiles it. From outside the kernel
    /// shows only how many filters there are. Empty if the layer is left out.
    pub filter: String,
    /// What becomes of a forbidden call: it is told to the host, with all that
    /// can be seen, or only kills.
    pub forbidden_calls: Denied,
    /// Whether its filter follows no imports, and the host decides on each call
    /// beyond those of every worker (`lazaret learn`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub learning: bool,
    /// How far the kernel chooses addresses at random.
    pub address_layout: AddressLayout,
    /// Its control group: its limits as they were read back, or why it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Grouping>,
    /// How the pages of its memory are followed, if it is a tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<Pages>,
}

/// How a worker stands with control groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grouping {
    /// Verified, or missing: limits are then those underneath only.
    #[serde(flatten)]
    pub state: State,
    /// Its groups and their limits.
    #[serde(flatten)]
    pub seen: Evidence,
}

impl Grouping {
    /// What a receipt says of a worker of this host, from what was seen of its
    /// group, if it has one.
    pub fn new(cgroups: &Cgroups, seen: Option<Evidence>) -> Self {
        let degraded = cgroups.degraded();
        let state = match (&seen, &degraded) {
            (Some(_), None) => State::Verified("in groups with these limits".into()),
            (Some(_), Some((missing, _))) => State::Verified(format!("in part: {missing}")),
            (None, Some((missing, _))) => {
                State::Missing(format!("limits underneath only: {missing}"))
            }
            (None, None) => State::Missing("turned off (--cgroup off)".into()),
        };
        Self {
            state,
            seen: seen.unwrap_or_default(),
        }
    }
}

/// How the host follows the pages of a tenant's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// How it learns which were written: `cards`, `kernel` or `signal`.
    pub tracker: &'static str,
    /// Who copies them: `host` or `worker`.
    pub copied_by: &'static str,
}

/// What a worker should look like from outside.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// Its number on the host.
    pub pid: i32,
    /// The uid that the launcher gave it.
    pub host_uid: u32,
    /// The namespaces of the process that verifies it.
    pub own: &'a namespaces::Own,
    /// `/proc/PID/status` of it, now ([`status`]).
    pub status: &'a str,
    /// What was seen of it since it was closed in.
    pub early: &'a Early,
    /// Its open descriptors.
    pub descriptors: descriptors::Expected<'a>,
    /// What it is for.
    pub kind: Kind,
    /// What becomes of a forbidden call.
    pub denied: Denied,
    /// Whether the host decides on calls that the filter doesn't list.
    pub learning: bool,
    /// Layers that the launcher or the worker reported as missing.
    pub missing: &'a [Layer],
    /// Layers that the operator accepts to be missing.
    pub accepted: &'a [Layer],
    /// Layers that are left out on purpose.
    pub off: Off,
}

/// What can be seen of a worker as soon as it is closed in, and can't change from
/// then on: no call that would change it passes the launch filter, and nothing but
/// this process and the launcher is outside of it.
#[derive(Debug, Clone)]
pub struct Early {
    /// Its namespaces, by kind, as `/proc/PID/ns` names them.
    namespaces: BTreeMap<String, String>,
    root: Result<String, String>,
    environment: Result<String, String>,
    executable: measures::Standing,
}

impl Early {
    /// Looks at a worker that is closed in.
    ///
    /// # Errors
    /// If it has gone, or this process may not look at it.
    pub fn look(pid: i32) -> Result<Self, Unverified> {
        Ok(Self {
            namespaces: namespaces::all(pid).map_err(gone)?,
            root: root::verify(pid),
            environment: environment::verify(pid),
            executable: measures::executable(pid),
        })
    }

    /// How it stands with the file that it runs.
    pub(crate) fn executable(&self) -> &measures::Standing {
        &self.executable
    }
}

/// `/proc/PID/status` of a worker.
///
/// # Errors
/// If it has gone, or this process may not look at it.
pub fn status(pid: i32) -> Result<String, Unverified> {
    let status = read(pid, "status").map_err(gone)?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

fn gone(found: String) -> Unverified {
    Unverified {
        layer: Layer::PidNamespace,
        found,
    }
}

/// A layer that isn't as it should be: the worker must not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer {layer} failed verification: {found}{}", layer.without())]
pub struct Unverified {
    /// The layer.
    pub layer: Layer,
    /// What was found.
    pub found: String,
}

impl Receipt {
    /// The receipt of a worker of which nothing is known yet.
    pub fn none(pid: i32, host_uid: u32) -> Self {
        Self {
            pid,
            host_uid,
            threads: 0,
            grade: Grade::D,
            layers: Vec::new(),
            measures: Vec::new(),
            filter: String::new(),
            forbidden_calls: Denied::Kill,
            learning: false,
            address_layout: AddressLayout::here(),
            cgroup: None,
            pages: None,
        }
    }

    /// What keeps it from the best grade, in words.
    pub fn shortcomings(&self) -> String {
        let mut all: Vec<String> = self
            .layers
            .iter()
            .filter_map(|entry| match &entry.state {
                State::Missing(found) | State::Off(found) => {
                    Some(format!("no {}: {found}", entry.layer))
                }
                _ => None,
            })
            .collect();
        let filtered = self
            .layers
            .iter()
            .all(|entry| entry.layer != Layer::Seccomp || !matches!(entry.state, State::Off(_)));
        if self.forbidden_calls == Denied::Kill && filtered {
            all.push("a forbidden call kills, and leaves no evidence".to_owned());
        }
        if self.learning {
            all.push("the host decides on system calls, to learn which are used".to_owned());
        }
        all.join("; ")
    }

    /// Looks at a worker from outside. An error names the first layer that is
    /// missing without the operator's consent. With the receipt comes what of it
    /// must stay so.
    pub fn verify(expected: &Expected<'_>) -> Result<(Self, Posture), Unverified> {
        let pid = expected.pid;
        let early = expected.early;
        let status = expected.status;
        let threads = status_field(status, "Threads")
            .map_err(gone)?
            .parse()
            .unwrap_or(0);
        if threads != 1 {
            return Err(gone(format!("the worker has {threads} threads, not 1")));
        }
        let maps = read(pid, "maps").map_err(gone)?;
        let posture = descriptors::open(pid)
            .and_then(|open| Posture::of(early.namespaces.clone(), status, &maps, open))
            .map_err(gone)?;
        let namespace = |name| namespaces::verify(posture.namespaces.get(name), name, expected.own);
        let mut layers = Vec::with_capacity(Layer::ALL.len());
        for &layer in Layer::ALL {
            if let Some(why) = expected.off.why(layer) {
                // Whatever is left out, it is never root.
                if layer == Layer::UserNamespace {
                    namespaces::verify_user(status, expected.host_uid)
                        .map_err(|found| Unverified { layer, found })?;
                }
                let state = State::Off(why);
                layers.push(Entry { layer, state });
                continue;
            }
            let found = match layer {
                Layer::UserNamespace => namespace("user").and_then(|namespace| {
                    Ok(format!(
                        "{namespace}, {}",
                        namespaces::verify_user(status, expected.host_uid)?
                    ))
                }),
                Layer::PidNamespace => namespace("pid"),
                Layer::MountNamespace => namespace("mnt"),
                Layer::NetworkNamespace => namespace("net"),
                Layer::IpcNamespace => namespace("ipc"),
                Layer::UtsNamespace => namespace("uts"),
                Layer::EmptyRoot => early.root.clone(),
                Layer::NoNewPrivs => no_new_privs::verify(status),
                Layer::Capabilities => {
                    capabilities::verify(status, !expected.off.has(Layer::UserNamespace))
                }
                Layer::Environment => early.environment.clone(),
                Layer::Descriptors => {
                    descriptors::verify(&posture.descriptors, expected.descriptors)
                }
                Layer::Rlimits => rlimits::verify(pid),
                Layer::Mdwe => mdwe::verify(&maps),
                Layer::Seccomp => seccomp::verify(status, 2),
                Layer::Landlock => Ok(format!(
                    "no trace in /proc: the worker's word; {}",
                    landlock::coverage_here()
                )),
            };
            let state = match (found, expected.missing.contains(&layer)) {
                (Ok(evidence), false) if layer == Layer::Landlock => State::Applied(evidence),
                (Ok(evidence), false) => State::Verified(evidence),
                (Ok(_), true) if expected.accepted.contains(&layer) => {
                    State::Missing("the worker could not put it on".into())
                }
                (Err(found), _) if expected.accepted.contains(&layer) => State::Missing(found),
                (Ok(_), true) => {
                    return Err(Unverified {
                        layer,
                        found: "the worker could not put it on".into(),
                    });
                }
                (Err(found), _) => return Err(Unverified { layer, found }),
            };
            layers.push(Entry { layer, state });
        }
        let missing: Vec<Layer> = layers
            .iter()
            .filter(|entry| matches!(entry.state, State::Missing(_) | State::Off(_)))
            .map(|entry| entry.layer)
            .collect();
        let filter = match expected.off.has(Layer::Seccomp) {
            true => String::new(),
            false => seccomp::name(expected.kind, expected.denied).map_err(|error| Unverified {
                layer: Layer::Seccomp,
                found: error.to_string(),
            })?,
        };
        let receipt = Self {
            pid,
            host_uid: expected.host_uid,
            threads,
            grade: match expected.learning {
                // Of the filter nothing holds by itself.
                true => grade(&[&*missing, &[Layer::Seccomp]].concat(), true),
                false => grade(&missing, expected.denied == Denied::Notify),
            },
            learning: expected.learning,
            layers,
            measures: Vec::new(),
            filter,
            forbidden_calls: expected.denied,
            address_layout: AddressLayout::here(),
            cgroup: None,
            pages: None,
        };
        Ok((receipt, posture))
    }
}
