//! A tenant travels in one file.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{Data, Run, canister, done_with};

fn counted(data: &Data, name: &str) -> String {
    data.call(&[name, "get"]).exits(0).stdout
}

/// A counter that was counted up twice, and its archive.
fn exported() -> (Data, PathBuf) {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "inc"]).exits(0);
    data.call(&["counter", "inc"]).exits(0);
    let archive = data.directory.path().join("counter.lazaret");
    let done = data
        .verb("export")
        .arg("counter")
        .arg(&archive)
        .run()
        .exits(0);
    assert!(done.stdout.starts_with("exported counter: "), "{done:#?}");
    assert_eq!(done.stderr, "");
    (data, archive)
}

#[test]
fn an_imported_tenant_has_the_state_and_goes_its_own_way() {
    let (data, archive) = exported();
    let elsewhere = Data::new();
    for data in [&elsewhere, &data] {
        data.verb("import")
            .arg("copy")
            .arg(&archive)
            .run()
            .exits(0)
            .prints("imported copy at version 1\n");
        assert_eq!(counted(data, "copy"), "(2 : nat)\n");
        data.call(&["copy", "inc"]).exits(0).prints("(3 : nat)\n");
        data.verb("fsck")
            .arg("--deep")
            .run()
            .exits(0)
            .prints("nothing is wrong\n");
    }
    assert_eq!(counted(&data, "counter"), "(2 : nat)\n");
    let list: serde_json::Value =
        serde_json::from_str(&data.verb("ps").arg("--json").run().exits(0).stdout).unwrap();
    let tenants = list["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), 2);
    assert_eq!(tenants[0]["module"], tenants[1]["module"]);
    assert_ne!(tenants[0]["principal"], tenants[1]["principal"]);
}

#[test]
fn a_snapshot_is_exported_as_what_the_tenant_was_then() {
    let (data, archive) = exported();
    data.verb("snapshot")
        .args(["create", "counter", "--tag", "two"])
        .run()
        .exits(0);
    data.call(&["counter", "inc"]).exits(0);
    let export = |tag: &str| {
        let mut command = data.verb("export");
        command.arg("counter").arg(&archive).args(["--from", tag]);
        command.run()
    };
    export("none").fails(2, &["has no snapshot `none`; it has: two"]);
    export("two").exits(0);
    let mut command = data.verb("import");
    command.arg("copy").arg(&archive).run().exits(0);
    assert_eq!(counted(&data, "copy"), "(2 : nat)\n");
    assert_eq!(counted(&data, "counter"), "(3 : nat)\n");
}

#[test]
fn it_goes_through_a_pipe() {
    let (data, archive) = exported();
    let piped = data
        .verb("export")
        .args(["counter", "-"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty());
    assert!(piped.stdout == fs::read(&archive).unwrap());
    done_with(data.verb("import").args(["copy", "-"]), &piped.stdout)
        .exits(0)
        .prints("imported copy at version 1\n");
    assert_eq!(counted(&data, "copy"), "(2 : nat)\n");
}

#[test]
fn a_damaged_archive_makes_no_tenant() {
    let (data, archive) = exported();
    let whole = fs::read(&archive).unwrap();
    let before = data.kept();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut last = whole.clone();
    *last.last_mut().unwrap() ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for (bytes, words) in [
        (&whole[..whole.len() - 1], "ends early"),
        (&whole[..50], "ends early"),
        (&flipped, "damaged"),
        (&last, "hash of all of it"),
        (&longer, "something follows"),
        (b"not an archive, but as long as the header of one would have to be: a hundred and twenty-eight bytes, so that it is all read first", "begins with something else"),
    ] {
        done_with(data.verb("import").args(["copy", "-"]), bytes).fails(2, &[words]);
        assert!(data.kept() == before, "{words}");
    }
    data.verb("import")
        .args(["copy", "/nowhere/x"])
        .run()
        .fails(2, &["archive /nowhere/x"]);
    data.verb("import")
        .arg("counter")
        .arg(&archive)
        .run()
        .fails(2, &["exists already"]);
    data.verb("import")
        .arg("../x")
        .arg(&archive)
        .run()
        .fails(2, &["is no name"]);
}

#[test]
fn a_module_is_not_taken_for_an_archive_and_nothing_is_made_for_it() {
    let data = Data::new();
    data.verb("import")
        .args(["copy", "/nowhere/x"])
        .run()
        .fails(2, &["/nowhere/x"]);
    assert!(!data.path().exists());
    data.verb("import")
        .arg("copy")
        .arg(canister("counter"))
        .run()
        .fails(2, &["begins with something else"]);
    data.verb("ps").run().exits(0);
    assert_eq!(
        fs::read_dir(data.path().join("tenants")).unwrap().count(),
        0
    );
}

#[test]
fn a_file_is_replaced_only_by_a_whole_archive() {
    let (data, archive) = exported();
    let first = fs::read(&archive).unwrap();
    data.call(&["counter", "inc"]).exits(0);
    data.verb("export")
        .arg("counter")
        .arg(&archive)
        .run()
        .exits(0);
    let second = fs::read(&archive).unwrap();
    assert!(first != second);
    let modules = data.path().join("modules");
    for entry in fs::read_dir(&modules).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(0);
        fs::write(path, bytes).unwrap();
    }
    data.verb("export")
        .arg("counter")
        .arg(&archive)
        .run()
        .fails(1, &["does not have the hash"]);
    assert!(fs::read(&archive).unwrap() == second);
    let beside: Vec<_> = fs::read_dir(data.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    data.verb("export")
        .arg("nobody")
        .arg(data.directory.path().join("x"))
        .run()
        .fails(2, &["there is no tenant `nobody`"]);
    data.verb("export")
        .args(["counter", "/nowhere/x"])
        .run()
        .fails(1, &["/nowhere/x"]);
}
