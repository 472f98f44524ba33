//! Promise: what a worker was sent before an incident can run again, in a fresh
//! worker on the same state, and nothing of it lasts.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use std::num::NonZeroU32;
use std::sync::Arc;

use lazaret::incident::{Incident, Severity, What};
use lazaret::{QuarantinePolicy, ReplayError};
use lazaret_redteam::attack::Expected;
use quarantine::Quarantine;

/// The last incident, after an attack that must have been stopped.
fn incident_of(quarantine: &Quarantine, attack: &str) -> Arc<Incident> {
    let seen = quarantine.attack(attack);
    assert!(!seen.is(Expected::Reply("")), "{seen:?}");
    let incidents = quarantine.host.recent_incidents();
    incidents.last().expect("an incident").clone()
}

fn forbidden() -> String {
    format!("system_call {} 4660 119 3 4 5 6", libc::SYS_ptrace)
}

#[test]
fn a_forbidden_call_happens_again_and_is_not_recorded_again() {
    let quarantine = Quarantine::new();
    let incident = incident_of(&quarantine, &forbidden());
    let replay = quarantine.host.replay(&incident).expect("a replay");
    assert!(replay.reproduced, "{replay:#?}");
    assert_eq!(replay.tenant, "hostile");
    let last = replay.calls.last().expect("a call");
    assert_eq!(
        (last.entry.as_str(), last.method.as_str()),
        ("Update", "attack")
    );
    let now = replay.happened.as_ref().expect("an incident");
    let What::ForbiddenCall { call: Some(call) } = &now.what else {
        panic!("{:?}", now.what);
    };
    assert_eq!(call.arguments, [4660, 119, 3, 4, 5, 6]);
    assert_ne!(now.evidence.pid, incident.evidence.pid, "a fresh worker");
    // What is on record is what it was, and the state too.
    assert_eq!(quarantine.host.recent_incidents().len(), 1);
    quarantine.victim_goes_on();
    quarantine.neighbour_is_right();
}

/// The calls before it on the same version run again too, and what they write
/// is put back each time.
#[test]
fn the_calls_before_it_run_again_in_their_order() {
    let quarantine = Quarantine::new();
    let sum = quarantine.hostile.query("get", b"").expect("get").bytes;
    // A new version, on which two queries run before the attack.
    quarantine.victim_goes_on();
    for _ in 0..2 {
        quarantine.hostile.query("get", b"").expect("get");
    }
    let incident = incident_of(&quarantine, "exit");
    let replay = quarantine.host.replay(&incident).expect("a replay");
    let calls: Vec<(&str, &str)> = replay
        .calls
        .iter()
        .map(|call| (call.method.as_str(), call.outcome.as_str()))
        .collect();
    assert_eq!(calls.len(), 3, "{replay:#?}");
    assert_eq!(calls[0], ("get", "replied with 8 bytes"));
    assert_eq!(calls[1], calls[0]);
    assert_eq!(calls[2].0, "attack");
    assert!(
        replay.reproduced && replay.remarks.is_empty(),
        "{replay:#?}"
    );
    assert!(matches!(replay.happened, Some(now) if now.what == What::UnaskedExit { code: 0 }));
    assert_eq!(sum.len(), 8);
}

/// The state of a serious incident is kept, whatever the tenant does after it,
/// and though it is in quarantine; of four at most.
#[test]
fn the_state_is_kept_though_the_tenant_goes_on() {
    let quarantine = Quarantine::new();
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(incident_of(&quarantine, &forbidden()));
        quarantine.victim_goes_on();
    }
    let tags: Vec<String> = quarantine
        .host
        .snapshots("hostile")
        .expect("snapshots")
        .into_iter()
        .map(|info| info.expect("a snapshot").tag)
        .collect();
    assert_eq!(tags.len(), 4, "{tags:?}");
    // Nobody's own snapshot is taken for one of them, and pruned.
    let refused = quarantine.host.snapshot("hostile", "incident-v1");
    assert!(refused.is_err(), "{refused:?}");
    for (number, incident) in all.iter().enumerate() {
        match quarantine.host.replay(incident) {
            Ok(replay) => assert!(number >= 2 && replay.reproduced, "{number}: {replay:#?}"),
            Err(ReplayError::StateGone {
                version, newest, ..
            }) => {
                assert!(number < 2 && version < newest, "{number}");
            }
            Err(other) => panic!("{number}: {other}"),
        }
    }
    quarantine
        .host
        .quarantine("hostile", "tried it six times")
        .expect("quarantine");
    let replay = quarantine.host.replay(&all[5]).expect("a replay");
    assert!(replay.reproduced);
    assert!(quarantine.host.release("hostile").expect("a release"));
    quarantine.victim_goes_on();
}

/// What happens in a replay doesn't count towards quarantine.
#[test]
fn a_replay_is_no_further_incident() {
    let quarantine = Quarantine::made(|builder| {
        builder.quarantine(QuarantinePolicy {
            after: NonZeroU32::new(2).expect("two"),
            severity: Severity::Critical,
        })
    });
    let incident = incident_of(&quarantine, &forbidden());
    for _ in 0..3 {
        assert!(
            quarantine
                .host
                .replay(&incident)
                .expect("a replay")
                .reproduced
        );
    }
    quarantine.victim_goes_on();
}

/// Host functions aren't called: the guest gets the answers on record.
#[test]
fn the_host_s_functions_are_not_called_again() {
    let quarantine = Quarantine::new();
    let incident = incident_of(&quarantine, "note_and_exit");
    let notes = || quarantine.notes.lock().expect("notes").clone();
    let before = notes();
    assert_eq!(before.len(), 1, "it was called the first time: {before:?}");
    let replay = quarantine.host.replay(&incident).expect("a replay");
    assert!(replay.reproduced, "{replay:#?}");
    assert_eq!(notes(), before);
}

#[test]
fn what_can_not_run_again_is_an_error_that_says_why() {
    let quarantine = Quarantine::new();
    let incident = incident_of(&quarantine, &forbidden());
    let replay = |change: &dyn Fn(&mut Incident)| {
        let mut changed = Incident::clone(&incident);
        change(&mut changed);
        quarantine.host.replay(&changed)
    };
    let last = |incident: &mut Incident| incident.evidence.requests.pop().expect("a request");
    let error = replay(&|incident| incident.subject.tenant = None).expect_err("no tenant");
    assert!(matches!(error, ReplayError::NoTenant { .. }), "{error}");
    let error = replay(&|incident| incident.evidence.ran_on = None).expect_err("no call");
    assert!(matches!(error, ReplayError::NoCall { .. }), "{error}");
    let cut = |incident: &mut Incident| {
        let mut request = last(incident);
        request.bytes.truncate(10);
        incident.evidence.requests.push(request);
    };
    let no_hexadecimal = |incident: &mut Incident| {
        let mut request = last(incident);
        request.bytes.replace_range(..2, "zz");
        incident.evidence.requests.push(request);
    };
    let other_size = |incident: &mut Incident| {
        let mut request = last(incident);
        request.length += 1;
        incident.evidence.requests.push(request);
    };
    let none = |incident: &mut Incident| incident.evidence.requests.clear();
    let changes: [&dyn Fn(&mut Incident); 4] = [&cut, &no_hexadecimal, &other_size, &none];
    for change in changes {
        let error = replay(change).expect_err("damaged");
        assert!(matches!(error, ReplayError::Damaged { .. }), "{error}");
    }
    let error = replay(&|incident| {
        if let Some(state) = &mut incident.evidence.ran_on {
            state.version += 100;
        }
    })
    .expect_err("a version that never was");
    assert!(matches!(error, ReplayError::StateGone { .. }), "{error}");
    // Another tenant under the same name.
    let host = &quarantine.host;
    for snapshot in host.snapshots("hostile").expect("snapshots") {
        let tag = snapshot.expect("a snapshot").tag;
        host.delete_snapshot("hostile", &tag).expect("deleted");
    }
    host.remove("hostile").expect("removed");
    let error = host.replay(&incident).expect_err("nobody of that name");
    assert!(matches!(error, ReplayError::Tenant(_)), "{error}");
    host.install("hostile", lazaret_redteam::TENANT, b"")
        .expect("another one");
    let error = host.replay(&incident).expect_err("another tenant");
    assert!(
        matches!(error, ReplayError::AnotherTenant { .. }),
        "{error}"
    );
}
