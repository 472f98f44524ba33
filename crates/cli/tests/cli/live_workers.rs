//! The workers that run, beside their receipts, and incidents once more, by the
//! command line.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Data, Run, lazaret, wat};

fn live(data: &Data) -> Value {
    let printed = data
        .verb("audit")
        .args(["--live", "--json"])
        .run()
        .exits(0)
        .stdout;
    let list: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(list["$type"], "lazaret.audit-live/v1");
    list["workers"].clone()
}

#[test]
fn a_running_program_is_as_it_was_verified() {
    let data = Data::with(&["counter"]);
    data.verb("audit")
        .arg("--live")
        .run()
        .exits(0)
        .prints("no workers\n");
    let mut running = lazaret()
        .args(["run", "--time", "60s"])
        .env("LAZARET_DATA", data.path())
        .arg(wat("loop"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let workers = loop {
        let workers = live(&data);
        if !workers.as_array().unwrap().is_empty() {
            break workers;
        }
        assert!(Instant::now() < until, "it is not listed");
        std::thread::sleep(Duration::from_millis(100));
    };
    let one = &workers[0];
    assert_eq!(one["state"], "same");
    assert_eq!(
        (&one["worker"], &one["schema"]),
        (&"program".into(), &1.into())
    );
    assert_eq!(one["host_pid"], running.id());
    assert_eq!(one["pid"], one["receipt"]["pid"]);
    assert_eq!(one["posture"]["status"]["Threads"], "1");
    let table = data.verb("audit").arg("--live").run().exits(0).stdout;
    assert!(
        table.contains("as verified") && table.contains("(program)"),
        "{table}"
    );

    // Whoever is not as the record says is told of, and the command fails.
    let record = data.path().join(format!("workers/{}.json", one["pid"]));
    let text = std::fs::read_to_string(&record).unwrap();
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    changed["posture"]["status"]["Seccomp"] = "0".into();
    std::fs::write(&record, changed.to_string()).unwrap();
    let told = data.verb("audit").arg("--live").run().exits(1);
    assert!(
        told.stdout.contains("status Seccomp was 0 and is 2"),
        "{}",
        told.stdout
    );
    std::fs::write(&record, "{").unwrap();
    let told = data.verb("audit").arg("--live").run().exits(1);
    assert!(
        told.stderr.contains("no record of a worker"),
        "{}",
        told.stderr
    );

    running.kill().unwrap();
    running.wait().unwrap();
    std::fs::remove_file(&record).unwrap();
    assert_eq!(live(&data), Value::Array(Vec::new()));
}

/// A program has no state, so it can't be run again on it; what isn't there
/// can't either.
#[test]
fn what_can_not_be_replayed_is_told() {
    let data = Data::with(&["counter"]);
    lazaret()
        .args(["run", "--time", "200ms"])
        .env("LAZARET_DATA", data.path())
        .arg(wat("loop"))
        .run()
        .exits(124);
    let printed = data.verb("incidents").arg("--json").run().exits(0).stdout;
    let list: Value = serde_json::from_str(&printed).unwrap();
    let id = list["incidents"][0]["id"].as_str().unwrap().to_owned();
    let told = data.verb("incidents").args(["replay", &id]).run().exits(2);
    assert!(
        told.stderr.contains("is of a program, which has no state"),
        "{}",
        told.stderr
    );
    let told = data
        .verb("incidents")
        .args(["replay", "2001"])
        .run()
        .exits(2);
    assert!(
        told.stderr.contains("there is no incident `2001`"),
        "{}",
        told.stderr
    );
    data.verb("incidents").arg("replay").run().exits(2);
}
