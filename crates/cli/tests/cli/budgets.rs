//! `--memory-budget` and `--disk-quota`: what tenants may take, and what is said
//! when it is too little.

use crate::support::{Data, Run, lazaret, wat};

/// `update write` of `pages.wat`: so many pages of 4 KiB.
fn write(data: &Data, pages: u64, more: &[&str]) -> crate::support::Done {
    let number = |number: u64| -> String {
        let bytes = number.to_le_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let argument = number(pages) + &number(4096);
    let call = ["pages", "write", "--arg-hex", &argument, "--output", "hex"];
    data.call(&[&call[..], more].concat())
}

#[test]
fn a_memory_budget_that_is_too_small_says_how_much_is_wanted_and_left() {
    let data = Data::new();
    let install = || {
        let mut command = data.verb("install");
        command.arg("pages").arg(wat("pages"));
        command
    };
    let words = [
        "1048576",
        "268435456 more were wanted",
        "try again",
        "--memory-budget",
    ];
    let mut refused = install();
    refused.args(["--memory-budget", "1MiB"]);
    refused.run().fails(1, &words);
    let mut refused = install();
    refused.env("LAZARET_MEMORY_BUDGET", "1MiB");
    refused.run().fails(1, &words);
    let mut fits = install();
    fits.args(["--memory-budget", "300MiB"]);
    fits.run().exits(0);
    // Its fork is another tenant, and the origin counts though it doesn't run.
    let fork = |budget: &str| {
        let mut command = data.verb("fork");
        command.args(["pages", "copy", "--memory-budget", budget]);
        command.run()
    };
    fork("300MiB").fails(
        1,
        &["314572800", "268435456 more were wanted", "46137344 left"],
    );
    fork("512MiB").exits(0);
    lazaret()
        .args(["call", "x", "y", "--memory-budget", "plenty"])
        .run()
        .exits(2)
        .says(&["plenty", "64MiB or 1G"]);
}

#[test]
fn a_disk_quota_that_is_too_small_says_what_to_do_and_keeps_the_state() {
    let data = Data::new();
    let mut install = data.verb("install");
    install.arg("pages").arg(wat("pages")).run().exits(0);
    write(&data, 16, &[]).exits(0);
    let before = data.kept();
    write(&data, 1_000, &["--disk-quota", "1MiB"]).fails(
        1,
        &[
            "1048576 bytes on disk",
            "nothing was changed",
            "delete snapshots",
            "--disk-quota",
        ],
    );
    let mut snapshot = data.verb("snapshot");
    snapshot.args(["create", "pages", "--disk-quota", "4K"]);
    snapshot.run().fails(1, &["4096 bytes on disk"]);
    // Opening it may have cut what the refused commit had begun, no more.
    let after = data.kept();
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    write(&data, 16, &["--disk-quota", "1MiB"]).exits(0);
    let list = data.verb("ps").arg("--json").run().exits(0).stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let tenant = &list["tenants"][0];
    // `ps` has no worker and no quota.
    assert!(
        tenant["resident"].is_null() && tenant["disk_quota_bytes"].is_null(),
        "{tenant}"
    );
}
