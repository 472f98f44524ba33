//! A program has what it was given, and nothing else.

use crate::support::{Run, lazaret, wat};

#[test]
fn arguments_and_environment_are_only_what_is_given() {
    let done = lazaret()
        .env("SECRET", "hunter2")
        .env("HANDED", "on")
        .args(["run", "--env", "HANDED", "--env", "A=b=c"])
        .arg(wat("environment"))
        .args(["--help", "-x", "--", "ü"])
        .run()
        .exits(0);
    assert_eq!(
        done.stdout,
        "arg environment.wat\narg --help\narg -x\narg --\narg ü\nenv HANDED=on\nenv A=b=c\n"
    );
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    lazaret()
        .env_remove("MISSING")
        .args(["run", "--env", "MISSING"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["`MISSING` is not set"]);
    lazaret()
        .args(["run", "--env", "=x"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["has no name"]);
}

#[test]
fn a_directory_can_be_read_and_written_or_only_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("in"), "granted\n").unwrap();
    std::fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let files = |grant: &str, arguments: &[&str]| {
        lazaret()
            .args(["run", "--dir", grant])
            .arg(wat("files"))
            .args(arguments)
            .run()
    };
    let host = directory.path().to_str().unwrap();
    files(host, &["read", "in"]).exits(0).prints("granted\n");
    files(&format!("{host}::/data:ro"), &["read", "in"])
        .exits(0)
        .prints("granted\n");
    // Operation not permitted (63), read-only file system (69) or not capable (76).
    let refused = files(&format!("{host}:ro"), &["write", "out"]);
    assert!(matches!(refused.code, Some(63 | 69 | 76)), "{refused:?}");
    assert!(!directory.path().join("out").exists());
    files(host, &["write", "out"]).exits(0);
    assert!(directory.path().join("out").exists());
    // Out of the directory there is no way.
    let outside = files(host, &["read", "../etc/passwd"]);
    assert!(
        matches!(outside.code, Some(63 | 76)) && outside.stdout.is_empty(),
        "{outside:?}"
    );
    // Without a grant there is no descriptor 3: bad descriptor (8).
    lazaret()
        .arg("run")
        .arg(wat("files"))
        .args(["read", "in"])
        .run()
        .exits(8)
        .prints("");
}

#[test]
fn a_directory_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    lazaret()
        .args(["run", "--dir", "/no/such/directory"])
        .arg(wat("hello"))
        .run()
        .fails(2, &["/no/such/directory", "No such file"]);
    lazaret()
        .args(["run", "--dir"])
        .arg(&file)
        .arg(wat("hello"))
        .run()
        .fails(2, &[file.to_str().unwrap(), "not a directory"]);
    lazaret()
        .args(["run", "--dir", "a::b::c"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["`a::b::c` names no directory"]);
}

#[test]
fn an_argument_that_is_no_text_is_named() {
    let argument = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
    let argument: &std::ffi::OsStr = argument;
    lazaret()
        .arg("run")
        .arg(wat("hello"))
        .arg(argument)
        .run()
        .fails(2, &["is not UTF-8"]);
}

/// What only its owner may enter can't be granted to another, and the error says
/// to whom and what to do.
#[test]
fn a_directory_that_the_worker_may_not_read_names_the_user() {
    let directory = tempfile::tempdir().unwrap();
    let forbidden = directory.path().join("forbidden");
    std::fs::create_dir(&forbidden).unwrap();
    let permit = |mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&forbidden, mode).unwrap();
    };
    let owner = std::fs::metadata(&forbidden).map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    let mut command = lazaret();
    command.arg("run");
    let uid = match owner.unwrap() {
        // Root may read it, and so may its worker; another user may not.
        0 => {
            permit(0o700);
            lazaret()
                .args(["run", "--dir"])
                .arg(&forbidden)
                .arg(wat("hello"))
                .run()
                .exits(0);
            command.args(["--as-user", "65534"]);
            65_534
        }
        uid => {
            permit(0o000);
            lazaret()
                .args(["run", "--as-user", &(uid - 1).to_string()])
                .arg(wat("hello"))
                .run()
                .fails(2, &["needs root"]);
            uid
        }
    };
    command
        .arg("--dir")
        .arg(&forbidden)
        .arg(wat("hello"))
        .run()
        .fails(
            2,
            &[
                forbidden.to_str().unwrap(),
                "Permission denied",
                &format!("uid {uid}"),
                "chmod",
            ],
        );
    permit(0o700);
    lazaret()
        .args(["run", "--as-user", "0"])
        .arg(wat("hello"))
        .run()
        .exits(2)
        .says(&["--as-user"]);
}
