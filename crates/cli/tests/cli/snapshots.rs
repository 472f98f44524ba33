//! Snapshots and forks, by the command line.

use crate::support::{Data, Run};

#[test]
fn a_snapshot_is_made_listed_restored_and_deleted() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "inc"]).exits(0);
    data.verb("snapshot")
        .args(["create", "counter", "--tag", "one"])
        .run()
        .exits(0)
        .prints("one of counter: version 2\n");
    data.call(&["counter", "inc"]).exits(0);
    let made = data
        .verb("snapshot")
        .args(["create", "counter"])
        .run()
        .exits(0)
        .stdout;
    assert!(made.contains("of counter: version 3"), "{made}");
    let table = data
        .verb("snapshot")
        .args(["list", "counter"])
        .run()
        .exits(0)
        .stdout;
    let tags: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        tags.len() == 3 && tags[0] == "TAG" && tags[2] == "one",
        "{table}"
    );
    data.verb("snapshot")
        .args(["restore", "counter", "one"])
        .run()
        .exits(0)
        .says(&[]);
    data.call(&["counter", "get"])
        .exits(0)
        .prints("(1 : nat)\n");
    data.call(&["counter", "inc"])
        .exits(0)
        .prints("(2 : nat)\n");
    data.verb("snapshot")
        .args(["delete", "counter", "one"])
        .run()
        .exits(0)
        .prints("deleted one of counter\n");
    data.verb("snapshot")
        .args(["restore", "counter", "one"])
        .run()
        .fails(2, &["has no snapshot `one`", tags[1]]);
    let list: serde_json::Value = serde_json::from_str(
        &data
            .verb("snapshot")
            .args(["list", "counter", "--json"])
            .run()
            .exits(0)
            .stdout,
    )
    .unwrap();
    assert_eq!(list["$type"], "lazaret.snapshots/v1");
    assert_eq!(list["snapshots"][0]["tag"], tags[1]);
    assert_eq!(list["snapshots"][0]["version"], 3);
}

#[test]
fn a_fork_goes_its_own_way() {
    let data = Data::with(&["counter"]);
    data.call(&["counter", "inc"]).exits(0);
    data.verb("snapshot")
        .args(["create", "counter", "--tag", "one"])
        .run()
        .exits(0);
    data.call(&["counter", "inc"]).exits(0);
    data.verb("fork")
        .args(["counter", "twin"])
        .run()
        .exits(0)
        .prints("forked twin from counter at version 3\n");
    data.verb("fork")
        .args(["counter", "older", "--from", "one"])
        .run()
        .exits(0)
        .prints("forked older from counter at version 2\n");
    data.call(&["twin", "inc"]).exits(0).prints("(3 : nat)\n");
    data.call(&["older", "inc"]).exits(0).prints("(2 : nat)\n");
    data.call(&["counter", "get"])
        .exits(0)
        .prints("(2 : nat)\n");
    data.verb("remove").arg("counter").run().exits(0);
    data.call(&["twin", "get"]).exits(0).prints("(3 : nat)\n");
    data.call(&["older", "get"]).exits(0).prints("(2 : nat)\n");
}

#[test]
fn bad_tags_and_names_are_told() {
    let data = Data::with(&["counter"]);
    let snapshot = |arguments: &[&str]| data.verb("snapshot").args(arguments).run();
    snapshot(&["create", "counter", "--tag", "a/b"]).fails(2, &["`a/b` is no tag"]);
    snapshot(&["create", "counter", "--tag", ".."]).fails(2, &["`..` is no tag"]);
    snapshot(&["create", "counter", "--tag", "one"]).exits(0);
    snapshot(&["create", "counter", "--tag", "one"]).fails(2, &["has a snapshot `one` already"]);
    snapshot(&["create", "nobody"]).fails(2, &["there is no tenant `nobody`"]);
    snapshot(&["delete", "counter", "two"]).fails(2, &["no snapshot `two`", "it has: one"]);
    data.verb("fork")
        .args(["counter", "counter"])
        .run()
        .fails(2, &["exists already"]);
    data.verb("fork")
        .args(["counter", "new", "--from", "two"])
        .run()
        .fails(2, &["no snapshot `two`"]);
    data.verb("fork")
        .args(["counter", "a/b"])
        .run()
        .fails(2, &["no name for a tenant"]);
}
