//! Promise: what a worker says of its own writes, by the cards that it sets,
//! can harm its own tenant only.
#![cfg(target_arch = "x86_64")]

mod quarantine;

use lazaret::TrackerKind;
use lazaret_redteam::attack::Expected;
use lazaret_redteam::attacks;
use lazaret_redteam::attacks::own_memory::PAGES;
use quarantine::{Quarantine, Seen};

#[test]
fn cards_that_lie_or_are_taken_away_harm_their_own_tenant_only() {
    let quarantine = Quarantine::new();
    for attack in attacks::cards::ATTACKS
        .iter()
        .filter(|attack| attack.name != "pull_cards_away")
    {
        let before = quarantine.hostile.info();
        quarantine.check(attack, "");
        let after = quarantine.hostile.info();
        // Whole or not at all.
        let committed = match attack.expected {
            Expected::Reply(_) => (before.version..=before.version + 1).contains(&after.version),
            _ => after.version == before.version,
        };
        assert!(
            committed,
            "{}: {} to {}",
            attack.name, before.version, after.version
        );
        assert_eq!(after.heap_bytes, before.heap_bytes);
        quarantine.hostile.sleep();
        quarantine.victim_goes_on();
    }
}

/// A page that has no card set is not in the next version.
#[test]
fn a_page_without_a_card_is_lost_to_its_own_tenant() {
    let quarantine = Quarantine::new();
    assert_eq!(
        quarantine.attack("set_no_card"),
        Seen::Reply("wrote".into())
    );
    // What this worker still holds, a new one doesn't.
    assert_eq!(
        quarantine.attack("count_pages 5"),
        Seen::Reply(PAGES.to_string())
    );
    quarantine.hostile.sleep();
    assert_eq!(quarantine.attack("count_pages 5"), Seen::Reply("0".into()));
    quarantine.victim_goes_on();
    quarantine.neighbour_is_right();
}

/// The worker takes its cards away and gives them back while the host reads
/// and clears them: each call is committed, or fails, as a whole.
#[test]
fn cards_that_are_pulled_away_while_they_are_read_give_a_whole_commit_or_none() {
    let quarantine = Quarantine::new();
    let mut held = 0;
    for byte in 1..=200u64 {
        let before = quarantine.hostile.info().version;
        match quarantine.attack(&format!("pull_cards_away {byte}")) {
            Seen::Reply(_) => held = byte,
            Seen::Unreadable(_) => {
                assert_eq!(quarantine.hostile.info().version, before);
            }
            other => panic!("{other:?}"),
        }
        quarantine.hostile.sleep();
        assert_eq!(
            quarantine.attack(&format!("count_pages {held}")),
            Seen::Reply(PAGES.to_string()),
            "pages of round {held} after round {byte}"
        );
        quarantine.neighbour_is_right();
    }
    quarantine.victim_goes_on();
}

/// Bits that say more is entered than is there cost the host a look.
#[test]
fn chunks_of_cards_that_were_never_entered_are_read_and_are_zeros() {
    let quarantine = Quarantine::with(TrackerKind::Cards);
    for name in ["all_chunks_entered", "no_chunk_entered"] {
        quarantine.check(attacks::find(name).expect("the attack"), "");
        quarantine.hostile.sleep();
        quarantine.victim_goes_on();
    }
}
