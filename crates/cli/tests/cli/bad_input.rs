//! Bad input: a one-line error with the value and the reason, the documented
//! exit code, and data untouched.

use crate::support::{Data, Run, canister, lazaret, module, wat};

/// `run` and `install` on the same module: both refuse it, and nothing is made.
#[track_caller]
fn is_refused(path: &std::path::Path, words: &[&str]) {
    lazaret().arg("run").arg(path).run().fails(2, words);
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(path)
        .run()
        .fails(2, words);
    assert!(!data.path().exists(), "a data directory was made");
}

#[test]
fn a_file_that_is_not_wasm() {
    let directory = tempfile::tempdir().unwrap();
    is_refused(
        &module(directory.path(), "elf.wasm", "\x7fELF"),
        &["not a WebAssembly module", "7f 45 4c 46"],
    );
    is_refused(
        &module(directory.path(), "empty.wasm", ""),
        &["not a WebAssembly module", "empty"],
    );
    is_refused(
        &module(directory.path(), "bad.wat", "(module\n (func $x"),
        &["does not parse"],
    );
    is_refused(
        std::path::Path::new("/no/such/module.wasm"),
        &["No such file"],
    );
    is_refused(directory.path(), &["Is a directory"]);
}

#[test]
fn a_truncated_module() {
    let directory = tempfile::tempdir().unwrap();
    let whole = std::fs::read(canister("counter")).unwrap();
    for cut in [9, 100, whole.len() / 2] {
        let path = directory.path().join("cut.wasm");
        std::fs::write(&path, &whole[..cut]).unwrap();
        is_refused(&path, &["malformed at offset"]);
    }
}

#[test]
fn a_component() {
    is_refused(
        &wat("component"),
        &["is a WebAssembly component", "wasm32-wasip1"],
    );
}

#[test]
fn unknown_imports_are_all_listed() {
    lazaret().arg("run").arg(wat("unknown_import")).run().fails(
        2,
        &[
            "wasi_snapshot_preview1.sock_open",
            "env.spawn_process",
            "env.limit",
        ],
    );
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(wat("canister_unknown_import"))
        .run()
        .fails(2, &["imports what Lazaret does not provide"]);
    assert!(!data.path().exists());
}

#[test]
fn a_program_is_no_canister_and_a_canister_no_program() {
    lazaret()
        .arg("run")
        .arg(canister("counter"))
        .run()
        .exits(2)
        .prints("");
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(wat("hello"))
        .run()
        .exits(2)
        .prints("");
    assert!(!data.path().exists());
}

#[test]
fn a_start_function_that_loops() {
    lazaret()
        .args(["run", "--fuel", "1000000"])
        .arg(wat("start_loop"))
        .run()
        .exits(125);
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(wat("canister_start_loop"))
        .run()
        .exits(3)
        .prints("")
        .says(&["error: install: trapped", "fuel"]);
    assert_eq!(
        data.verb("ps").run().exits(0).stdout.lines().count(),
        1,
        "no tenant is left"
    );
}

#[test]
fn an_initialiser_that_traps_leaves_no_tenant() {
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(wat("canister_init_trap"))
        .run()
        .exits(3)
        .says(&["init refused on purpose"]);
    assert_eq!(
        data.verb("ps").run().exits(0).stdout.lines().count(),
        1,
        "no tenant is left"
    );
    // Its name is free.
    data.verb("install")
        .arg("t")
        .arg(canister("counter"))
        .run()
        .exits(0);
}

#[test]
fn a_memory_minimum_above_the_limit() {
    lazaret()
        .args(["run", "--memory", "64MiB"])
        .arg(wat("memory_minimum"))
        .run()
        .fails(2, &["2147483648", "67108864", "--memory"]);
    lazaret()
        .args(["run", "--memory", "lots"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["`lots` is not a size", "64MiB"]);
    lazaret()
        .args(["run", "--time", "5"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["`5` is not a time limit", "500ms"]);
}

#[test]
fn a_method_that_does_not_exist() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    data.call(&["counter", "nope"])
        .fails(2, &["no update method `nope`", "add, inc, set"]);
    data.call(&["counter", &"x".repeat(100_000)]).exits(2);
    assert_eq!(data.kept(), before);
}

#[test]
fn an_argument_over_the_size_limit() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    let file = data.directory.path().join("large");
    std::fs::write(&file, vec![0; (2 << 20) + 1]).unwrap();
    let large = file.to_str().unwrap();
    data.call(&["counter", "add", "--arg-file", large])
        .fails(2, &["2097153 bytes", "limit is 2097152"]);
    data.verb("upgrade")
        .arg("counter")
        .arg(canister("counter"))
        .args(["--arg-file", large])
        .run()
        .fails(2, &["2097153 bytes"]);
    data.call(&["counter", "add", "--arg-file", "/dev/zero"])
        .fails(2, &["limit is 2097152"]);
    data.call(&["counter", "add", "--arg-file", "/no/such/file"])
        .fails(2, &["--arg-file /no/such/file", "No such file"]);
    assert_eq!(data.kept(), before);
}

#[test]
fn an_initialiser_s_argument_that_does_not_fit() {
    let data = Data::new();
    data.verb("install")
        .arg("t")
        .arg(canister("greeter"))
        .run()
        .fails(2, &["the initialiser", "(text)"]);
    data.verb("install")
        .arg("t")
        .arg(canister("greeter"))
        .args(["--arg", "(1)"])
        .run()
        .fails(2, &["`(1)`", "(text)"]);
    assert!(!data.path().exists());
}

#[test]
fn names_that_could_be_paths() {
    let data = Data::new();
    let long = "x".repeat(300);
    for name in [
        "a/b",
        "..",
        "../x",
        ".hidden",
        "",
        "a b",
        "ä",
        long.as_str(),
    ] {
        for verb in ["install", "upgrade"] {
            // Not an option, whatever it begins with.
            data.verb(verb)
                .args(["--", name])
                .arg(canister("counter"))
                .run()
                .exits(2)
                .prints("");
        }
        for verb in ["remove", "logs"] {
            data.verb(verb)
                .args(["--", name])
                .run()
                .fails(2, &["is no name for a tenant"]);
        }
        data.call(&["--", name, "get"])
            .fails(2, &["is no name for a tenant"]);
    }
    assert!(!data.path().exists());
}

#[test]
fn a_tenant_that_exists_or_does_not() {
    let data = Data::with(&["counter"]);
    let before = data.kept();
    data.verb("install")
        .arg("counter")
        .arg(canister("counter"))
        .run()
        .fails(2, &["tenant `counter` exists already"]);
    data.verb("upgrade")
        .arg("other")
        .arg(canister("counter"))
        .run()
        .fails(2, &["there is no tenant `other`"]);
    data.verb("remove")
        .arg("other")
        .run()
        .fails(2, &["there is no tenant `other`"]);
    data.verb("logs")
        .arg("other")
        .run()
        .fails(2, &["there is no tenant `other`"]);
    let after = data.kept();
    assert_eq!(after, before);
}

#[test]
fn no_verb_and_an_unknown_one() {
    lazaret().run().fails(2, &["lazaret run", "lazaret --help"]);
    lazaret()
        .arg("frobnicate")
        .run()
        .exits(2)
        .says(&["frobnicate"]);
    lazaret()
        .args(["run", "--accept-missing", "selinux"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["`selinux` is not a layer", "landlock"]);
}
