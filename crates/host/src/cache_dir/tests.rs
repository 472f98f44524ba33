use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;

const CODE: Kind = Kind {
    name: "code",
    max_bytes: 1 << 20,
    used: Use::Code,
};
const OTHER: Kind = Kind {
    name: "other",
    ..CODE
};

fn key(number: u8) -> Key {
    *blake3::hash(&[number]).as_bytes()
}

fn bytes(file: Option<OwnedFd>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = fs::File::from(file.unwrap());
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn directory() -> (tempfile::TempDir, CacheDir) {
    let directory = tempfile::tempdir().unwrap();
    let cache = CacheDir::new(directory.path().join("cache"), 1 << 20);
    (directory, cache)
}

fn keep(cache: &CacheDir, number: u8, contents: &[u8]) {
    let mut contents = contents;
    cache
        .store(CODE, &key(number), b"described", Some(&mut contents))
        .unwrap();
}

/// The only file in a directory of the cache.
fn only(cache: &CacheDir, directory: &str) -> PathBuf {
    let entries = fs::read_dir(cache.path().join(directory)).unwrap();
    let found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn names(cache: &CacheDir, directory: &str) -> usize {
    fs::read_dir(cache.path().join(directory)).unwrap().count()
}

fn refusal(cache: &CacheDir) -> String {
    cache.load(CODE, &key(1)).unwrap_err().to_string()
}

#[test]
fn what_was_kept_is_found_under_its_key_and_kind_by_any_host() {
    let (_directory, cache) = directory();
    let missing = cache.load(CODE, &key(1)).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    keep(&cache, 1, &[7; 5000]);
    cache.store(OTHER, &key(1), b"nothing in it", None).unwrap();
    let another = CacheDir::new(cache.path().to_owned(), 1 << 20);
    for cache in [&cache, &another] {
        let (description, contents) = cache.load(CODE, &key(1)).unwrap();
        assert_eq!(description, b"described");
        assert_eq!(bytes(contents), [7; 5000]);
        let (description, contents) = cache.load(OTHER, &key(1)).unwrap();
        assert_eq!(description, b"nothing in it");
        assert!(contents.is_none());
        assert!(cache.load(CODE, &key(2)).is_err());
    }
    // In place of what was there.
    keep(&another, 1, b"newer");
    assert_eq!(bytes(cache.load(CODE, &key(1)).unwrap().1), b"newer");
}

#[test]
fn any_change_of_an_entry_or_of_contents_is_noticed() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    for directory in ["entries", "contents"] {
        let path = only(&cache, directory);
        let good = fs::read(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions();
        let rewrite = |bytes: &[u8]| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, mode.clone()).unwrap();
        };
        for at in (0..good.len()).step_by(5) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            rewrite(&changed);
            let found = cache.load(CODE, &key(1));
            assert!(
                found.is_err(),
                "a change of {directory} at {at} went unnoticed"
            );
        }
        for length in [0, 10, good.len() - 1] {
            rewrite(&good[..length]);
            assert!(cache.load(CODE, &key(1)).is_err(), "{directory}, {length}");
        }
        rewrite(&good);
        assert_eq!(bytes(cache.load(CODE, &key(1)).unwrap().1), [7; 700]);
    }
}

#[test]
fn contents_that_are_changed_in_place_are_hashed_again() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    let path = only(&cache, "contents");
    let times = fs::metadata(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let writing = fs::OpenOptions::new().write(true).open(&path).unwrap();
    writing.write_all_at(b"!", 300).unwrap();
    // The time of its last writing can be set back, that of its last change can't.
    let times = fs::FileTimes::new().set_modified(times.modified().unwrap());
    writing.set_times(times).unwrap();
    assert_eq!(refusal(&cache), "the contents have another hash");
}

#[test]
fn what_others_may_write_is_not_believed() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    let path = only(&cache, "contents");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert_eq!(refusal(&cache), "the contents can be written by others");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(cache.load(CODE, &key(1)).is_ok());
    // Nor what a link leads to.
    let elsewhere = path.with_file_name("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(cache.load(CODE, &key(1)).is_err());
    let another = CacheDir::new(cache.path().to_owned(), 1 << 20);
    let secret = cache.path().join("key");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        refusal(&another),
        "the cache's key can be read or written by others"
    );
}

#[test]
fn another_directory_vouches_for_nothing_of_this_one() {
    let (_directory, cache) = directory();
    let (_another, another) = directory();
    keep(&cache, 1, &[7; 700]);
    keep(&another, 1, &[7; 700]);
    fs::copy(only(&cache, "entries"), only(&another, "entries")).unwrap();
    assert_eq!(
        refusal(&another),
        "this directory's key doesn't vouch for the entry"
    );
    // Nor does an entry of one key for another.
    let path = only(&cache, "entries");
    let (other, _) = (
        cache.entry(CODE, &key(2)),
        fs::copy(&path, cache.entry(CODE, &key(2))),
    );
    assert!(other.exists());
    assert!(cache.load(CODE, &key(2)).is_err());
}

#[test]
fn longer_contents_than_a_kind_has_are_refused() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    let short = Kind {
        max_bytes: 699,
        ..CODE
    };
    assert!(cache.load(short, &key(1)).is_err());
}

#[test]
fn contents_that_cannot_be_mapped_where_they_are_are_copied() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    let path = only(&cache, "contents");
    let (mut entry, _) = Entry::read(
        &cache.entry(CODE, &key(1)),
        || cache.secret(false),
        (CODE, &key(1)),
    )
    .unwrap();
    let contents = entry.contents.as_mut().unwrap();
    let Found::Copied(copied) = contents
        .take(fs::File::open(&path).unwrap(), false)
        .unwrap()
    else {
        panic!("a copy is nothing to remember");
    };
    let seals = rustix::fs::fcntl_get_seals(&copied).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE));
    assert_eq!(bytes(Some(copied)), [7; 700]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [8; 700]).unwrap();
    assert!(
        contents
            .take(fs::File::open(&path).unwrap(), false)
            .is_err()
    );
}

#[test]
fn what_was_used_least_lately_makes_room() {
    let (_directory, cache) = directory();
    let cache = CacheDir::new(cache.path().to_owned(), 100_000);
    for number in 0..6 {
        keep(&cache, number, &[number; 30_000]);
        let ago = SystemTime::now() - Duration::from_secs(600 - u64::from(number));
        let entry = fs::File::open(cache.entry(CODE, &key(number))).unwrap();
        entry
            .set_times(fs::FileTimes::new().set_modified(ago))
            .unwrap();
    }
    let there: Vec<u8> = (0..6)
        .filter(|number| cache.load(CODE, &key(*number)).is_ok())
        .collect();
    assert!(there.ends_with(&[4, 5]) && there.len() <= 3, "{there:?}");
    assert_eq!(names(&cache, "contents"), there.len());
    assert_eq!(names(&cache, "entries"), there.len());
}

#[test]
fn contents_of_several_stay_as_long_as_one_does() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 30_000]);
    keep(&cache, 2, &[7; 30_000]);
    assert_eq!(names(&cache, "contents"), 1);
    prune::prune(cache.path(), 40_000).unwrap();
    assert_eq!(
        (names(&cache, "entries"), names(&cache, "contents")),
        (1, 1)
    );
    prune::prune(cache.path(), 0).unwrap();
    assert_eq!(
        (names(&cache, "entries"), names(&cache, "contents")),
        (0, 0)
    );
}

#[test]
fn what_was_never_finished_goes_after_a_while() {
    let (_directory, cache) = directory();
    keep(&cache, 1, &[7; 700]);
    let path = |name: &str| cache.path().join("contents").join(name);
    let left = ["new.tmp1-2", "new.tmp1-3", "nobodys", "nobodys-of-now"];
    for (at, name) in left.into_iter().enumerate() {
        fs::write(path(name), b"torn").unwrap();
        if at % 2 == 0 {
            let old = SystemTime::now() - Duration::from_secs(7200);
            let file = fs::File::options().write(true).open(path(name)).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(old))
                .unwrap();
        }
    }
    prune::prune(cache.path(), 1 << 20).unwrap();
    assert_eq!(
        left.map(|name| path(name).exists()),
        [false, true, false, true]
    );
    assert!(cache.load(CODE, &key(1)).is_ok());
}

#[test]
fn hosts_that_use_it_at_once_never_find_anything_wrong() {
    let (_directory, cache) = directory();
    let found = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (path, found) = (cache.path().to_owned(), &found);
            scope.spawn(move || {
                // Only some of them have room: they throw away what others keep.
                let cache = CacheDir::new(path, if thread < 2 { 1 << 20 } else { 50_000 });
                for round in 0..150u8 {
                    let number = (round ^ thread) % 8;
                    keep(&cache, number, &[number; 10_000]);
                    if let Ok((description, contents)) = cache.load(CODE, &key(round % 8)) {
                        assert_eq!(description, b"described");
                        assert_eq!(bytes(contents), [round % 8; 10_000]);
                        found.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert!(found.into_inner() > 0);
}

#[test]
fn a_program_can_be_run_where_it_is_by_any_user() {
    let (_directory, cache) = directory();
    let program = Kind {
        name: "program",
        used: Use::Program,
        ..CODE
    };
    let mut bytes = &b"#!/bin/true\n"[..];
    cache
        .store(program, &key(1), &[], Some(&mut bytes))
        .unwrap();
    let path = cache.locate(program, &key(1)).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o555);
    assert!(std::process::Command::new(path).status().unwrap().success());
    // A module that is refused has nothing to be located.
    cache.store(CODE, &key(1), b"no", None).unwrap();
    assert!(cache.locate(CODE, &key(1)).is_err());
}
