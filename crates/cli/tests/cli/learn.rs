//! What a program really uses, by the command line.

use serde_json::Value;

use crate::support::{Run, lazaret, wat};

/// What is learned of a program that reads a file of a directory.
fn learned(arguments: &[&str], writable: bool) -> (Value, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("in.txt"), "contents").unwrap();
    // As root, the program's worker is another user.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), everybody).unwrap();
    let grant = match writable {
        true => format!("{}::/d", directory.path().display()),
        false => format!("{}::/d:ro", directory.path().display()),
    };
    let to = directory.path().join("learned.json");
    let printed = lazaret()
        .args(["learn", "--json", "--dir", &grant, "--output"])
        .arg(&to)
        .arg(wat("files"))
        .args(arguments)
        .run()
        .exits(0)
        .stdout;
    let text = std::fs::read_to_string(&to).unwrap();
    (serde_json::from_str(&text).unwrap(), printed)
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|call| call["name"].as_str().unwrap()).collect()
}

#[test]
fn calls_and_files_that_were_used_are_told() {
    let (learned, printed) = learned(&["read", "in.txt"], true);
    assert_eq!(printed, "contents", "it runs as it does otherwise");
    assert_eq!(learned["$type"], "lazaret.learn/v1");
    let (used, unused) = (names(&learned["used"]), names(&learned["unused"]));
    assert!(
        used.contains(&"openat2") || used.contains(&"openat"),
        "{used:?}"
    );
    assert!(used.contains(&"write"), "standard output: {used:?}");
    // On the list by the imports, as the directory is writable.
    assert!(
        unused.contains(&"unlinkat") || unused.contains(&"pwrite64"),
        "{unused:?}"
    );
    assert!(used.iter().all(|name| !unused.contains(name)));
    for base in ["futex", "mmap", "exit_group"] {
        assert!(names_of_base(&learned).contains(&base), "{base}");
        assert!(!unused.contains(&base));
    }
    let directory = &learned["directories"][0];
    assert_eq!(directory["guest"], "/d");
    assert_eq!(
        (&directory["writable"], &directory["written"]),
        (&true.into(), &false.into())
    );
    let paths = directory["paths"].as_object().unwrap();
    assert!(
        paths.keys().any(|path| path.ends_with("in.txt")),
        "{paths:?}"
    );
}

fn names_of_base(learned: &Value) -> Vec<&str> {
    let list = learned["base"].as_array().unwrap().iter();
    list.map(|name| name.as_str().unwrap()).collect()
}

/// What is learned is never more than what `run` allows, which `audit` prints.
#[test]
fn the_list_is_that_of_audit() {
    let (learned, _) = learned(&["read", "in.txt"], false);
    let directory = tempfile::tempdir().unwrap();
    let audit = lazaret()
        .args(["audit", "--json", "--dir"])
        .arg(format!("{}::/d:ro", directory.path().display()))
        .arg(wat("files"))
        .run()
        .exits(0)
        .stdout;
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let workers = audit["workers"].as_array().unwrap();
    let listed = names(&workers.last().unwrap()["system_calls"]);
    let mut all = names(&learned["used"]);
    all.extend(names(&learned["unused"]));
    all.extend(names_of_base(&learned));
    all.sort_unstable();
    all.dedup();
    let mut listed = listed;
    listed.sort_unstable();
    assert_eq!(all, listed);
}

#[test]
fn a_writing_program_needs_what_it_was_granted() {
    let (learned, _) = learned(&["write", "new.txt"], true);
    let directory = &learned["directories"][0];
    assert_eq!(directory["written"], true);
    let shown = lazaret().args(["learn"]).arg(wat("hello")).run().exits(0);
    assert!(shown.stderr.contains("used") && shown.stderr.contains("what every worker has"));
    assert!(shown.stderr.contains("write "), "{}", shown.stderr);
}

/// It is told that the wall is not what it is otherwise.
#[test]
fn the_receipt_says_that_the_host_decides() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    lazaret()
        .args(["learn", "--report"])
        .arg(&report)
        .arg(wat("hello"))
        .run()
        .exits(0);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(report["receipt"]["learning"], true);
    let grade = report["receipt"]["grade"].as_str().unwrap();
    assert!(["C", "D"].contains(&grade), "{grade}");
    // Whoever demands a better one gets nothing to run.
    let refused = lazaret()
        .args(["learn", "--require-grade", "B"])
        .arg(wat("hello"))
        .run()
        .exits(1);
    assert!(
        refused.stderr.contains("to learn which are used"),
        "{}",
        refused.stderr
    );
}
