//! Promise: what a worker may do follows from what its module imports and what it
//! was granted, and from nothing else. The lists are kept under `tests/golden`, a
//! file for each architecture; after a change that is wanted,
//! `UPDATE_GOLDEN=1 cargo test -p lazaret-wall --test policies` writes them anew.

use std::fmt::Write;
use std::path::Path;

use lazaret_wall::policy::{ProgramRights, Uses, files, policy_on};
use lazaret_wall::{Architecture, Kind};

/// What a module imports of WASI preview 1, and what its program is granted.
const PROGRAMS: &[(&str, &[&str], Option<bool>)] = &[
    ("that imports nothing", &[], None),
    (
        "that imports nothing, with a directory to write",
        &[],
        Some(true),
    ),
    ("that prints", &["fd_write", "proc_exit"], None),
    (
        "that copies its input",
        &["fd_read", "fd_write", "proc_exit"],
        None,
    ),
    (
        "that prints the time",
        &["clock_time_get", "fd_write"],
        None,
    ),
    (
        "that prints a random number",
        &["random_get", "fd_write"],
        None,
    ),
    (
        "that waits for its input",
        &["poll_oneoff", "fd_read"],
        None,
    ),
    (
        "that opens files, without a directory",
        &["path_open", "fd_read", "fd_write"],
        None,
    ),
    (
        "that reads files, with a directory to read",
        &["path_open", "fd_read", "fd_close", "fd_write"],
        Some(false),
    ),
    (
        "that lists a directory to read",
        &["path_open", "fd_readdir", "fd_write"],
        Some(false),
    ),
    (
        "that writes files, with a directory to read",
        &["path_open", "fd_write", "path_unlink_file"],
        Some(false),
    ),
    (
        "that writes and removes files, with a directory to write",
        &["path_open", "fd_write", "path_unlink_file"],
        Some(true),
    ),
];

fn list(architecture: Architecture, kind: Kind) -> String {
    let mut text = String::new();
    for allowed in policy_on(kind, architecture).allowed {
        let alternatives: Vec<String> = allowed
            .arguments
            .iter()
            .map(|checks| {
                let checks: Vec<String> = checks.iter().map(ToString::to_string).collect();
                checks.join(" and ")
            })
            .collect();
        let _ = writeln!(
            text,
            "  {} {}{}",
            allowed.number,
            allowed.name,
            match alternatives.as_slice() {
                [] => String::new(),
                some => format!(": {}", some.join("; or ")),
            }
        );
    }
    text
}

fn all(architecture: Architecture) -> String {
    let mut text = String::new();
    let program = |directory: Option<bool>, uses| {
        Kind::Program(ProgramRights {
            directories: directory.is_some(),
            writable: directory == Some(true),
            uses,
        })
    };
    let kinds = [
        ("the launch, before the lock", Kind::Launch),
        ("a tenant", Kind::Tenant),
        ("a compiler", Kind::Compiler),
    ];
    for (name, kind) in kinds {
        let _ = writeln!(text, "{name}\n{}", list(architecture, kind));
    }
    let mut programs: Vec<(String, Option<bool>, Uses)> = PROGRAMS
        .iter()
        .map(|(name, imports, directory)| {
            let imports = imports
                .iter()
                .map(|import| ("wasi_snapshot_preview1", *import));
            ((*name).to_owned(), *directory, Uses::of_imports(imports))
        })
        .collect();
    for (grant, directory) in [
        ("without a directory", None),
        ("with a directory to read", Some(false)),
        ("with a directory to write", Some(true)),
    ] {
        programs.push((
            format!("that imports all there is, {grant}"),
            directory,
            Uses::ALL,
        ));
    }
    for (name, directory, uses) in programs {
        let _ = writeln!(text, "a program {name}");
        if let Some(writable) = directory {
            let _ = writeln!(text, "  Landlock: {:?}", files(writable, uses));
        }
        let _ = writeln!(text, "{}", list(architecture, program(directory, uses)));
    }
    text
}

fn is_as_kept(architecture: Architecture, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.txt"));
    let now = all(architecture);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    for (line, (kept, now)) in kept.lines().zip(now.lines()).enumerate() {
        assert_eq!(kept, now, "{} line {}", path.display(), line + 1);
    }
    assert_eq!(
        kept.lines().count(),
        now.lines().count(),
        "{}",
        path.display()
    );
}

#[test]
fn the_lists_of_x86_64_are_as_kept() {
    is_as_kept(Architecture::X86_64, "x86_64");
}

#[test]
fn the_lists_of_aarch64_are_as_kept() {
    is_as_kept(Architecture::Aarch64, "aarch64");
}

/// What the issue of it all was: no clock without a clock's import, nothing to open
/// with where nothing was granted.
#[test]
fn powers_come_with_imports_and_grants_only() {
    let names = |imports: &[&str], directory: Option<bool>| -> Vec<&'static str> {
        let imports = imports
            .iter()
            .map(|import| ("wasi_snapshot_preview1", *import));
        let rights = ProgramRights {
            directories: directory.is_some(),
            writable: directory == Some(true),
            uses: Uses::of_imports(imports),
        };
        let policy = policy_on(Kind::Program(rights), Architecture::X86_64);
        policy.allowed.iter().map(|allowed| allowed.name).collect()
    };
    let opens = |names: &[&str]| names.iter().any(|name| name.starts_with("open"));
    assert!(!names(&["fd_write"], None).contains(&"clock_gettime"));
    assert!(names(&["clock_time_get"], None).contains(&"clock_gettime"));
    assert!(!opens(&names(&["path_open", "fd_read"], None)));
    assert!(opens(&names(&["path_open", "fd_read"], Some(false))));
    assert!(!opens(&names(&["fd_read", "fd_write"], Some(true))));
    assert!(!names(&["path_unlink_file"], Some(false)).contains(&"unlinkat"));
    assert!(names(&["path_unlink_file"], Some(true)).contains(&"unlinkat"));
}
