//! Install, list, upgrade, read the log, remove.

use crate::support::{Data, Run, canister};

#[test]
fn a_tenant_comes_is_listed_and_goes() {
    let data = Data::new();
    data.verb("ps")
        .run()
        .exits(0)
        .prints("NAME  VERSION  HEAP  STABLE  DISK  MODULE  METHODS\n");
    assert!(!data.path().exists(), "listing makes nothing");
    data.verb("install")
        .arg("one")
        .arg(canister("counter"))
        .run()
        .exits(0)
        .prints("installed one at version 1\n");
    data.verb("install")
        .arg("two")
        .arg(canister("counter"))
        .run()
        .exits(0);
    data.call(&["two", "inc"]).exits(0);
    let table = data.verb("ps").run().exits(0).stdout;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows.iter().map(|row| row[0]).collect::<Vec<_>>(),
        ["NAME", "one", "two"]
    );
    assert_eq!((rows[1][1], rows[2][1]), ("1", "2"), "{table}");
    data.verb("remove")
        .arg("one")
        .run()
        .exits(0)
        .prints("removed one\n");
    data.call(&["one", "get"])
        .fails(2, &["there is no tenant `one`"]);
    data.call(&["two", "get"]).exits(0).prints("(1 : nat)\n");
}

#[test]
fn a_list_in_json_has_everything() {
    let data = Data::with(&["counter"]);
    let list: serde_json::Value =
        serde_json::from_str(&data.verb("ps").arg("--json").run().exits(0).stdout).unwrap();
    assert_eq!(list["$type"], "lazaret.ps/v1");
    let tenant = &list["tenants"][0];
    assert_eq!(
        (tenant["name"].as_str(), tenant["version"].as_u64()),
        (Some("counter"), Some(1))
    );
    assert!(
        tenant["heap_bytes"].as_u64().unwrap() > 0 && tenant["disk_bytes"].as_u64().unwrap() > 0
    );
    assert!(
        tenant["methods"]
            .as_array()
            .unwrap()
            .iter()
            .any(|method| method == "query get"),
        "{tenant}"
    );
    let none: serde_json::Value =
        serde_json::from_str(&Data::new().verb("ps").arg("--json").run().exits(0).stdout).unwrap();
    assert_eq!(none["tenants"], serde_json::json!([]));
}

#[test]
fn looking_compiles_nothing() {
    let data = Data::with(&["counter"]);
    let cache = data.path().join("cache");
    std::fs::remove_dir_all(&cache).unwrap();
    data.verb("ps").run().exits(0);
    data.verb("logs").arg("counter").run().exits(0);
    assert!(!cache.exists());
    data.call(&["counter", "get"]).exits(0);
    assert!(cache.exists());
}

#[test]
fn an_upgrade_keeps_the_state_and_one_that_fails_keeps_the_tenant() {
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(canister("upgrade_v1"))
        .run()
        .exits(0);
    data.call(&["t", "add", "(\"x\")"])
        .exits(0)
        .prints("(1 : nat)\n");
    data.verb("upgrade")
        .arg("t")
        .arg(canister("upgrade_trap"))
        .run()
        .exits(3)
        .says(&["error: ", "trapped (code 5, canister error)"]);
    data.verb("upgrade")
        .arg("t")
        .arg(canister("upgrade_incompatible"))
        .run()
        .exits(3);
    data.call(&["t", "version"]).exits(0).prints("(1 : nat)\n");
    data.call(&["t", "get", "(\"x\")"])
        .exits(0)
        .prints("(opt (1 : nat))\n");
    data.verb("upgrade")
        .arg("t")
        .arg(canister("upgrade_v2"))
        .run()
        .exits(0)
        .says(&[]);
    data.call(&["t", "version"]).exits(0).prints("(2 : nat)\n");
    data.call(&["t", "get", "(\"x\")"])
        .exits(0)
        .prints("(opt (1 : nat))\n");
}

#[test]
fn a_log_has_times_and_outlives_a_trap() {
    let data = Data::with(&["logs", "trap"]);
    data.call(&["logs", "print", "(\"a line\")"]).exits(0);
    data.call(&["logs", "printInQuery", "(\"another\")"])
        .exits(0);
    let log = data.verb("logs").arg("logs").run().exits(0).stdout;
    let texts: Vec<&str> = log
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(texts, ["logs: started", "a line", "another"]);
    for line in log.lines() {
        let time = line.split_once(' ').unwrap().0;
        let pattern: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(pattern, "0000-00-00T00:00:00.000Z");
    }
}
