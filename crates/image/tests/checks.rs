//! A check tells all that is wrong, with file, offset and page, and changes nothing.

mod fault_storage;
mod model;

use std::collections::BTreeMap;
use std::path::Path;

use fault_storage::FaultStorage;
use lazaret_image::{
    Action, CheckError, CheckEvent, Checked, Damage, Depth, Durability, Finding, Image, OpenError,
    PAGE_SIZE, PageId, Problem, Region, Severity, Sizes, Storage, Verify, check, check_on,
};
use model::Contents;

const SIZES: Sizes = Sizes {
    heap: 32 * PAGE_SIZE as u64,
    stable: 8 * PAGE_SIZE as u64,
};

const SHARD: &str = "base-2.shard";
const LOG: &str = "log-1.log";

fn page(region: Region, page: u64) -> PageId {
    PageId::new(region, page).unwrap()
}

fn commit<S: Storage>(image: &mut Image<S>, version: u64) {
    let pages = [
        (page(Region::Heap, version), version),
        (page(Region::Heap, 10), 100 + version),
        (page(Region::Stable, 2), 200 + version),
    ];
    let ids = pages.map(|(page, _)| page);
    let meta = [version as u8; 40];
    image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            SIZES,
            &meta,
            Durability::Durable,
        )
        .unwrap();
}

/// An image with a base at version 2 (a shard a region) and versions 3 to 5 in the log, and where those begin.
fn sample() -> (FaultStorage, Vec<u64>) {
    let storage = FaultStorage::new(3);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let mut begins = Vec::new();
    for version in 1..=5 {
        if version == 3 {
            image.fold().unwrap();
        }
        if version >= 3 {
            begins.push(image.log_len());
        }
        commit(&mut image, version);
    }
    (storage, begins)
}

/// What a check finds. It changes nothing.
fn findings(storage: &FaultStorage, depth: Depth) -> (Checked, Vec<Finding>, u64) {
    let contents = |storage: &FaultStorage| -> BTreeMap<String, Vec<u8>> {
        let names = storage.names().into_iter();
        names
            .map(|name| (name.clone(), storage.bytes(&name)))
            .collect()
    };
    let before = (contents(storage), storage.mutations());
    let (mut found, mut verified) = (Vec::new(), 0);
    let checked = check_on(storage, depth, &mut |event| match event {
        CheckEvent::Finding(finding) => found.push(finding),
        CheckEvent::Verified { bytes } => verified += bytes,
    });
    assert!(before == (contents(storage), storage.mutations()));
    (checked, found, verified)
}

fn flip(storage: &FaultStorage, name: &str, byte: usize) {
    let mut bytes = storage.bytes(name);
    bytes[byte] ^= 1 << (byte % 8);
    storage.set_bytes(name, bytes);
}

#[test]
fn a_sound_image_has_nothing_to_tell_and_every_page_is_looked_at() {
    let (storage, _) = sample();
    for depth in [Depth::Headers, Depth::Pages] {
        let (checked, found, verified) = findings(&storage, depth);
        assert!(found.is_empty(), "{found:?}");
        let newest = checked.newest.unwrap();
        assert_eq!((newest.version.0, newest.sizes), (5, SIZES));
        assert_eq!(newest.meta, [5; 40]);
        // Heap pages 1, 2 and 10 and a stable page in the base, three pages a commit.
        let pages = if depth == Depth::Pages { 4 + 3 * 3 } else { 0 };
        assert_eq!(verified, pages * PAGE_SIZE as u64);
    }
}

#[test]
fn every_damaged_page_is_told_with_its_place() {
    let (storage, begins) = sample();
    let shard = storage.bytes(SHARD).len() - PAGE_SIZE;
    let segment = begins[0] as usize + PAGE_SIZE;
    flip(&storage, SHARD, shard + 9);
    flip(&storage, LOG, segment + 1);
    flip(&storage, LOG, segment + 2 * PAGE_SIZE + 4000);
    let (checked, found, _) = findings(&storage, Depth::Headers);
    assert!(found.is_empty() && checked.newest.is_some(), "{found:?}");
    let (_, found, verified) = findings(&storage, Depth::Pages);
    assert_eq!(verified, 13 * PAGE_SIZE as u64);
    let places: Vec<_> = found
        .iter()
        .map(|finding| {
            assert!(matches!(finding.problem, Problem::Page), "{finding}");
            assert_eq!(finding.severity(), Severity::Damage);
            let name = finding.path.file_name().unwrap().to_str().unwrap();
            (
                name,
                finding.offset.unwrap() as usize,
                finding.pages.unwrap().0,
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (SHARD, shard, page(Region::Heap, 10)),
            (LOG, segment, page(Region::Heap, 3)),
            (LOG, segment + 2 * PAGE_SIZE, page(Region::Stable, 2)),
        ]
    );
    let line = found[0].to_string();
    assert!(
        line.starts_with("damage: /image/base-2.shard at offset ")
            && line.contains(", heap page 10: ")
            && line.contains("backup"),
        "{line}"
    );
}

#[test]
fn no_flipped_bit_escapes_a_deep_check() {
    let (sound, begins) = sample();
    for name in sound.names() {
        for byte in (0..sound.bytes(&name).len()).step_by(23) {
            let context = format!("{name} byte {byte}");
            let storage = sound.copy();
            flip(&storage, &name, byte);
            let (_, found, _) = findings(&storage, Depth::Pages);
            let there = found.iter().filter(|finding| finding.path.ends_with(&name));
            assert_eq!(there.count(), found.len(), "{context}: {found:?}");
            assert!(!found.is_empty(), "{context}");
            let (_, shallow, _) = findings(&storage, Depth::Headers);
            // The last commit isn't known to be durable.
            let last = name == LOG && byte as u64 >= begins[2];
            match Image::open_on(storage) {
                Err(_) => assert!(
                    shallow.iter().any(|f| f.severity() == Severity::Damage),
                    "{context}: {shallow:?}"
                ),
                Ok((_, recovery)) => {
                    assert_eq!(recovery.cut.is_some(), last, "{context}");
                    let torn = shallow.iter().any(|finding| {
                        matches!(finding.problem, Problem::TornTail { .. })
                            && finding.severity() == Severity::Note
                    });
                    assert_eq!(torn, last, "{context}: {shallow:?}");
                }
            }
        }
    }
}

#[test]
fn behind_a_damaged_header_the_check_goes_on() {
    let (storage, begins) = sample();
    flip(&storage, SHARD, 50);
    flip(&storage, LOG, begins[0] as usize + PAGE_SIZE + 5);
    flip(&storage, LOG, begins[1] as usize + 50);
    let (checked, found, _) = findings(&storage, Depth::Pages);
    let [shard, segment, page_in_log] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(matches!(shard.problem, Problem::Record(_)), "{shard}");
    assert_eq!(
        shard.pages,
        Some((page(Region::Heap, 1), page(Region::Heap, 10)))
    );
    assert!(
        matches!(segment.problem, Problem::Segment(Damage::Header(_)))
            && segment.offset == Some(begins[1]),
        "{segment}"
    );
    assert!(
        matches!(page_in_log.problem, Problem::Page),
        "{page_in_log}"
    );
    assert_eq!(checked.newest, None);
    assert!(checked.tenant.is_some());
}

#[test]
fn missing_and_surplus_files_are_told() {
    let (storage, _) = sample();
    storage.lose(SHARD);
    storage.lose(LOG);
    for name in ["base-77.shard", "manifest.new", "notes.txt"] {
        storage.create(name).unwrap();
    }
    let (_, found, _) = findings(&storage, Depth::Headers);
    let told: Vec<_> = found
        .iter()
        .map(|finding| {
            let name = finding.path.file_name().unwrap().to_str().unwrap();
            (finding.severity(), name)
        })
        .collect();
    assert_eq!(
        told,
        [
            (Severity::Leftover, "base-77.shard"),
            (Severity::Leftover, "manifest.new"),
            (Severity::Note, "notes.txt"),
            (Severity::Damage, SHARD),
            (Severity::Damage, LOG),
        ]
    );
    let missing = found.last().unwrap();
    assert!(
        matches!(&missing.problem, Problem::File(error) if error.action == Action::Open)
            && missing.to_string().contains("backup"),
        "{missing}"
    );
    storage.lose("manifest");
    let (checked, found, _) = findings(&storage, Depth::Headers);
    assert!(matches!(
        found[..],
        [Finding {
            problem: Problem::NoManifest,
            ..
        }]
    ));
    assert_eq!(checked, Checked::default());
}

#[test]
fn any_operation_may_fail() {
    let (storage, _) = sample();
    let before = storage.operations();
    findings(&storage, Depth::Pages);
    let operations = storage.operations() - before;
    assert!(operations > 10);
    let mut silent = 0;
    for at in 1..=operations {
        let storage = storage.copy();
        storage.fail_at(at, 5);
        let (_, found, _) = findings(&storage, Depth::Pages);
        // A chunk of pages is read again page by page; all else is told.
        let told = found.iter().all(|finding| {
            matches!(&finding.problem, Problem::File(error) if error.source.raw_os_error() == Some(5))
                && finding.to_string().contains("check the disk")
        });
        assert!(told, "operation {at}: {found:?}");
        silent += u32::from(found.is_empty());
    }
    // Two shards and three segments, a chunk each.
    assert_eq!(silent, 5);
}

#[test]
fn what_others_append_behind_a_shared_log_is_nobodys_damage() {
    let (storage, _) = sample();
    let (mut image, _) = Image::open_on(storage.clone()).unwrap();
    image.snapshot(Path::new("/snapshot")).unwrap();
    commit(&mut image, 6);
    let snapshot = storage.at(Path::new("/snapshot")).unwrap();
    for (storage, version) in [(&snapshot, 5), (&storage, 6)] {
        let (checked, found, _) = findings(storage, Depth::Pages);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(checked.newest.unwrap().version.0, version);
    }
}

#[test]
fn the_hashes_beside_an_image_are_no_leftover() {
    let (storage, _) = sample();
    let (mut image, _) = Image::open_on(storage.clone()).unwrap();
    let mut hasher = image.state_hasher();
    hasher.update(&image.reader(), Verify::Yes).unwrap();
    assert!(image.save_hashes(&hasher).unwrap());
    drop(image);
    assert!(storage.names().contains(&"tree".to_owned()));
    storage.create("tree.new").unwrap();
    let (_, found, _) = findings(&storage, Depth::Pages);
    let [leftover] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(leftover.severity(), Severity::Leftover);
    assert!(leftover.path.ends_with("tree.new"));
}

#[test]
fn an_image_in_use_is_left_alone_and_a_missing_one_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let image = Image::create(&path).unwrap();
    let tell = &mut |event| panic!("{event:?}");
    assert!(matches!(
        check(&path, Depth::Pages, tell),
        Err(CheckError::InUse { .. })
    ));
    drop(image);
    assert!(check(&path, Depth::Pages, tell).unwrap().newest.is_some());
    // The lock is gone with the check.
    Image::open(&path).unwrap();
    let mut found = Vec::new();
    check(&directory.path().join("none"), Depth::Pages, &mut |event| {
        found.push(event)
    })
    .unwrap();
    let [CheckEvent::Finding(finding)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(finding.severity(), Severity::Damage);
    assert!(matches!(
        Image::open(&directory.path().join("none")),
        Err(OpenError::Missing { .. })
    ));
}
