//! Help, completions and manual pages of every verb.
//!
//! What `--help` prints is kept under `tests/cli/help`. After a change that is
//! wanted, `UPDATE_HELP=1 cargo test -p lazaret-cli help` writes it anew.

use std::path::Path;

use crate::support::{Run, lazaret};

const VERBS: [&str; 24] = [
    "run",
    "learn",
    "install",
    "upgrade",
    "remove",
    "ps",
    "logs",
    "incidents",
    "quarantine",
    "release",
    "call",
    "checkpoint",
    "snapshot",
    "fork",
    "export",
    "import",
    "fsck",
    "state-hash",
    "audit",
    "doctor",
    "bench",
    "redteam",
    "completions",
    "man",
];

#[test]
fn help_is_as_it_was() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help");
    for verb in VERBS.iter().map(|verb| Some(*verb)).chain([None]) {
        let text = lazaret()
            .env_remove("LAZARET_PROFILE")
            .args(verb)
            .arg("--help")
            .run()
            .exits(0)
            .stdout;
        let path = kept.join(format!("{}.txt", verb.unwrap_or("lazaret")));
        if std::env::var_os("UPDATE_HELP").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            text,
            before,
            "{} differs; see the head of this test",
            path.display()
        );
    }
}

#[test]
fn every_verb_is_in_the_help_and_has_an_example() {
    let all = lazaret().arg("--help").run().exits(0).stdout;
    for verb in VERBS {
        assert!(
            all.contains(&format!("  {verb} ")),
            "{verb} is missing in {all}"
        );
        let one = lazaret().args([verb, "-h"]).run().exits(0).stdout;
        assert!(
            one.contains(&format!("  lazaret {verb}")),
            "{verb} has no example: {one}"
        );
    }
    let version = lazaret().arg("-V").run().exits(0).stdout;
    assert_eq!(
        version,
        concat!("lazaret ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn completions_know_every_verb_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lazaret().args(["completions", shell]).run().exits(0).stdout;
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
        assert!(script.contains("accept-missing"), "{shell}");
    }
    lazaret()
        .args(["completions", "ksh"])
        .run()
        .exits(2)
        .says(&["ksh", "bash"]);
}

#[test]
fn bash_accepts_its_completions() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("lazaret.bash");
    std::fs::write(
        &script,
        lazaret()
            .args(["completions", "bash"])
            .run()
            .exits(0)
            .stdout,
    )
    .unwrap();
    std::process::Command::new("bash")
        .arg("-n")
        .arg(&script)
        .run()
        .exits(0);
}

#[test]
fn every_verb_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    lazaret()
        .args(["man", "--out"])
        .arg(&out)
        .run()
        .exits(0)
        .prints("");
    for verb in VERBS {
        let page = std::fs::read_to_string(out.join(format!("lazaret-{verb}.1"))).unwrap();
        assert!(
            page.contains(".TH lazaret-") && page.contains(".SH SYNOPSIS"),
            "{page}"
        );
    }
    let main = lazaret().arg("man").run().exits(0).stdout;
    assert_eq!(
        main,
        std::fs::read_to_string(out.join("lazaret.1")).unwrap()
    );
    lazaret()
        .args(["man", "--out", "/proc/nowhere"])
        .run()
        .fails(1, &["/proc/nowhere"]);
}
