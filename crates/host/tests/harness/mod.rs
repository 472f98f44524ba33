//! What the integration tests share: a `main` that begins with
//! `lazaret::init()`, as workers are this very executable, and the fixtures.
// Each test file uses a part of it.
#![allow(dead_code, unused_macros, unused_imports)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lazaret::{Builder, Host, Output, TrackerKind};

/// A test by name, and the trackers with which it runs: none if it has no
/// tenant.
pub type Test = (&'static str, fn(), &'static [Tracker]);

/// A tracker by name.
pub type Tracker = (&'static str, TrackerKind);

/// All trackers.
pub const TRACKERS: &[Tracker] = &[
    ("cards", TrackerKind::Cards),
    ("kernel", TrackerKind::Kernel),
];

thread_local! {
    static TRACKER: Cell<TrackerKind> = const { Cell::new(TrackerKind::Cards) };
}

/// How to make a host for a test, with the tracker that it is to have.
pub fn builder() -> Builder {
    Host::builder().tracker(TRACKER.get()).cache_dir(cache())
}

/// The `main` of a test file.
pub fn main(tests: &[Test]) {
    lazaret::init();
    let arguments = libtest_mimic::Arguments::from_args();
    let trial = |name: String, tracker, test: fn()| {
        libtest_mimic::Trial::test(name, move || {
            TRACKER.set(tracker);
            test();
            Ok(())
        })
    };
    let mut trials = Vec::new();
    for &(name, test, trackers) in tests {
        if trackers.is_empty() {
            trials.push(trial(name.to_owned(), TrackerKind::default(), test));
        }
        for &(tracker, kind) in trackers {
            trials.push(trial(format!("{name}::{tracker}"), kind, test));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Lists tests, which run once with each of the `trackers`.
macro_rules! tests {
    ($($name:ident,)*) => {
        harness::tests! { with &[]; $($name,)* }
    };
    (with $trackers:expr; $($name:ident,)*) => {
        /// All tests of this file.
        pub const TESTS: &[harness::Test] =
            &[$((stringify!($name), $name as fn(), $trackers),)*];

        #[allow(dead_code)]
        fn main() {
            harness::main(TESTS);
        }
    };
}

pub(crate) use tests;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of `tests/fixtures/wat`.
pub fn wat(name: &str) -> Vec<u8> {
    let path = root()
        .join("tests/fixtures/wat")
        .join(format!("{name}.wat"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file that `scripts/fixtures.sh` made.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = root().join(".fixtures").join(name);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/fixtures.sh makes it", path.display()))
}

/// A directory for a test, and a host with its data in it.
pub fn host() -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = builder()
        .data_dir(directory.path().join("data"))
        .build()
        .unwrap();
    (directory, host)
}

/// A compile cache that tests share.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("code-{}", rustix::process::geteuid().as_raw()))
}

/// An output to read afterwards.
pub fn buffer() -> (Arc<Mutex<Vec<u8>>>, Output) {
    let buffer = Arc::new(Mutex::new(Vec::new()));
    (buffer.clone(), Output::Buffer(buffer))
}

/// What is in a buffer, as text.
pub fn text(buffer: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&buffer.lock().unwrap()).into_owned()
}
