//! Promise: whatever a worker tries is on record as evidence, and a tenant whose
//! workers try too often runs no more.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lazaret::incident::{Frame, Incident, Severity, What};
use lazaret::wall::Architecture;
use lazaret::{CallError, Ending, QuarantinePolicy, RunError, WorkerError};
use lazaret_redteam::attack::Expected;
use lazaret_redteam::hostile::ATTACK_IN_SETUP;
use quarantine::Quarantine;

/// The last incident, as it is on disk once the host has gone.
fn on_disk(quarantine: Quarantine) -> Vec<Incident> {
    let store = quarantine.host.incidents().expect("a data directory");
    let remembered = quarantine.host.recent_incidents();
    let data = quarantine.leave();
    let list = store.list().expect("the record");
    let read: Vec<Incident> = list
        .iter()
        .map(|entry| store.read(entry).expect("an incident"))
        .collect();
    assert_eq!(
        read,
        remembered
            .iter()
            .map(|one| (**one).clone())
            .collect::<Vec<_>>()
    );
    drop(data);
    read
}

#[test]
fn a_forbidden_call_leaves_all_that_can_be_seen() {
    let quarantine = Quarantine::new();
    let number = libc::SYS_ptrace;
    let seen = quarantine.attack(&format!("system_call {number} 4660 119 3 4 5 6"));
    assert!(seen.is(Expected::Violation), "{seen:?}");
    quarantine.victim_goes_on();
    let all = on_disk(quarantine);
    let [incident] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(incident.layer, "seccomp");
    assert_eq!(incident.subject.tenant.as_deref(), Some("hostile"));
    let What::ForbiddenCall { call: Some(call) } = &incident.what else {
        panic!("{:?}", incident.what);
    };
    assert_eq!(call.name.as_deref(), Some("ptrace"));
    assert_eq!(call.audit_architecture, Architecture::HERE.audit());
    assert_eq!(call.arguments, [4660, 119, 3, 4, 5, 6]);
    assert!(incident.explanation.contains("tenant hostile tried ptrace"));

    let evidence = &incident.evidence;
    let line = evidence.system_call.as_deref().expect("/proc/PID/syscall");
    assert!(
        line.starts_with(&format!("{number} 0x1234 0x77 0x3 ")),
        "{line}"
    );
    // Where the kernel lets one process look into another.
    if let Some(registers) = &evidence.registers {
        assert_eq!(registers.get("rip"), Some(call.instruction_pointer));
        assert_eq!(registers.get("rdi"), Some(4660));
        assert_eq!(registers.get("orig_rax"), Some(number as u64));
    } else {
        assert!(!evidence.remarks.is_empty());
    }
    let code = evidence.mappings.iter().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let at = |text| u64::from_str_radix(text, 16).ok();
        rest.starts_with("r-x").then_some(at(from)?..at(to)?)
    });
    assert!(
        code.into_iter()
            .any(|range| range.contains(&call.instruction_pointer)),
        "the call came from {:#x}, which is no code: {:?}",
        call.instruction_pointer,
        evidence.mappings
    );
    let last = evidence.requests.last().expect("the last request");
    assert_eq!(last.what.as_deref(), Some("Call Update attack"));
    // From the call out to the worker's start, by their names.
    if evidence.registers.is_some() {
        let stack = &evidence.stack;
        assert_eq!(stack[0].address, call.instruction_pointer, "{stack:#?}");
        let place = |function: &str| {
            let name = |frame: &Frame| {
                frame
                    .function
                    .as_ref()
                    .is_some_and(|name| name.contains(function))
            };
            let found = stack.iter().position(name);
            found.unwrap_or_else(|| panic!("no {function}: {stack:#?}"))
        };
        assert!(place("system_calls::by_number") < place("lazaret_guest::start::worker_with"));
    }
    let receipt = evidence.receipt.as_ref().expect("the receipt");
    assert_eq!(receipt["pid"], evidence.pid);
    assert_eq!(receipt["forbidden_calls"], "notify");
}

/// What else a worker does that none should, and what that is on record.
#[test]
fn every_end_that_nobody_asked_for_is_on_record() {
    type Is = fn(&What) -> bool;
    let ends: [(&str, Severity, Is); 6] = [
        ("past_the_end", Severity::Critical, |what| {
            matches!(what, What::CanaryTouched { .. })
        }),
        ("past_the_end below", Severity::Critical, |what| {
            matches!(what, What::CanaryTouched { .. })
        }),
        ("exit", Severity::High, |what| {
            matches!(what, What::UnaskedExit { code: 0 })
        }),
        ("undecodable", Severity::Critical, |what| {
            matches!(what, What::MalformedWire { .. })
        }),
        ("crash", Severity::High, |what| {
            matches!(what, What::Crash { .. })
        }),
        ("panic", Severity::Medium, |what| {
            matches!(what, What::Aborted { .. })
        }),
    ];
    for (attack, severity, is) in ends {
        let quarantine = Quarantine::new();
        quarantine.attack(attack);
        quarantine.victim_goes_on();
        let all = on_disk(quarantine);
        assert_eq!(all.len(), 1, "{attack}: {all:?}");
        assert!(is(&all[0].what), "{attack}: {:?}", all[0].what);
        assert_eq!(all[0].severity, severity, "{attack}");
    }
}

#[test]
fn what_the_host_wants_itself_is_no_incident() {
    let quarantine = Quarantine::new();
    quarantine.victim_goes_on();
    quarantine.neighbour_is_right();
    quarantine.hostile.sleep();
    quarantine.victim_goes_on();
    assert_eq!(on_disk(quarantine), []);
}

#[test]
fn a_tenant_is_quarantined_after_so_many_and_told_to_whoever_watches() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let watcher = told.clone();
    let quarantine = Quarantine::made(|builder| {
        builder
            .quarantine(QuarantinePolicy {
                after: NonZeroU32::new(2).expect("two"),
                severity: Severity::Critical,
            })
            .on_incident(move |incident| {
                watcher.lock().expect("told").push(incident.id.clone());
            })
    });
    // Not one that a container's own filter refuses, with an error of its own.
    let call = format!("system_call {} 0 0 0 0 0 0", libc::SYS_getpid);
    assert!(quarantine.attack(&call).is(Expected::Violation));
    quarantine.victim_goes_on();
    assert!(quarantine.attack(&call).is(Expected::Violation));
    // None of its code runs, not even what was running well.
    for result in [
        quarantine.hostile.query("get", b""),
        quarantine.hostile.update("add", &1u64.to_le_bytes()),
    ] {
        match result {
            Err(CallError::Quarantined(why)) => {
                assert!(why.reason.contains("2 incidents"), "{why:?}");
                assert!(why.incident.is_some());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(quarantine.hostile.info().quarantined.is_some());
    quarantine.neighbour_is_right();
    assert!(quarantine.host.release("hostile").expect("a release"));
    quarantine.victim_goes_on();
    let ids: Vec<String> = on_disk(quarantine).into_iter().map(|one| one.id).collect();
    assert_eq!(*told.lock().expect("told"), ids);
}

/// A worker that changes how it looks is found on the host's rounds, though it
/// answers as if nothing were.
#[test]
fn a_worker_that_is_no_longer_as_verified_is_ended() {
    let quarantine = Quarantine::new();
    assert!(
        quarantine
            .attack("unmap_code")
            .is(Expected::Reply("unmapped"))
    );
    let until = Instant::now() + Duration::from_secs(30);
    while quarantine.host.recent_incidents().is_empty() {
        assert!(Instant::now() < until, "nobody saw it");
        std::thread::sleep(Duration::from_millis(50));
    }
    quarantine.victim_goes_on();
    quarantine.neighbour_is_right();
    let all = on_disk(quarantine);
    let [incident] = all.as_slice() else {
        panic!("{all:?}");
    };
    let What::PostureChanged { differences } = &incident.what else {
        panic!("{:?}", incident.what);
    };
    let mapped = |difference: &String| {
        difference.starts_with("a new mapping: ") || difference.starts_with("a mapping is gone: ")
    };
    assert!(
        !differences.is_empty() && differences.iter().all(mapped),
        "{differences:?}"
    );
    assert_eq!(incident.severity, Severity::Critical);
}

/// Before its last filter is on, a worker has no listener that anybody hears:
/// it stands still, and the host looks.
#[test]
fn a_forbidden_call_during_set_up_is_on_record_too() {
    let quarantine = Quarantine::new();
    let number = libc::SYS_ptrace;
    let program = quarantine
        .host
        .program(r#"(module (memory (export "memory") 1) (func (export "_start")))"#)
        .arguments([ATTACK_IN_SETUP, &number.to_string()]);
    match program.run() {
        Err(RunError::Worker(WorkerError::Ended(Ending::Violation(violation)))) => {
            let call = violation.call.expect("the call");
            assert_eq!(call.name.as_deref(), Some("ptrace"));
            assert_eq!(call.arguments, [11, 12, 13, 14, 15, 16]);
        }
        other => panic!("{other:?}"),
    }
    quarantine.neighbour_is_right();
    let all = on_disk(quarantine);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].severity, Severity::Critical);
    assert!(!all[0].evidence.mappings.is_empty());
}
