//! Promise: nothing that a worker does to shared memory, or to the memory that
//! the host copies pages from, reaches the host or another tenant.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use lazaret::TrackerKind;
use lazaret_redteam::attack::{Expected, Guard};
use lazaret_redteam::attacks::{self, own_memory};
use quarantine::{Quarantine, Seen, older_kernels};

#[test]
fn the_shared_file_can_not_be_cut_punched_or_sealed_from_inside() {
    let quarantine = Quarantine::new();
    for attack in attacks::shared_file::ATTACKS {
        quarantine.check(attack, "");
    }
    quarantine.victim_goes_on();
}

#[test]
fn a_bell_can_only_be_waited_on_and_rung() {
    let quarantine = Quarantine::new();
    for attack in attacks::futex::ATTACKS {
        quarantine.check(attack, "");
    }
    quarantine.victim_goes_on();
}

/// What a tenant takes from the host's copying, it loses itself: the call
/// fails as a whole, and the version before it is what the next call sees.
#[test]
fn memory_that_can_not_be_copied_fails_the_call_and_commits_nothing() {
    if older_kernels::lacks(TrackerKind::Kernel) {
        return;
    }
    for name in ["close_heap", "replace_heap"] {
        let quarantine = Quarantine::with(TrackerKind::Kernel);
        let attack = attacks::find(name).expect("the attack");
        assert_eq!(
            (attack.stopped_by, attack.expected),
            (Guard::Pages, Expected::Unreadable)
        );
        let before = quarantine.hostile.info();
        quarantine.check(attack, "");
        let after = quarantine.hostile.info();
        assert_eq!(
            (after.version, after.heap_bytes, after.stable_bytes),
            (before.version, before.heap_bytes, before.stable_bytes),
            "{name}"
        );
        quarantine.victim_goes_on();
    }
}

#[test]
fn memory_that_is_gone_or_hidden_is_lost_to_its_own_tenant_only() {
    if older_kernels::lacks(TrackerKind::Kernel) {
        return;
    }
    for name in [
        "unmap_heap",
        "no_chunk_entered",
        "all_chunks_entered",
        "all_chunks_of_full_memories_entered",
    ] {
        let quarantine = Quarantine::with(TrackerKind::Kernel);
        let attack = attacks::find(name).expect("the attack");
        quarantine.check(attack, "");
        // A new worker, from what was committed.
        quarantine.hostile.sleep();
        quarantine.victim_goes_on();
    }
}

/// The worker takes its pages away and gives them back while the host copies
/// them: each call is committed, or fails, as a whole.
#[test]
fn memory_that_is_pulled_away_while_it_is_copied_is_committed_whole_or_not_at_all() {
    if older_kernels::lacks(TrackerKind::Kernel) {
        return;
    }
    let quarantine = Quarantine::with(TrackerKind::Kernel);
    let attack = attacks::find("pull_away").expect("the attack");
    assert_eq!(attack.stopped_by, Guard::Pages);
    let (mut committed, mut failed, mut held) = (0, 0, 0);
    // Until both have won some races.
    for byte in (1..=250u64).cycle().take(2000) {
        if committed >= 10 && failed >= 10 {
            break;
        }
        let before = quarantine.hostile.info().version;
        let seen = quarantine.attack(&format!("pull_away {byte}"));
        let after = quarantine.hostile.info().version;
        match seen {
            Seen::Reply(text) => {
                assert!(
                    text == "pulled" && after == before + 1,
                    "{text}: version {before} to {after}"
                );
                (committed, held) = (committed + 1, byte);
            }
            Seen::Unreadable(error) => {
                assert_eq!(after, before, "{error}");
                failed += 1;
            }
            other => panic!("{other:?}"),
        }
        // A new worker, from what was committed.
        quarantine.hostile.sleep();
        let whole = own_memory::PAGES.to_string();
        assert_eq!(
            quarantine.attack(&format!("count_pages {held}")),
            Seen::Reply(whole),
            "pages of round {held} after round {byte}"
        );
        quarantine.neighbour_is_right();
    }
    // Nobody wins every race.
    assert!(
        committed > 0 && failed > 0,
        "{committed} committed, {failed} failed"
    );
    quarantine.victim_goes_on();
}

#[test]
fn an_attack_in_a_query_is_no_different() {
    if older_kernels::lacks(TrackerKind::Kernel) {
        return;
    }
    let quarantine = Quarantine::with(TrackerKind::Kernel);
    let time = std::time::Duration::from_secs(20);
    for attack in own_memory::ATTACKS
        .iter()
        .filter(|attack| !["pull_away", "count_pages"].contains(&attack.name))
    {
        let seen = quarantine.attack_by_query(attack.name, time);
        assert!(!matches!(seen, Seen::Other(_)), "{}: {seen:?}", attack.name);
        quarantine.neighbour_is_right();
        quarantine.hostile.sleep();
        quarantine.victim_goes_on();
    }
}
