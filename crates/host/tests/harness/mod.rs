//! What the integration tests share: a `main` that begins with
//! `lazaret::init()`, as workers are this very executable, and the fixtures.
// Each test file uses a part of it.
#![allow(dead_code, unused_macros, unused_imports)]

#[path = "../../../../tests/older_kernels.rs"]
pub mod older_kernels;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lazaret::{Builder, Host, Output, PageCopy, TrackerKind};

/// A test by name, and the trackers with which it runs: none if it has no
/// tenant.
pub type Test = (&'static str, fn(), &'static [Tracker]);

/// A tracker by name, and who copies pages.
pub type Tracker = (&'static str, TrackerKind, PageCopy);

/// All trackers, and the worker's copying with the default one: what every
/// test of tenants runs with.
pub const TRACKERS: &[Tracker] = &[
    ("cards", TrackerKind::Cards, PageCopy::Host),
    ("kernel", TrackerKind::Kernel, PageCopy::Host),
    ("signal", TrackerKind::Signal, PageCopy::Host),
    ("cards-worker", TrackerKind::Cards, PageCopy::Worker),
];

/// Every tracker with either way of copying.
pub const COMBINATIONS: &[Tracker] = &[
    ("cards", TrackerKind::Cards, PageCopy::Host),
    ("cards-worker", TrackerKind::Cards, PageCopy::Worker),
    ("kernel", TrackerKind::Kernel, PageCopy::Host),
    ("kernel-worker", TrackerKind::Kernel, PageCopy::Worker),
    ("signal", TrackerKind::Signal, PageCopy::Host),
    ("signal-worker", TrackerKind::Signal, PageCopy::Worker),
];

/// Those that this kernel has.
pub fn combinations() -> impl Iterator<Item = &'static Tracker> {
    COMBINATIONS
        .iter()
        .filter(|(_, kind, _)| !older_kernels::lacks(*kind))
}

thread_local! {
    static TRACKER: Cell<(TrackerKind, PageCopy)> = const {
        Cell::new((TrackerKind::Auto, PageCopy::Auto))
    };
}

/// How to make a host for a test, with the tracker that it is to have.
pub fn builder() -> Builder {
    let (tracker, page_copy) = TRACKER.get();
    older_kernels::builder()
        .tracker(tracker)
        .page_copy(page_copy)
        .cache_dir(cache())
}

/// The `main` of a test file.
pub fn main(tests: &[Test]) {
    lazaret::init();
    let arguments = libtest_mimic::Arguments::from_args();
    let trial = |name: String, tracker, test: fn()| {
        libtest_mimic::Trial::test(name, move || {
            TRACKER.set(tracker);
            if !older_kernels::lacks(tracker.0) {
                test();
            }
            Ok(())
        })
    };
    let mut trials = Vec::new();
    for &(name, test, trackers) in tests {
        if trackers.is_empty() {
            let default = (TrackerKind::Auto, PageCopy::Auto);
            trials.push(trial(name.to_owned(), default, test));
        }
        for &(tracker, kind, copy) in trackers {
            trials.push(trial(format!("{name}::{tracker}"), (kind, copy), test));
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
