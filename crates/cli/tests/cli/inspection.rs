//! `audit`, `doctor` and `bench`: what holds, what there is and what it costs can
//! be read.

use lazaret::wall::Kind;
use lazaret::wall::layers::descriptors::listed;
use lazaret::wall::layers::landlock::coverage_here;
use lazaret::wall::policy::{ProgramRights, Uses};
use serde_json::Value;

use crate::support::{Run, canister, lazaret, wat};

fn audit(arguments: &[&str]) -> Value {
    serde_json::from_str(
        &lazaret()
            .args(["audit", "--json"])
            .args(arguments)
            .run()
            .exits(0)
            .stdout,
    )
    .unwrap()
}

/// The member of a list that has this name.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|member| member["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list}"))
}

fn worker<'a>(audit: &'a Value, name: &str) -> &'a Value {
    named(&audit["workers"], name)
}

fn calls(worker: &Value) -> Vec<&str> {
    worker["system_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["name"].as_str().unwrap())
        .collect()
}

#[test]
fn every_kind_of_worker_is_told() {
    let audit = audit(&[]);
    assert_eq!(audit["$type"], "lazaret.audit/v1");
    let names: Vec<&str> = audit["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "launch",
            "tenant",
            "compiler",
            "program",
            "program --dir :ro",
            "program --dir"
        ]
    );
    let tenant = worker(&audit, "tenant");
    let futex = named(&tenant["system_calls"], "futex");
    assert!(
        !futex["arguments"].as_array().unwrap().is_empty()
            && futex["why"].as_str().unwrap().contains("FUTEX_WAIT")
    );
    for crossing in [
        "Call",
        "Done",
        "userfaultfd, with the kernel's tracker",
        "written pages, with the signal tracker",
        "Transfer",
        "log area",
    ] {
        named(&tenant["crossings"], crossing);
    }
    for (list, names) in [
        ("trackers", ["cards", "kernel", "signal"].as_slice()),
        ("page_copy", &["host", "worker"]),
    ] {
        let ways = &audit["pages"][list];
        for name in names {
            assert!(!named(ways, name)["here"].as_str().unwrap().is_empty());
        }
        let chosen = ways.as_array().unwrap().iter();
        assert_eq!(chosen.filter(|way| way["chosen"] == true).count(), 1);
    }
    // A program has these, a tenant none.
    let streams = |name: &str| {
        let crossings = worker(&audit, name)["crossings"].as_array().unwrap();
        crossings
            .iter()
            .filter(|crossing| crossing["name"].as_str().unwrap().starts_with("standard "))
            .count()
    };
    assert!(streams("program") >= 2);
    assert_eq!(streams("tenant"), 0);
    assert_eq!(tenant["descriptors"], serde_json::json!([]));
    // What is seen of workers from outside is compared with the same list.
    let programs = |directories, writable| {
        Kind::Program(ProgramRights {
            directories,
            writable,
            uses: Uses::ALL,
        })
    };
    for (name, kind) in [
        ("tenant", Kind::Tenant),
        ("compiler", Kind::Compiler),
        ("program", programs(false, false)),
        ("program --dir :ro", programs(true, false)),
        ("program --dir", programs(true, true)),
    ] {
        let listed: Vec<String> = listed(kind).iter().map(ToString::to_string).collect();
        assert_eq!(
            worker(&audit, name)["descriptors"],
            serde_json::json!(listed),
            "{name}"
        );
    }
    assert_eq!(audit["layers"].as_array().unwrap().len(), 15);
    assert_eq!(named(&audit["layers"], "landlock")["here"], coverage_here());
    assert!(
        audit["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == "net")
    );
    for forbidden in ["execve", "socket", "ptrace", "clone", "fork", "connect"] {
        for name in names.iter().filter(|name| **name != "launch") {
            assert!(
                !calls(worker(&audit, name)).contains(&forbidden),
                "{name} may {forbidden}"
            );
        }
    }
}

#[test]
fn a_module_gets_its_own_kind() {
    let path = wat("cat");
    let path = path.to_str().unwrap();
    let plain = audit(&[path]);
    assert!(!calls(worker(&plain, "program")).contains(&"openat"));
    assert!(
        plain["module"]["imports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|import| import == "wasi_snapshot_preview1.fd_read")
    );
    let granted = audit(&["--dir", "/tmp:ro", path]);
    // It imports nothing that opens or removes files, whatever it is granted.
    let calls_of = |audit: &Value, name: &str| -> Vec<String> {
        let calls = calls(worker(audit, name));
        calls.into_iter().map(str::to_owned).collect()
    };
    let read = calls_of(&granted, "program --dir :ro");
    assert!(!read.iter().any(|call| call == "openat"), "{read:?}");
    assert!(!read.iter().any(|call| call == "clock_gettime"), "{read:?}");
    assert_eq!(
        granted["module"]["uses"],
        serde_json::json!(["read", "write"])
    );
    let files = std::env::temp_dir().join(format!("lazaret-files-{}.wat", std::process::id()));
    std::fs::write(
        &files,
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
                (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_unlink_file"
                (func (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")))"#,
    )
    .unwrap();
    let of = |directory: &str, name: &str| {
        calls_of(&audit(&["--dir", directory, files.to_str().unwrap()]), name)
    };
    let reads = of("/tmp:ro", "program --dir :ro");
    assert!(reads.iter().any(|call| call == "openat"), "{reads:?}");
    assert!(!reads.iter().any(|call| call == "unlinkat"), "{reads:?}");
    let writes = of("/tmp", "program --dir");
    assert!(writes.iter().any(|call| call == "unlinkat"), "{writes:?}");
    assert!(!writes.iter().any(|call| call == "mkdirat"), "{writes:?}");
    std::fs::remove_file(&files).unwrap();
    let tenant = audit(&[canister("counter").to_str().unwrap()]);
    worker(&tenant, "tenant");
    lazaret()
        .arg("audit")
        .arg(wat("component"))
        .run()
        .fails(2, &["component"]);
}

#[test]
fn an_audit_for_people_names_the_same() {
    let text = lazaret().arg("audit").run().exits(0).stdout;
    for words in [
        "tenant: ",
        "futex",
        "only if",
        "never FUTEX_REQUEUE",
        "HostCall",
        "userfaultfd",
        "Layers of the wall",
        "landlock",
        "Namespaces",
    ] {
        assert!(
            text.to_lowercase().contains(&words.to_lowercase()),
            "no `{words}` in {text}"
        );
    }
    assert!(!text.contains('\u{1b}'), "colour without a terminal");
}

#[test]
fn a_doctor_tells_what_there_is() {
    let done = lazaret().args(["doctor", "--json"]).run();
    let diagnosis: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(diagnosis["$type"], "lazaret.doctor/v1");
    assert_eq!(
        done.code,
        Some(if diagnosis["complete"] == true { 0 } else { 1 })
    );
    let findings = &diagnosis["findings"];
    for name in [
        "user-namespace",
        "seccomp",
        "kernel-tracker",
        "cgroup-memory",
    ] {
        let finding = named(findings, name);
        for member in ["purpose", "cost", "remedy"] {
            assert!(!finding[member].as_str().unwrap().is_empty());
        }
    }
    let grade: lazaret::wall::Grade = diagnosis["grade"].as_str().unwrap().parse().unwrap();
    assert_eq!(diagnosis["grade_means"], grade.meaning());
    assert_eq!(diagnosis["auto"]["tracker"], "cards");
    let reached = named(findings, "read-workers")["probe"]["state"] == "works";
    let copier = if reached { "host" } else { "worker" };
    assert_eq!(diagnosis["auto"]["page_copy"], copier);
    let landlock = named(findings, "landlock");
    if landlock["probe"]["state"] == "works" {
        assert_eq!(landlock["probe"]["detail"], coverage_here());
    }
    let text = lazaret().arg("doctor").run();
    assert_eq!(text.code, done.code);
    assert!(
        text.stdout.contains("seccomp") && !text.stdout.contains('\u{1b}'),
        "{text:?}"
    );
}

/// A command on a host that lacks memory-deny-write-execute: an outer filter
/// refuses it, as a container's profile might.
pub fn without_mdwe() -> std::process::Command {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };
    // PR_SET_MDWE (kernel: include/uapi/linux/prctl.h).
    let condition =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 65).unwrap();
    let rule = SeccompRule::new(vec![condition]).unwrap();
    let filter = SeccompFilter::new(
        std::collections::BTreeMap::from([(libc::SYS_prctl, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EINVAL as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    let mut command = lazaret();
    // SAFETY: between fork and exec it only makes system calls, on a program
    // that was made before.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            seccompiler::apply_filter(&program).map_err(std::io::Error::other)
        });
    }
    command
}

#[test]
fn a_benchmark_runs_without_a_layer_if_that_is_accepted() {
    let bench = ["bench", "--quick", "--filter", "start"];
    without_mdwe()
        .args(bench)
        .run()
        .exits(1)
        .says(&["mdwe", "--accept-missing mdwe"]);
    let done = without_mdwe()
        .args(bench)
        .args(["--accept-missing", "mdwe"])
        .run()
        .exits(0);
    assert!(done.stdout.contains("start of a locked worker"), "{done:?}");
}

#[test]
fn a_benchmark_gives_a_table_as_text_and_as_json() {
    let done = lazaret()
        .args(["bench", "--quick", "--filter", "start", "--json"])
        .run()
        .exits(0);
    let table: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(table["$type"], "lazaret.bench/v1");
    let row = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["key"] == "start")
        .unwrap();
    for measured in [&row["ours"], &row["baseline"]["measured"]] {
        let (p50, p99) = (
            measured["p50"].as_f64().unwrap(),
            measured["p99"].as_f64().unwrap(),
        );
        assert!(p50 > 0.0 && p50 <= p99, "{row}");
    }
    let text = lazaret()
        .args(["bench", "--quick", "--filter", "start"])
        .run()
        .exits(0);
    assert!(text.stdout.contains("start of a locked worker"), "{text:?}");
}

#[test]
fn measures_and_the_embedder_s_functions_are_told() {
    let audit = audit(&[]);
    for measure in lazaret::wall::Measure::ALL {
        let told = named(&audit["measures"], measure.name());
        assert_eq!(told["works"], measure.probe().works(), "{told}");
        assert!(told["here"].is_string());
    }
    // This command offers none of its own, and says so.
    assert_eq!(audit["host_functions"], serde_json::json!([]));
    let text = lazaret().arg("audit").run().exits(0).stdout;
    assert!(
        text.contains("Functions of the embedder")
            && text.contains("none: this command offers none"),
        "{text}"
    );
    let doctor = lazaret().args(["doctor", "--json"]).run();
    let doctor: Value = serde_json::from_str(&doctor.stdout).unwrap();
    assert!(doctor["advice"].is_array());
    for measure in lazaret::wall::Measure::ALL {
        let found = named(&doctor["findings"], measure.name());
        assert_eq!(found["required"], false, "{found}");
    }
}
