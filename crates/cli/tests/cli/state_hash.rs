//! The hash of a state, by the command line.

use crate::support::{Data, Run};

fn hash(data: &Data, name: &str) -> String {
    let printed = data.verb("state-hash").arg(name).run().exits(0).stdout;
    let hash = printed.trim_end().to_owned();
    assert_eq!(hash.len(), 64, "{printed}");
    assert!(
        hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{printed}"
    );
    hash
}

#[test]
fn the_hash_follows_the_state_and_nothing_else() {
    let data = Data::with(&["counter"]);
    let fresh = hash(&data, "counter");
    assert_eq!(hash(&data, "counter"), fresh);
    data.call(&["counter", "get"]).exits(0);
    assert_eq!(hash(&data, "counter"), fresh, "a query leaves nothing");
    data.call(&["counter", "inc"]).exits(0);
    let one = hash(&data, "counter");
    assert_ne!(one, fresh);
    data.verb("fork").args(["counter", "twin"]).run().exits(0);
    assert_eq!(hash(&data, "twin"), one, "a fork is the same state");
    for name in ["counter", "twin"] {
        data.call(&[name, "inc"]).exits(0);
    }
    let two = hash(&data, "counter");
    assert_ne!(two, one);
    assert_eq!(hash(&data, "twin"), two, "the same call, the same state");
    let printed = data
        .verb("state-hash")
        .args(["counter", "--json"])
        .run()
        .exits(0)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["$type"], "lazaret.state-hash/v1");
    assert_eq!(json["name"], "counter");
    assert_eq!(json["version"], 3);
    assert_eq!(json["hash"], two);
}

#[test]
fn there_is_no_hash_of_nobody() {
    let data = Data::with(&["counter"]);
    data.verb("state-hash")
        .arg("nobody")
        .run()
        .fails(2, &["there is no tenant `nobody`"]);
    data.verb("state-hash")
        .arg("../x")
        .run()
        .fails(2, &["no name for a tenant"]);
}
