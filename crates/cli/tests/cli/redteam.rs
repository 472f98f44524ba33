//! `lazaret redteam`: what it prints, what it exits with, and what it refuses.
#![cfg(target_arch = "x86_64")]

use crate::support::{Run, lazaret};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn attacks_are_listed_without_being_run() {
    let text = lazaret().args(["redteam", "--list"]).run().exits(0).stdout;
    assert!(text.contains("[seccomp, landlock, empty-root]"), "{text}");
    let list = json(
        &lazaret()
            .args(["redteam", "--list", "--json"])
            .run()
            .exits(0)
            .stdout,
    );
    assert_eq!(list["$type"], "lazaret.redteam-list/v1");
    let attacks = list["attacks"].as_array().unwrap();
    assert!(attacks.len() >= 60, "{}", attacks.len());
    for attack in attacks {
        assert!(text.contains(attack["name"].as_str().unwrap()));
        assert!(attack["at_least"].as_u64().unwrap() >= 1);
    }
}

#[test]
fn attacks_come_to_nothing_and_their_layers_are_counted() {
    let done = lazaret()
        .args(["redteam", "--ablate", "--json", "--filter", "read_file"])
        .args(["--filter", "answer_twice"])
        .run()
        .exits(0);
    assert_eq!(done.stderr, "", "incidents are what is asked for");
    let report = json(&done.stdout);
    assert_eq!(report["$type"], "lazaret.redteam/v1");
    assert_eq!((&report["held"], &report["failed"]), (&2.into(), &0.into()));
    let attack = &report["attacks"][0];
    assert_eq!(attack["name"], "read_file");
    assert_eq!(attack["stopped_by"], "seccomp");
    let layers: Vec<&str> = attack["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shown| shown["layer"].as_str().unwrap())
        .collect();
    assert!(layers.starts_with(&["seccomp"]) && layers.ends_with(&["empty-root"]));
    assert_eq!(attack["independent"], layers.len());
    assert!(attack["with_none"].as_str().unwrap().contains("secret"));
}

#[test]
fn an_attack_that_succeeds_is_told_and_fails_the_command() {
    let done = lazaret()
        .args(["redteam", "--filter", "read_file", "--markdown"])
        .args(["--without", "seccomp", "--without", "landlock"])
        .args(["--without", "mount-namespace"])
        .run()
        .exits(1);
    assert!(
        done.stdout.contains("| `read_file` |")
            && done.stdout.contains("**SUCCEEDED**")
            && done
                .stdout
                .contains("Off on purpose: mount-namespace, landlock, seccomp."),
        "{}",
        done.stdout
    );
}

#[test]
fn bad_usage_says_what_there_is() {
    for (arguments, words) in [
        (
            &["--without", "selinux"][..],
            &["`selinux` is no layer", "control-group", "seccomp"][..],
        ),
        (&["--without", "descriptors"], &["`descriptors`", "mdwe"]),
        (
            &["--filter", "no-such-attack"],
            &["\"no-such-attack\"", "--list"],
        ),
        (
            &["--filter", "read_file", "--filter", "nothing"],
            &["\"nothing\""],
        ),
        (&["--accept-missing", "selinux"], &["selinux", "landlock"]),
        (&["--json", "--markdown"], &["--json", "--markdown"]),
        (&["--list", "--ablate"], &["--list", "--ablate"]),
    ] {
        lazaret()
            .arg("redteam")
            .args(arguments)
            .run()
            .exits(2)
            .says(words);
    }
}

/// Nothing that is the environment's or another verb's takes a layer off, and the
/// names of the red team's processes give nothing to whoever uses them.
#[test]
fn no_other_verb_takes_a_layer_off() {
    let help = lazaret().args(["run", "--help"]).run().exits(0).stdout;
    assert!(!help.contains("--without"), "{help}");
    lazaret()
        .args(["run", "--without", "seccomp", "x.wasm"])
        .run()
        .exits(2)
        .says(&["--without"]);
    use std::os::unix::process::CommandExt;
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_lazaret"));
    worker.arg0("lazaret:red-team").arg("run");
    let done = worker.run().exits(2);
    assert!(
        done.stderr.contains("started by Lazaret itself"),
        "{}",
        done.stderr
    );
}
