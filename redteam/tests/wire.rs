//! Promise: a worker that lies on the wire is killed, or harms its own tenant
//! only; the host never takes what can't be true.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use lazaret::Ending;
use lazaret_redteam::attacks::{answers, endings, host_calls, impossible, log, silence};
use quarantine::{Quarantine, Seen};

/// Runs `name 0`, `name 1` and so on; each must end as the table says.
fn each(quarantine: &Quarantine, name: &str, count: u64) {
    let attack = lazaret_redteam::attacks::find(name).expect("the attack");
    for number in 0..count {
        quarantine.check(attack, &number.to_string());
    }
    quarantine.victim_goes_on();
}

#[test]
fn a_wild_bell_ends_the_worker() {
    let quarantine = Quarantine::new();
    each(&quarantine, "wild_bell", answers::BELLS);
    each(&quarantine, "answer_twice", 1);
}

#[test]
fn a_length_over_its_area_ends_the_worker() {
    each(&Quarantine::new(), "wild_length", answers::LENGTHS);
}

#[test]
fn an_answer_that_can_not_be_decoded_ends_the_worker() {
    each(&Quarantine::new(), "undecodable", answers::BYTES);
}

#[test]
fn an_answer_to_another_question_ends_the_worker() {
    each(&Quarantine::new(), "another_question", answers::OTHERS);
}

#[test]
fn an_end_of_a_call_that_can_not_be_true_ends_the_worker() {
    let quarantine = Quarantine::new();
    let version = quarantine.hostile.info().version;
    let attack = &impossible::ATTACKS[0];
    for (number, (lie, _)) in impossible::LIES.iter().enumerate() {
        let seen = quarantine.attack(&format!("{} {number}", attack.name));
        match &seen {
            Seen::Ended(Ending::Malformed(what)) => {
                assert!(what.contains("impossible"), "{lie}: {what}")
            }
            other => panic!("{lie}: {other:?}"),
        }
        assert_eq!(quarantine.hostile.info().version, version, "{lie}");
        quarantine.neighbour_is_right();
    }
    quarantine.victim_goes_on();
}

/// Whatever comes of the tenant that answers before it is asked, it is its own
/// harm, and a new worker ends it.
#[test]
fn an_early_answer_is_the_tenant_s_own_harm() {
    let quarantine = Quarantine::new();
    quarantine.check(&answers::ATTACKS[1], "");
    for _ in 0..4 {
        let seen = Seen::call(quarantine.hostile.query("get", b""));
        assert!(
            matches!(seen, Seen::Reply(_) | Seen::Ended(Ending::Malformed(_))),
            "{seen:?}"
        );
        quarantine.neighbour_is_right();
    }
    quarantine.hostile.sleep();
    quarantine.victim_goes_on();
}

#[test]
fn a_wild_log_is_cut_and_nothing_else() {
    let quarantine = Quarantine::new();
    each(&quarantine, "wild_log", log::KINDS);
    let lines = quarantine.hostile.logs().expect("the log");
    assert!(
        lines
            .iter()
            .any(|line| line.text.contains(&u32::MAX.to_string())),
        "lost lines are counted"
    );
    assert!(quarantine.neighbour.logs().expect("the log").is_empty());
}

#[test]
fn silence_ends_at_the_time_limit() {
    let quarantine = Quarantine::new();
    for attack in silence::ATTACKS {
        quarantine.check(attack, "");
        quarantine.hostile.sleep();
    }
    quarantine.victim_goes_on();
}

#[test]
fn a_host_function_gets_no_more_than_it_takes() {
    let quarantine = Quarantine::new();
    for attack in host_calls::ATTACKS {
        quarantine.check(attack, "0");
    }
    // Of all those calls, one was right.
    assert_eq!(*quarantine.notes.lock().expect("notes"), [Vec::<u8>::new()]);
    quarantine.victim_goes_on();
}

#[test]
fn an_end_is_told_by_the_kernel_s_word() {
    let quarantine = Quarantine::new();
    for attack in endings::ATTACKS {
        quarantine.check(attack, "");
        quarantine.victim_goes_on();
    }
}
