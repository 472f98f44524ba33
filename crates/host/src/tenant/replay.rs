//! Running again what a worker was sent before an incident, in a fresh worker
//! on the same state.
//!
//! Nothing that this does lasts: what the calls write is thrown away, the
//! functions that an embedder offers are not called (a guest gets the answers
//! that are on record), and an incident of the fresh worker is told to who
//! asked, but isn't recorded and doesn't count towards quarantine.

use std::collections::VecDeque;
use std::sync::Arc;

use lazaret_image::{Image, Reader, View};
use lazaret_wire::codec::Message;
use lazaret_wire::message::{Call, HostCall, Outcome, ToWorker};
use serde::Serialize;
use thiserror::Error;

use super::error::{CallError, TenantError};
use super::lane::Lane;
use super::lifecycle::read_module;
use super::live::Live;
use super::meta::Meta;
use super::module::Module;
use super::start::Beginning;
use super::{Shared, snapshot};
use crate::budget::{Budget, Reservation, total};
use crate::data_dir::DataDir;
use crate::host::Inner;
use crate::incident::{Incident, Severity, What};
use crate::worker::{Deadline, Duty};

/// What the states of incidents are tagged with, before their version.
const TAG: &str = "incident-v";
/// How many states of one tenant's incidents are kept.
const KEPT: usize = 4;

/// What became of an incident's calls when they ran again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The incident's name.
    pub incident: String,
    /// The tenant.
    pub tenant: String,
    /// The version of its memory that they ran on.
    pub version: u64,
    /// The calls, in their order.
    pub calls: Vec<Replayed>,
    /// What the fresh worker did that no worker should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub happened: Option<Box<Incident>>,
    /// Whether that is what had happened before.
    pub reproduced: bool,
    /// What was not as it had been.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// One call that ran again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The number of the request on record.
    pub number: u32,
    /// What kind of call: `Update`, `Query` and so on.
    pub entry: String,
    /// Its method.
    pub method: String,
    /// Bytes of its argument.
    pub argument_bytes: usize,
    /// How it ended, in words.
    pub outcome: String,
}

/// Why an incident's calls can't run again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It was no tenant's.
    #[error(
        "incident {id} is of a {worker}, which has no state to run it on again: repeat it with the same module and arguments (its module has blake3 {})",
        .module.as_deref().unwrap_or("unknown")
    )]
    NoTenant {
        /// Which.
        id: String,
        /// What the worker was for.
        worker: String,
        /// The module's hash.
        module: Option<String>,
    },
    /// It happened outside of a call.
    #[error(
        "incident {id} did not happen in an update or a query, so there is no request to run again; if it was an install or an upgrade, that can be repeated under another name"
    )]
    NoCall {
        /// Which.
        id: String,
    },
    /// Its requests can't be read.
    #[error("incident {id}: request {number} on record is damaged: {problem}")]
    Damaged {
        /// Which.
        id: String,
        /// Which request.
        number: u32,
        /// Why.
        problem: String,
    },
    /// The state is no longer there.
    #[error(
        "incident {id} happened on version {version} of {tenant}, which is gone: it is at version {newest} now, and its state was not kept (the last {KEPT} are, as snapshots {TAG}N)"
    )]
    StateGone {
        /// Which.
        id: String,
        /// Whose.
        tenant: String,
        /// On what.
        version: u64,
        /// What there is.
        newest: u64,
    },
    /// A tenant of that name is there, but not the one it happened to.
    #[error(
        "incident {id} happened to another tenant of the name {tenant}, which has been removed since"
    )]
    AnotherTenant {
        /// Which.
        id: String,
        /// The name.
        tenant: String,
    },
    /// The tenant can't be had.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// No worker could be started, or its memory not be put back.
    #[error("the fresh worker: {0}")]
    Worker(#[from] CallError),
}

/// Keeps the state that an incident happened on, if it may be wanted again and
/// isn't kept yet. Whatever prevents it, the incident is on record without.
pub(super) fn keep(host: &Inner, tenant: &Shared, lane: &mut Lane, incident: &Incident) {
    let Some(data) = &host.data else {
        return;
    };
    let version = lane.image.version().0;
    let ran_on = incident.evidence.ran_on;
    if incident.severity < Severity::High || ran_on.is_none_or(|state| state.version != version) {
        return;
    }
    let kept = snapshot::create_in(data, tenant, lane, &tag(version)).and_then(|_| {
        let mut versions: Vec<u64> = snapshot::tags(data, &tenant.name)?
            .iter()
            .filter_map(|tag| tag.strip_prefix(TAG)?.parse().ok())
            .collect();
        versions.sort_unstable();
        let old = versions.len().saturating_sub(KEPT);
        for version in versions.iter().take(old) {
            snapshot::delete(data, &tenant.name, &tag(*version), None)?;
        }
        Ok(())
    });
    match kept {
        Ok(()) | Err(TenantError::SnapshotExists { .. }) => {}
        Err(error) => {
            tracing::warn!(tenant = tenant.name, id = incident.id, %error, "an incident's state is not kept");
        }
    }
}

/// Whether a tag is for the states of incidents.
pub(super) fn is_tag(tag: &str) -> bool {
    tag.starts_with(TAG)
}

fn tag(version: u64) -> String {
    format!("{TAG}{version}")
}

/// One call on record, with the host's answers in the middle of it.
struct Recorded {
    number: u32,
    call: Call,
    answers: VecDeque<Result<Vec<u8>, String>>,
}

/// The calls on record, from the first one on the state.
fn recorded(incident: &Incident, from: u32) -> Result<Vec<Recorded>, ReplayError> {
    let mut calls: Vec<Recorded> = Vec::new();
    let requests = &incident.evidence.requests;
    for request in requests.iter().skip_while(|one| one.number != from) {
        let damaged = |problem: String| ReplayError::Damaged {
            id: incident.id.clone(),
            number: request.number,
            problem,
        };
        let bytes = unhex(&request.bytes).ok_or_else(|| damaged("no hexadecimal".to_owned()))?;
        if bytes.len() != request.length {
            return Err(damaged(format!(
                "{} of {} bytes",
                bytes.len(),
                request.length
            )));
        }
        match ToWorker::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))? {
            ToWorker::Call(call) => calls.push(Recorded {
                number: request.number,
                call: *call,
                answers: VecDeque::new(),
            }),
            ToWorker::HostReturn(answer) => {
                if let Some(call) = calls.last_mut() {
                    call.answers.push_back(answer.result);
                }
            }
            _ => {}
        }
    }
    match calls.is_empty() {
        true => Err(ReplayError::Damaged {
            id: incident.id.clone(),
            number: from,
            problem: "it is not there".to_owned(),
        }),
        false => Ok(calls),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The state that an incident happened on.
struct State {
    /// Kept open while it is read.
    _image: Option<Image>,
    reader: Reader,
    view: View,
    module: Arc<Module>,
}

impl State {
    fn find(
        host: &Inner,
        data: &DataDir,
        tenant: &Shared,
        incident: &Incident,
        version: u64,
    ) -> Result<Self, ReplayError> {
        {
            // No upgrade commits meanwhile.
            let module = tenant.module();
            let view = tenant.reader.view();
            if view.version().0 == version {
                return Ok(Self {
                    _image: None,
                    reader: tenant.reader.clone(),
                    view,
                    module: module.clone(),
                });
            }
        }
        let (image, meta): (Image, Meta) = match snapshot::open(data, &tenant.name, &tag(version)) {
            Err(TenantError::NoSnapshot { .. }) => {
                return Err(ReplayError::StateGone {
                    id: incident.id.clone(),
                    tenant: tenant.name.clone(),
                    version,
                    newest: tenant.reader.version().0,
                });
            }
            opened => opened?,
        };
        let module = Arc::new(read_module(host, data, &meta.module)?);
        Ok(Self {
            reader: image.reader(),
            view: image.view(),
            _image: Some(image),
            module,
        })
    }
}

/// Runs an incident's calls again.
pub(crate) fn replay(
    host: &Inner,
    data: &DataDir,
    tenant: &Shared,
    incident: &Incident,
) -> Result<Replay, ReplayError> {
    let ran_on = incident
        .evidence
        .ran_on
        .ok_or_else(|| ReplayError::NoCall {
            id: incident.id.clone(),
        })?;
    let calls = recorded(incident, ran_on.from)?;
    if calls
        .iter()
        .any(|recorded| recorded.call.canister != tenant.principal)
    {
        return Err(ReplayError::AnotherTenant {
            id: incident.id.clone(),
            tenant: tenant.name.clone(),
        });
    }
    let state = State::find(host, data, tenant, incident, ran_on.version)?;
    let mut replay = Replay {
        incident: incident.id.clone(),
        tenant: tenant.name.clone(),
        version: ran_on.version,
        calls: Vec::new(),
        happened: None,
        reproduced: false,
        remarks: Vec::new(),
    };
    if !ran_on.complete {
        replay.remarks.push(
            "the worker had run more calls on this version before, which are not on record"
                .to_owned(),
        );
    }
    let mut live = None;
    for recorded in calls {
        let worker = match live.take() {
            Some(live) => live,
            None => {
                let beginning = Beginning {
                    host,
                    name: &tenant.name,
                    module: &state.module,
                    duty: Duty::Replay,
                    time: host.options.limits.time,
                };
                Live::start(&beginning, &state.view)?
            }
        };
        live = step(host, &state, worker, recorded, &mut replay)?;
        if replay.happened.is_some() {
            break;
        }
    }
    replay.reproduced = replay
        .happened
        .as_ref()
        .is_some_and(|now| same(&incident.what, &now.what));
    Ok(replay)
}

/// Runs one call, and puts back what it wrote: the worker, if it can go on.
fn step(
    host: &Inner,
    state: &State,
    mut live: Live,
    recorded: Recorded,
    replay: &mut Replay,
) -> Result<Option<Live>, ReplayError> {
    let Recorded {
        number,
        call,
        mut answers,
    } = recorded;
    if call.sizes != live.sizes {
        return Err(ReplayError::Damaged {
            id: replay.incident.clone(),
            number,
            problem: "it is of a state of another size".to_owned(),
        });
    }
    let mut replayed = Replayed {
        number,
        entry: format!("{:?}", call.entry),
        method: call.method.clone(),
        argument_bytes: call.argument.len(),
        outcome: String::new(),
    };
    live.request = call;
    let limits = &host.options.limits;
    let account = host.budget.as_ref().map(Budget::open);
    let mut growth = match &account {
        Some(account) => account.borrow(total(live.sizes)),
        None => Reservation::default(),
    };
    let mut answer = |_: &HostCall, _: &mut Deadline| {
        let missing = "there is no answer on record for this host call".to_owned();
        Some((answers.pop_front().unwrap_or(Err(missing)), 0))
    };
    let done = live.run(&mut answer, limits, &mut growth, limits.time);
    let happened = live.worker().incident();
    let (outcome, live) = match done {
        Ok(done) => {
            let words = words(&done.outcome);
            let written = live.written(done.sizes)?;
            let stays = live.bring_to_newest(&state.reader, written)?
                && live.version() == state.view.version();
            (words, stays.then_some(live))
        }
        Err(error) => (error.to_string(), None),
    };
    replayed.outcome = outcome;
    replay.calls.push(replayed);
    replay.happened = happened.map(|incident| Box::new(Incident::clone(&incident)));
    Ok(live)
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(bytes) => format!("replied with {} bytes", bytes.len()),
        Outcome::Reject(message) => format!("rejected: {message}"),
        Outcome::Trap(trap) => format!("trapped: {}", trap.message),
        Outcome::NoReply => "returned without a reply".to_owned(),
        Outcome::NoMethod => "there is no such method".to_owned(),
        Outcome::Aborted(reason) => format!("aborted: {reason}"),
    }
}

/// Whether two things that happened are alike. Addresses may differ: each
/// worker has its own.
fn same(before: &What, now: &What) -> bool {
    match (before, now) {
        (What::ForbiddenCall { call: before }, What::ForbiddenCall { call: now }) => {
            match (before, now) {
                (Some(before), Some(now)) => {
                    (before.number, before.audit_architecture)
                        == (now.number, now.audit_architecture)
                }
                _ => true,
            }
        }
        (What::Crash { signal: before, .. }, What::Crash { signal: now, .. })
        | (What::Killed { signal: before }, What::Killed { signal: now })
        | (What::UnaskedExit { code: before }, What::UnaskedExit { code: now }) => before == now,
        (What::Aborted { reason: before, .. }, What::Aborted { reason: now, .. })
        | (What::Limit { limit: before, .. }, What::Limit { limit: now, .. }) => before == now,
        _ => std::mem::discriminant(before) == std::mem::discriminant(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_on_record_are_read_back() {
        assert_eq!(unhex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex(""), Some(vec![]));
        for text in ["0", "0g", "é0", "+1"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_alike_is_the_kind_not_the_address() {
        let crash = |signal, said: &str| What::Crash {
            signal,
            said: Some(said.to_owned()),
        };
        assert!(same(&crash(11, "at 1"), &crash(11, "at 2")));
        assert!(!same(&crash(11, ""), &crash(7, "")));
        let exit = What::UnaskedExit { code: 0 };
        assert!(!same(&crash(11, ""), &exit));
        assert!(!same(&exit, &What::UnaskedExit { code: 1 }));
        let malformed = |problem: &str| What::MalformedWire {
            problem: problem.to_owned(),
        };
        assert!(same(&malformed("a"), &malformed("b")));
    }
}
