//! Putting a tenant on disk, by the command line.

use crate::support::{Data, Run};

#[test]
fn the_version_is_named() {
    let data = Data::with(&["counter"]);
    for _ in 0..2 {
        data.call(&["counter", "inc"]).exits(0);
    }
    data.verb("checkpoint")
        .arg("counter")
        .run()
        .exits(0)
        .prints("version 3 is on disk\n");
    let printed = data
        .verb("checkpoint")
        .args(["counter", "--json"])
        .run()
        .exits(0)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["$type"], "lazaret.checkpoint/v1");
    assert_eq!(
        (&json["name"], &json["version"]),
        (&"counter".into(), &3.into())
    );
    let (pause, time) = (
        json["pause"].as_u64().unwrap(),
        json["time"].as_u64().unwrap(),
    );
    assert!(pause <= time, "{printed}");
}

#[test]
fn there_is_no_checkpoint_of_nobody() {
    let data = Data::with(&["counter"]);
    data.verb("checkpoint")
        .arg("nobody")
        .run()
        .fails(2, &["there is no tenant `nobody`"]);
}
