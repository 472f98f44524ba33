//! `lazaret fsck` tells what is wrong with what is kept, and never makes it worse.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::support::{Data, Done, Run};

/// Runs a check, which changes nothing.
fn fsck(data: &Data, arguments: &[&str]) -> Done {
    let (before, lock) = (data.kept(), fs::read(data.path().join("lock")).ok());
    let done = data.verb("fsck").args(arguments).run();
    assert!(before == data.kept());
    assert_eq!(lock, fs::read(data.path().join("lock")).ok());
    done
}

/// A tenant with all of its log known to be on disk, and a snapshot.
fn checkpointed() -> Data {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "inc"]).exits(0);
    data.verb("snapshot")
        .args(["create", "counter", "--tag", "one"])
        .run()
        .exits(0);
    data
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn module(data: &Data) -> PathBuf {
    let mut modules = fs::read_dir(data.path().join("modules")).unwrap();
    modules.next().unwrap().unwrap().path()
}

#[test]
fn what_is_sound_is_told_so() {
    let data = checkpointed();
    for arguments in [&[][..], &["--deep"], &["counter"]] {
        fsck(&data, arguments).exits(0).prints("nothing is wrong\n");
    }
    let json = fsck(&data, &["--deep", "--json"]).exits(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["$type"], "lazaret.fsck/v1");
    assert_eq!(json["findings"], serde_json::json!([]));
    data.call(&["counter", "get"]).exits(0);
}

#[test]
fn a_damaged_page_is_named_by_a_deep_check() {
    let data = checkpointed();
    // The first segment's header takes a page; its first page follows.
    let log = data.path().join("tenants/counter/log-0.log");
    flip(&log, 4096 + 10);
    fsck(&data, &[]).exits(0);
    let done = fsck(&data, &["--deep"])
        .exits(1)
        .says(&["2 findings of damage", "nothing was changed"]);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{done:#?}");
    // The snapshot has the same file under another name.
    for (line, place) in lines
        .iter()
        .zip(["tenants/counter/log-", "snapshots/counter/one/log-"])
    {
        assert!(
            line.starts_with("damage: ")
                && line.contains(place)
                && line.contains(" at offset 4096, heap page ")
                && line.contains("checksum does not match")
                && line.contains("backup"),
            "{line}"
        );
    }
    let json = fsck(&data, &["--deep", "--json", "counter"])
        .exits(1)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let finding = &json["findings"][1];
    assert_eq!(finding["severity"], "damage");
    assert_eq!(finding["tenant"], "counter");
    assert_eq!(finding["snapshot"], "one");
    assert_eq!(finding["offset"], 4096);
    assert_eq!(finding["region"], "heap");
    assert!(finding["first_page"].is_u64() && finding["first_page"] == finding["last_page"]);
}

#[test]
fn damage_of_each_kind_is_told_in_one_run() {
    let data = checkpointed();
    data.verb("fork").args(["counter", "twin"]).run().exits(0);
    flip(&data.path().join("tenants/counter/manifest"), 100);
    fs::remove_file(data.path().join("tenants/twin/log-0.log")).unwrap();
    flip(&module(&data), 20);
    fs::write(data.path().join("lazaret.json"), "{").unwrap();
    let done = fsck(&data, &[]).exits(1);
    for words in [
        ["lazaret.json", "restore the file"],
        ["tenants/counter/manifest", "checksum"],
        ["tenants/twin/log-0.log", "cannot open"],
        ["modules/", "does not have the hash"],
    ] {
        let told = done.stdout.lines().any(|line| {
            line.starts_with("damage: ") && words.iter().all(|word| line.contains(word))
        });
        assert!(told, "no line with {words:?} in {done:#?}");
    }
    // Only what was asked for.
    let one = fsck(&data, &["counter"]).exits(1).stdout;
    assert!(!one.contains("twin"), "{one}");
    fs::remove_file(module(&data)).unwrap();
    let done = fsck(&data, &["counter"]).exits(1);
    assert!(done.stdout.contains("the module is missing"), "{done:#?}");
}

#[test]
fn leftovers_are_no_damage_and_go_at_the_next_start() {
    let data = checkpointed();
    let leftovers = [
        data.path().join("tenants/counter/base-99.shard"),
        data.path().join("tenants/counter/manifest.new"),
        data.path().join("tenants/.new-half"),
    ];
    for path in &leftovers[..2] {
        fs::write(path, "half").unwrap();
    }
    fs::create_dir(&leftovers[2]).unwrap();
    fs::write(data.path().join("modules/00ff.wasm"), "unused").unwrap();
    let done = fsck(&data, &["--deep"]).exits(0);
    for path in &leftovers {
        let name = path.to_str().unwrap();
        let told = done
            .stdout
            .lines()
            .any(|line| line.starts_with("leftover: ") && line.contains(name));
        assert!(told, "{name} isn't in {done:#?}");
        assert!(path.exists());
    }
    assert!(done.stdout.contains("00ff.wasm"), "{done:#?}");
    assert_eq!(done.stdout.lines().count(), 4, "{done:#?}");
    data.call(&["counter", "get"]).exits(0);
    for path in &leftovers {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn a_directory_in_use_and_a_tenant_that_is_not_there_are_told() {
    let data = checkpointed();
    fsck(&data, &["nobody"]).fails(2, &["there is no tenant `nobody`"]);
    fsck(&data, &["../x"]).fails(2, &["is no name"]);
    let lock = File::open(data.path().join("lock")).unwrap();
    lock.lock().unwrap();
    fsck(&data, &[]).fails(1, &["in use"]);
    drop(lock);
    fsck(&data, &[]).exits(0);
    let none = Data::new();
    none.verb("fsck").run().fails(2, &["no data directory"]);
    assert!(!none.path().exists());
}

#[test]
fn snapshots_that_belong_to_nobody_or_to_another_are_told() {
    let data = checkpointed();
    data.verb("fork").args(["counter", "twin"]).run().exits(0);
    let snapshots = data.path().join("snapshots");
    fs::create_dir(snapshots.join("twin")).unwrap();
    fs::rename(snapshots.join("counter/one"), snapshots.join("twin/one")).unwrap();
    let done = fsck(&data, &[]).exits(1);
    assert!(
        done.stdout.contains("snapshots/twin/one")
            && done.stdout.contains("it is a snapshot of tenant"),
        "{done:#?}"
    );
    fs::rename(snapshots.join("twin"), snapshots.join("gone")).unwrap();
    let done = fsck(&data, &[]).exits(0);
    assert!(
        done.stdout.starts_with("leftover: ") && done.stdout.contains("snapshots/gone"),
        "{done:#?}"
    );
    // They must not become the snapshots of another that gets the name.
    let fork = || data.verb("fork").args(["counter", "gone"]).run();
    fork().fails(2, &["snapshots of one that is gone", "`remove`"]);
    data.verb("remove").arg("gone").run().exits(0);
    fsck(&data, &[]).exits(0).prints("nothing is wrong\n");
    fork().exits(0);
}
