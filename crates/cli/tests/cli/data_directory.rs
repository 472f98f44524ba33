//! A data directory that can't be used is said to be so, and is left as it is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Data, Run, canister, lazaret};

#[test]
fn in_use() {
    let data = Data::with(&["trap"]);
    let before = data.kept();
    let mut holder = data
        .verb("call")
        .args(["trap", "loopForever"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = holder.id().to_string();
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(data.path().join("lock"))
        .unwrap()
        .trim()
        != pid
    {
        assert!(Instant::now() < deadline, "the call never took the lock");
        std::thread::sleep(Duration::from_millis(2));
    }
    for done in [
        data.verb("ps").run(),
        data.call(&["trap", "state"]),
        data.verb("remove").arg("trap").run(),
    ] {
        done.fails(1, &["is in use", &format!("pid {pid}"), "--data"]);
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(data.kept(), before);
    data.call(&["trap", "state"]).exits(0);
}

#[test]
fn newer_or_corrupt() {
    let data = Data::with(&["counter"]);
    let description = data.path().join("lazaret.json");
    for (text, word) in [
        (r#"{"format":"lazaret-data","version":99}"#, "version 99"),
        ("{", "lazaret.json"),
        (r#"{"format":"other","version":1}"#, "`other`"),
    ] {
        std::fs::write(&description, text).unwrap();
        let before = data.kept();
        data.verb("ps").run().fails(1, &[word]);
        data.call(&["counter", "inc"]).fails(1, &[word]);
        data.verb("install")
            .arg("t")
            .arg(canister("counter"))
            .run()
            .fails(1, &[word]);
        data.verb("remove").arg("counter").run().fails(1, &[word]);
        assert_eq!(data.kept(), before);
    }
}

#[test]
fn not_a_data_directory() {
    let data = Data::new();
    std::fs::create_dir(data.path()).unwrap();
    std::fs::write(data.path().join("thesis.tex"), "x").unwrap();
    data.verb("install")
        .arg("t")
        .arg(canister("counter"))
        .run()
        .fails(1, &["is not empty and not a Lazaret data directory"]);
    data.verb("ps").run().fails(1, &["--data"]);
    assert_eq!(data.kept().len(), 1);
    // A file where a directory should be.
    let file = data.path().join("thesis.tex");
    lazaret()
        .args(["ps", "--data"])
        .arg(&file)
        .run()
        .fails(1, &["Not a directory"]);
}

#[test]
fn missing() {
    let data = Data::new();
    data.call(&["counter", "get"])
        .fails(2, &["there is no data directory", "lazaret install"]);
    data.verb("remove")
        .arg("counter")
        .run()
        .fails(2, &["there is no data directory"]);
    data.verb("upgrade")
        .arg("counter")
        .arg(canister("counter"))
        .run()
        .fails(2, &["there is no data directory"]);
    assert!(!data.path().exists());
}

#[test]
fn a_damaged_tenant_is_named_and_the_others_are_listed() {
    let data = Data::with(&["counter", "memory"]);
    let manifest = data.path().join("tenants/counter/manifest");
    std::fs::write(&manifest, "nonsense").unwrap();
    let before = data.kept();
    let done = data
        .verb("ps")
        .run()
        .exits(1)
        .says(&["error: 1 of the tenants"]);
    assert!(
        done.stdout
            .lines()
            .any(|line| line.starts_with("counter") && line.contains("manifest")),
        "{done:?}"
    );
    assert!(
        done.stdout
            .lines()
            .any(|line| line.starts_with("memory") && line.contains("MiB")),
        "{done:?}"
    );
    data.call(&["counter", "get"]).fails(1, &["manifest"]);
    data.call(&["memory", "length"]).exits(0);
    assert_eq!(data.kept(), before);
}

#[test]
fn a_module_that_was_changed_is_not_run() {
    let data = Data::with(&["counter"]);
    let modules = data.path().join("modules");
    let module = std::fs::read_dir(modules)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::copy(canister("trap"), &module).unwrap();
    data.call(&["counter", "get"])
        .fails(1, &["does not have the hash"]);
}

/// Root may write anywhere: such a test runs as nobody then, with a copy of the
/// command that nobody can reach.
fn as_nobody(directory: &Path) -> Command {
    let nobody = 65_534;
    if std::fs::metadata("/proc/self")
        .map(|own| std::os::unix::fs::MetadataExt::uid(&own))
        .unwrap()
        != 0
    {
        return lazaret();
    }
    let copy = directory.join("lazaret");
    if !copy.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_lazaret"), &copy).unwrap();
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={nobody}"))
        .arg(format!("--regid={nobody}"))
        .arg("--clear-groups")
        .arg(copy);
    command
}

#[test]
fn read_only() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    let protect =
        |mode: u32| std::fs::set_permissions(data.path(), PermissionsExt::from_mode(mode)).unwrap();
    std::fs::set_permissions(data.path().join("lock"), PermissionsExt::from_mode(0o444)).unwrap();
    protect(0o555);
    for arguments in [
        vec!["call", "counter", "inc"],
        vec!["ps"],
        vec!["remove", "counter"],
    ] {
        as_nobody(data.directory.path())
            .args(&arguments)
            .arg("--data")
            .arg(data.path())
            .run()
            .fails(1, &["Permission denied", "lock"]);
    }
    protect(0o755);
    assert_eq!(data.kept(), before);
}
