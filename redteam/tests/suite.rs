//! Promise: every attack of `lazaret redteam` comes to nothing, by at least as many
//! layers as it is marked with, each shown to stop it alone; and the attacks are
//! attacks: with those layers off they have their effect.
//!
//! Each test runs in children of this binary, one as root (if this is root) and one
//! as an ordinary user. All but what other tests do with more variants, and for
//! every kind of worker: `system_calls.rs`, `wire.rs`, `neighbour.rs`.
#![cfg(target_arch = "x86_64")]

#[path = "../../tests/older_kernels.rs"]
mod older_kernels;
mod process;

use lazaret::wall::Layer;
use lazaret_redteam::drill::{Barrier, Stand};
use lazaret_redteam::range::Options;
use lazaret_redteam::report::{Report, Verdict};
use lazaret_redteam::suite::{Entry, Plan, all, run};

/// What other tests do.
const ELSEWHERE: [&str; 6] = [
    "every_system_call",
    "undecodable_answer",
    "change_while_read",
    "scribble_over_bells",
    "impossible_result",
    "address_space_bombs",
];

/// Runs some attacks.
fn report(entries: Vec<Entry>, without: Vec<Barrier>, ablate: bool) -> Report {
    lazaret::init();
    let none_here = older_kernels::profile().without();
    let without = without
        .into_iter()
        .chain(none_here.iter().copied().map(Barrier::Wall))
        .collect();
    let plan = Plan {
        options: Options {
            executable: std::env::var_os(process::WORKER_EXE)
                .expect("set by the parent")
                .into(),
            accept_missing: older_kernels::missing_layers().to_vec(),
        },
        entries,
        without,
        ablate,
    };
    run(&plan, &mut |_, _, _| {}).expect("the red team goes on")
}

fn named(names: &[&str]) -> Vec<Entry> {
    let found: Vec<Entry> = all()
        .filter(|entry| names.contains(&entry.name()))
        .collect();
    assert_eq!(found.len(), names.len());
    found
}

/// Nothing of this process is left behind.
fn nothing_is_left() {
    assert_eq!(process::found("lazaret:"), Vec::<i32>::new());
    let left: Vec<_> = std::fs::read_dir(std::env::temp_dir())
        .expect("the temporary directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("redteam"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_attack_is_held_by_as_many_layers_as_it_is_marked_with() {
    process::as_each_user(
        "every_attack_is_held_by_as_many_layers_as_it_is_marked_with",
        || {
            let entries: Vec<Entry> = all()
                .filter(|entry| !ELSEWHERE.contains(&entry.name()))
                .collect();
            let drills = entries
                .iter()
                .filter(|entry| matches!(entry, Entry::Drill(..)))
                .count();
            let report = report(entries, Vec::new(), true);
            for attack in &report.attacks {
                assert!(
                    matches!(attack.verdict, Verdict::Held | Verdict::Untried),
                    "{attack:#?}"
                );
            }
            assert!(report.all_held() && report.untried <= 6, "{report:#?}");
            // Three in four have their effect when nothing is left that stops them;
            // what stops the rest then is a host's, and no layer's.
            let effects = report
                .attacks
                .iter()
                .filter(|attack| attack.with_none.is_some())
                .count();
            assert!(
                effects * 4 >= drills * 3 - 8 || older_kernels::needs_namespaces(),
                "{effects} of {drills}"
            );
            nothing_is_left();
        },
    );
}

/// The counting notices what it is there for: with a layer off, what that carried
/// is down by one; with all of them off the attack succeeds and the report says so.
#[test]
fn a_layer_less_is_a_layer_less_in_the_report() {
    if older_kernels::needs_namespaces() {
        return;
    }
    process::as_each_user("a_layer_less_is_a_layer_less_in_the_report", || {
        let mut names = vec!["read_file", "kill_process"];
        // Without memory-deny-write-execute one layer less is none.
        if !older_kernels::missing_layers().contains(&Layer::Mdwe) {
            names.push("write_then_execute");
        }
        let count = |without: &[Layer]| {
            let without = without.iter().map(|layer| Barrier::Wall(*layer)).collect();
            report(named(&names), without, true)
        };
        let all = count(&[]);
        let less = count(&[Layer::Seccomp]);
        for (before, after) in all.attacks.iter().zip(&less.attacks) {
            assert_eq!(before.name, after.name);
            assert_eq!(
                after.independent.map(|count| count + 1),
                before.independent,
                "{before:#?}, {after:#?}"
            );
            assert_eq!(after.verdict, Verdict::Held, "{after:#?}");
        }
        assert!(less.grade > all.grade);
        assert_eq!(less.without, ["seccomp"]);

        let none = report(
            named(&["read_file"]),
            [Layer::Seccomp, Layer::Landlock, Layer::EmptyRoot]
                .map(Barrier::Wall)
                .into(),
            false,
        );
        assert!(!none.all_held());
        let attack = none.attacks.first().expect("the attack");
        assert_eq!(attack.verdict, Verdict::Succeeded, "{attack:#?}");
        assert!(attack.evidence.contains("secret"), "{attack:#?}");
    });
}

/// Programs are attacked from, too, not only tenants.
#[test]
fn there_are_drills_for_every_stand() {
    for stand in [Stand::Tenant, Stand::Reader, Stand::Writer] {
        assert!(
            all().any(|entry| matches!(entry, Entry::Drill(_, drill) if drill.stand == stand)),
            "{stand:?}"
        );
    }
}
