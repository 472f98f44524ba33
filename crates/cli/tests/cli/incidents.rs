//! What workers did that no worker should, by the command line.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::inspection::without_mdwe;
use crate::support::{Data, Run, lazaret, wat};

/// A program that is over its time is an incident, if a small one.
fn over_its_time(data: &Data) {
    lazaret()
        .args(["run", "--time", "200ms"])
        .env("LAZARET_DATA", data.path())
        .arg(wat("loop"))
        .run()
        .exits(124);
}

fn list(data: &Data, arguments: &[&str]) -> Value {
    let printed = data
        .verb("incidents")
        .arg("--json")
        .args(arguments)
        .run()
        .exits(0)
        .stdout;
    let list: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(list["$type"], "lazaret.incidents/v1");
    list["incidents"].clone()
}

#[test]
fn an_incident_is_listed_and_shown() {
    let data = Data::with(&["counter"]);
    data.verb("incidents")
        .run()
        .exits(0)
        .prints("no incidents\n");
    over_its_time(&data);
    let all = list(&data, &[]);
    let [one] = all.as_array().unwrap().as_slice() else {
        panic!("{all}");
    };
    assert_eq!(one["schema"], 1);
    assert_eq!(one["what"], "limit");
    assert_eq!(one["limit"], "time");
    assert_eq!(one["severity"], "low");
    assert_eq!(one["worker"], "program");
    assert_eq!(one["module"].as_str().unwrap().len(), 64);
    for words in ["explanation", "advice", "layer", "at"] {
        assert!(!one[words].as_str().unwrap().is_empty(), "{words}");
    }
    let evidence = &one["evidence"];
    assert!(evidence["pid"].as_i64().unwrap() > 1);
    assert_eq!(evidence["receipt"]["threads"], 1);
    let requests = evidence["requests"].as_array().unwrap();
    let what: Vec<&str> = requests
        .iter()
        .map(|request| request["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["Assign", "Start"]);

    let id = one["id"].as_str().unwrap();
    let table = data.verb("incidents").run().exits(0).stdout;
    assert!(
        table.contains(id) && table.contains("low") && table.contains("(program)"),
        "{table}"
    );
    let shown = data
        .verb("incidents")
        .args(["--id", &id[..20]])
        .run()
        .exits(0)
        .stdout;
    for words in [
        id,
        "reached its limit of time",
        "The last requests",
        "Raise the limit",
    ] {
        assert!(shown.contains(words), "no `{words}` in {shown}");
    }
    let json = data
        .verb("incidents")
        .args(["--json", "--id", id])
        .run()
        .exits(0)
        .stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["$type"], "lazaret.incident/v1");
    assert_eq!(json["id"], id);

    assert_eq!(list(&data, &["--severity", "medium"]), Value::Array(vec![]));
    assert_eq!(list(&data, &["counter"]), Value::Array(vec![]));
}

#[test]
fn without_a_data_directory_nothing_is_kept() {
    let data = Data::new();
    over_its_time(&data);
    assert!(!data.path().exists());
    data.verb("incidents")
        .run()
        .fails(2, &["there is no data directory"]);
}

#[test]
fn what_can_not_be_found_or_read_is_told() {
    let data = Data::with(&["counter"]);
    over_its_time(&data);
    over_its_time(&data);
    data.verb("incidents")
        .args(["--id", "1999"])
        .run()
        .fails(2, &["no incident `1999`"]);
    data.verb("incidents")
        .args(["--id", "2"])
        .run()
        .fails(2, &["the beginning of 2 incidents"]);
    data.verb("incidents")
        .args(["--severity", "dire"])
        .run()
        .exits(2)
        .says(&["`dire` is no severity"]);
    data.verb("incidents")
        .arg("../x")
        .run()
        .fails(2, &["no name for a tenant"]);
    let first = std::fs::read_dir(data.path().join("incidents"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .min()
        .unwrap();
    std::fs::write(&first, b"{").unwrap();
    let done = data.verb("incidents").run().exits(1);
    assert!(done.stdout.contains("(program)"), "the other: {done:#?}");
    done.says(&[
        "this incident's evidence is lost",
        "1 of the incidents can't be read",
    ]);
}

#[test]
fn they_can_be_followed() {
    let data = Data::with(&["counter"]);
    over_its_time(&data);
    let mut follow = data
        .verb("incidents")
        .args(["--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let first = next();
    over_its_time(&data);
    let second = next();
    assert!(first["id"].as_str().unwrap() < second["id"].as_str().unwrap());
    drop(lines);
    // Who goes away is noticed at the next one.
    over_its_time(&data);
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn a_report_has_the_incident() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    lazaret()
        .args(["run", "--time", "200ms", "--report"])
        .arg(&path)
        .arg(wat("loop"))
        .run()
        .exits(124);
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["incident"]["what"], "limit");
}

#[test]
fn a_grade_can_be_required() {
    let run = |arguments: &[&str]| lazaret().arg("run").args(arguments).arg(wat("hello")).run();
    run(&["--require-grade", "D"]).exits(0);
    run(&["--require-grade", "E"])
        .exits(2)
        .says(&["`E` is no grade"]);
    let doctor = lazaret().args(["doctor", "--json"]).run();
    let doctor: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let here = doctor["grade"].as_str().unwrap();
    run(&["--require-grade", here]).exits(0);
    // Whatever this host has, less of it is not enough for the best.
    let lacking = |arguments: &[&str]| {
        without_mdwe()
            .args(["run", "--accept-missing", "mdwe"])
            .args(arguments)
            .arg(wat("hello"))
            .run()
    };
    lacking(&["--require-grade", "D"]).exits(0);
    lacking(&["--require-grade", "A"])
        .exits(1)
        .prints("")
        .says(&["A is required", "no mdwe"]);
}

/// A command whose filters somebody outside listens to, as a container's agent
/// may: then nobody else can.
fn listened_to() -> std::process::Command {
    use lazaret::wall::Architecture;
    use lazaret::wall::layers::{no_new_privs, seccomp};
    use lazaret::wall::policy::{Allowed, Kind, Policy};
    let everything = Policy {
        kind: Kind::Launch,
        architecture: Architecture::HERE,
        allowed: (0..1000)
            .map(|number| Allowed {
                name: "any",
                number,
                arguments: Vec::new(),
                why: "nothing is refused",
            })
            .collect(),
    };
    let filter = seccomp::compile(&everything, seccomp::Denied::Notify).unwrap();
    let mut command = lazaret();
    // SAFETY: between fork and exec it only makes system calls, on a filter
    // that was made before.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            no_new_privs::apply().map_err(|error| error.source)?;
            let listener = seccomp::load_with_listener(&filter).map_err(|error| error.source)?;
            // It would be closed by exec, and then there would be none.
            let kept = libc::fcntl(
                std::os::fd::AsRawFd::as_raw_fd(&listener),
                libc::F_DUPFD,
                100,
            );
            match kept {
                0.. => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    command
}

#[test]
fn where_somebody_else_listens_forbidden_calls_kill_and_the_receipt_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    listened_to()
        .args(["run", "--report"])
        .arg(&path)
        .arg(wat("hello"))
        .run()
        .exits(0);
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["receipt"]["forbidden_calls"], "kill");
    assert_ne!(report["receipt"]["grade"], "A");
    listened_to()
        .args(["run", "--require-grade", "A"])
        .arg(wat("hello"))
        .run()
        .exits(1)
        .says(&["A is required", "leaves no evidence"]);
    let doctor = listened_to().args(["doctor", "--json"]).run();
    let doctor: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let notification = doctor["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["name"] == "notification")
        .unwrap();
    assert_eq!(notification["probe"]["state"], "missing");
}

#[test]
fn a_tenant_in_quarantine_runs_nothing_until_it_is_released() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "inc"]).exits(0);
    data.verb("release")
        .arg("counter")
        .run()
        .exits(0)
        .prints("counter was not in quarantine\n");
    data.verb("quarantine")
        .args(["counter", "--reason", "it was rude"])
        .run()
        .exits(0)
        .prints("counter is in quarantine\n");
    for method in ["inc", "get"] {
        data.call(&["counter", method]).fails(
            1,
            &["in quarantine since", "it was rude", "lazaret release"],
        );
    }
    let ps = data.verb("ps").run().exits(0).stdout;
    assert!(ps.contains("in quarantine: it was rude"), "{ps}");
    data.verb("release")
        .arg("counter")
        .run()
        .exits(0)
        .prints("counter may run again\n");
    let reply = data.call(&["counter", "inc"]).exits(0).stdout;
    assert!(reply.contains('2'), "nothing ran meanwhile: {reply}");
    for verb in ["quarantine", "release"] {
        data.verb(verb)
            .arg("nobody")
            .run()
            .fails(2, &["there is no tenant `nobody`"]);
    }
    data.verb("call")
        .args(["--quarantine-after", "0", "counter", "inc"])
        .run()
        .exits(2)
        .says(&["`0` is no number of incidents"]);
}

/// A worker that somebody kills is an incident that a hook is told of.
#[test]
fn a_hook_is_told_by_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let mut run = lazaret()
        .args(["run", "--time", "60s", "--on-incident"])
        .arg(format!("cat > {}", told.display()))
        .arg(wat("loop"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_worker = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(b"lazaret:worker"))
    };
    let begin = std::time::Instant::now();
    // Whichever worker there is just then, the program's or its compiler's.
    while !told.exists() && run.try_wait().unwrap().is_none() {
        assert!(begin.elapsed().as_secs() < 50, "nobody was told");
        std::thread::sleep(std::time::Duration::from_millis(100));
        for (pid, _) in crate::signals::descendants(run.id()) {
            if is_worker(&pid) {
                // SAFETY: signals a process that this test's command started.
                unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            }
        }
    }
    assert_ne!(run.wait().unwrap().code(), Some(0));
    let incident: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
    assert_eq!(incident["what"], "killed");
    assert_eq!(incident["severity"], "medium");
}
