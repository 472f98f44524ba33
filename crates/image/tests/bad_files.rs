//! Every byte of every file may be wrong, and every file may end anywhere: an image is then refused with the file and
//! the place, or is at an earlier version and says so. It never gives other data than was committed.

mod fault_storage;
mod model;

use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{
    CHECKSUM_SIZE, Damage, DecodeError, Durability, FoldError, Image, OpenError, PAGE_SIZE, PageId,
    ReadError, Region, Sizes, header_checksum,
};
use model::{Contents, State};

const SIZES: Sizes = Sizes {
    heap: 32 * PAGE_SIZE as u64,
    stable: 8 * PAGE_SIZE as u64,
};

/// An image with a base at version 2 and versions 3 to 5 in the log; and the state at each version.
struct Sample {
    storage: FaultStorage,
    states: Vec<State>,
    /// Where the segments of versions 3, 4 and 5 begin.
    segments: Vec<u64>,
}

const SHARD: &str = "base-2.shard";
const OTHER_SHARD: &str = "base-3.shard";
const LOG: &str = "log-1.log";

fn sample(durability: Durability) -> Sample {
    let storage = FaultStorage::new(9);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let mut numbers = Numbers(5);
    let (mut states, mut segments) = (vec![State::default()], Vec::new());
    for version in 1..=5 {
        if version == 3 {
            image.fold().unwrap();
        }
        if version > 2 {
            segments.push(image.log_len());
        }
        let pages: Vec<(PageId, u64)> = [
            (Region::Heap, version),
            (Region::Heap, 10),
            (Region::Heap, 11),
            (Region::Stable, 2),
        ]
        .map(|(region, page)| (PageId::new(region, page).unwrap(), numbers.next() | 1))
        .to_vec();
        let pages: Vec<_> = pages
            .into_iter()
            .map(|(id, content)| (id, if id.page() == 11 { 0 } else { content }))
            .collect();
        let ids: Vec<_> = pages.iter().map(|(id, _)| *id).collect();
        let meta = [version as u8; 40];
        states.push(states.last().unwrap().after(&pages, SIZES, &meta));
        image
            .commit(&ids, &mut Contents::of(&pages), SIZES, &meta, durability)
            .unwrap();
    }
    let mut names = storage.names();
    names.sort();
    assert_eq!(names, [SHARD, OTHER_SHARD, LOG, "manifest"]);
    Sample {
        storage,
        states,
        segments,
    }
}

/// Opens a damaged copy of the sample. Whatever opens must be one of the versions; an earlier one must be reported.
fn open(
    sample: &Sample,
    storage: FaultStorage,
    context: &str,
) -> Result<(Image<FaultStorage>, bool), OpenError> {
    // A log that ends where a segment does looks like one whose last commits never were.
    let whole = storage.names().contains(&LOG.to_owned())
        && sample.segments.contains(&(storage.bytes(LOG).len() as u64));
    let (image, recovery) = Image::open_on(storage)?;
    let version = image.version().0 as usize;
    assert_eq!(
        version < 5 && !whole,
        recovery.cut.is_some(),
        "{context}: at version {version}"
    );
    sample.states[version].check(&image, context);
    Ok((image, recovery.cut.is_some()))
}

fn flipped(sample: &Sample, name: &str, byte: usize, bit: usize) -> FaultStorage {
    let storage = sample.storage.copy();
    let mut bytes = storage.bytes(name);
    bytes[byte] ^= 1 << bit;
    storage.set_bytes(name, bytes);
    storage
}

fn path_of(error: &OpenError) -> String {
    let text = error.to_string();
    assert!(text.contains("/image/"), "{text}");
    text
}

#[test]
fn any_bit_of_the_manifest() {
    let sample = sample(Durability::Durable);
    for byte in 0..sample.storage.bytes("manifest").len() {
        for bit in 0..8 {
            let context = format!("manifest byte {byte} bit {bit}");
            let error = open(&sample, flipped(&sample, "manifest", byte, bit), &context)
                .err()
                .expect(&context);
            assert!(
                path_of(&error).contains("/image/manifest"),
                "{context}: {error}"
            );
            match error {
                OpenError::NewerFormat { .. } => assert!((8..12).contains(&byte), "{context}"),
                OpenError::Record { offset: 0, .. } => {}
                error => panic!("{context}: {error}"),
            }
        }
    }
}

#[test]
fn any_bit_of_a_shards_header() {
    let sample = sample(Durability::Durable);
    for byte in 0..PAGE_SIZE {
        let context = format!("shard byte {byte}");
        let error = open(&sample, flipped(&sample, SHARD, byte, byte % 8), &context)
            .err()
            .expect(&context);
        assert!(path_of(&error).contains(SHARD), "{context}: {error}");
    }
}

#[test]
fn any_bit_of_a_durable_segments_header() {
    let sample = sample(Durability::Durable);
    // Version 5 claims that 3 and 4 are on disk.
    for start in &sample.segments[..2] {
        for byte in 0..PAGE_SIZE {
            let context = format!("log byte {}", *start as usize + byte);
            let storage = flipped(&sample, LOG, *start as usize + byte, byte % 8);
            let before = storage.bytes(LOG);
            let error = open(&sample, storage.clone(), &context)
                .err()
                .expect(&context);
            match &error {
                OpenError::Segment { offset, .. } | OpenError::NewerFormat { offset, .. } => {
                    assert_eq!(offset, start, "{context}: {error}");
                }
                error => panic!("{context}: {error}"),
            }
            assert!(path_of(&error).contains(LOG));
            assert!(
                storage.bytes(LOG) == before,
                "{context}: an acknowledged commit was cut"
            );
        }
    }
}

#[test]
fn any_byte_of_the_last_segment_is_cut_and_reported() {
    let sample = sample(Durability::Durable);
    let start = sample.segments[2] as usize;
    // Every byte of the header, and some of the pages.
    let pages = (start + PAGE_SIZE..sample.storage.bytes(LOG).len()).step_by(61);
    for byte in (start..start + PAGE_SIZE).chain(pages) {
        let context = format!("log byte {byte}");
        match open(&sample, flipped(&sample, LOG, byte, byte % 8), &context) {
            Ok((image, cut)) => assert!(cut && image.version().0 == 4, "{context}"),
            Err(OpenError::NewerFormat { .. }) => {
                assert!((8..12).contains(&(byte - start)), "{context}")
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
}

#[test]
fn a_relaxed_log_is_cut_at_its_first_damaged_segment() {
    let sample = sample(Durability::Relaxed);
    for (position, start) in sample.segments.iter().enumerate() {
        let page = *start as usize + PAGE_SIZE + 77;
        let (image, cut) = open(&sample, flipped(&sample, LOG, page, 3), "page").unwrap();
        assert!(cut);
        assert_eq!(image.version().0 as usize, 2 + position);
    }
}

#[test]
fn after_a_checkpoint_the_last_segment_is_durable_too() {
    let mut sample = sample(Durability::Relaxed);
    let (mut image, _) = Image::open_on(sample.storage.clone()).unwrap();
    image.checkpoint().unwrap();
    drop(image);
    sample.storage = sample.storage.copy();
    let (_, recovery) = Image::open_on(sample.storage.copy()).unwrap();
    assert_eq!((recovery.segments, recovery.verified), (3, 0));
    let start = sample.segments[2];
    let error = open(
        &sample,
        flipped(&sample, LOG, start as usize + 40, 0),
        "durable",
    )
    .err()
    .unwrap();
    assert!(
        matches!(error, OpenError::Segment { offset, .. } if offset == start),
        "{error}"
    );
    let storage = sample.storage.copy();
    storage.set_bytes(LOG, storage.bytes(LOG)[..start as usize].to_vec());
    let error = open(&sample, storage, "cut short").err().unwrap();
    let OpenError::Segment {
        offset,
        damage: Damage::Short { .. },
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(offset, start);
}

#[test]
fn files_that_end_anywhere() {
    let sample = sample(Durability::Durable);
    for name in ["manifest", SHARD, LOG] {
        let bytes = sample.storage.bytes(name);
        let step = if name == "manifest" { 1 } else { 97 };
        for length in (0..bytes.len()).step_by(step) {
            let storage = sample.storage.copy();
            storage.set_bytes(name, bytes[..length].to_vec());
            let context = format!("{name} of {length} bytes");
            match open(&sample, storage, &context) {
                Ok((image, _)) => {
                    assert!(name == LOG && image.version().0 as usize >= 2, "{context}")
                }
                Err(error) => assert!(path_of(&error).contains(name), "{context}: {error}"),
            }
        }
    }
}

#[test]
fn missing_files_are_named() {
    let sample = sample(Durability::Durable);
    for name in [SHARD, LOG] {
        let storage = sample.storage.copy();
        storage.lose(name);
        let error = open(&sample, storage, name).err().unwrap();
        assert!(
            error
                .to_string()
                .contains(&format!("cannot open /image/{name}")),
            "{error}"
        );
    }
    let storage = sample.storage.copy();
    storage.lose("manifest");
    assert!(matches!(
        open(&sample, storage, "manifest"),
        Err(OpenError::Missing { .. })
    ));
}

#[test]
fn a_read_only_disk_is_named() {
    let sample = sample(Durability::Durable);
    let storage = sample.storage.copy();
    for at in 1..20 {
        storage.fail_at(at, 30);
        match Image::open_on(storage.clone()) {
            Ok(_) => return assert!(at > 5, "only {at} operations to open an image"),
            Err(error) => assert!(
                error.to_string().contains("mount the file system writable"),
                "{error}"
            ),
        }
    }
    panic!("never opened");
}

#[test]
fn damaged_pages_are_told_when_verified_and_never_folded() {
    let sample = sample(Durability::Durable);
    let page = PageId::new(Region::Heap, 1).unwrap();
    let log_page = PageId::new(Region::Heap, 3).unwrap();
    for (name, offset, page) in [(SHARD, PAGE_SIZE, page), (LOG, PAGE_SIZE, log_page)] {
        let (mut image, _) = Image::open_on(flipped(&sample, name, offset + 5, 5)).unwrap();
        let error = image.verify_page(page).unwrap_err();
        match &error {
            ReadError::Checksum {
                path,
                offset: at,
                page: id,
            } => {
                assert_eq!(
                    (path.ends_with(name), *at, *id),
                    (true, offset as u64, page)
                );
            }
            error => panic!("{error}"),
        }
        image
            .verify_page(PageId::new(Region::Heap, 10).unwrap())
            .unwrap();
        assert!(matches!(
            image.fold(),
            Err(FoldError::Read(ReadError::Checksum { .. }))
        ));
        assert_eq!(image.version().0, 5);
    }
}

/// Changes a record and makes its checksum right again.
fn resealed(
    sample: &Sample,
    name: &str,
    start: usize,
    length: usize,
    change: impl FnOnce(&mut [u8]),
) -> FaultStorage {
    let storage = sample.storage.copy();
    let mut bytes = storage.bytes(name);
    let record = &mut bytes[start..start + length];
    change(record);
    let checksum = header_checksum(&record[..length - CHECKSUM_SIZE]);
    record[length - CHECKSUM_SIZE..].copy_from_slice(&checksum);
    storage.set_bytes(name, bytes);
    storage
}

#[test]
fn another_tenants_files_are_refused() {
    let sample = sample(Durability::Durable);
    for name in [SHARD, LOG] {
        let storage = resealed(&sample, name, 0, PAGE_SIZE, |record| record[16] ^= 1);
        let error = open(&sample, storage, name).err().unwrap();
        assert!(
            matches!(&error, OpenError::OtherTenant { path, offset: 0, .. } if path.ends_with(name)),
            "{error}"
        );
    }
    // Also at the tail, which would be cut if it was ours.
    let last = sample.segments[2];
    let storage = resealed(&sample, LOG, last as usize, PAGE_SIZE, |record| {
        record[31] ^= 0x80
    });
    let error = open(&sample, storage, LOG).err().unwrap();
    assert!(
        matches!(error, OpenError::OtherTenant { offset, .. } if offset == last),
        "{error}"
    );
}

#[test]
fn a_shard_in_the_place_of_another_is_refused() {
    let sample = sample(Durability::Durable);
    let storage = sample.storage.copy();
    storage.set_bytes(SHARD, storage.bytes(OTHER_SHARD));
    assert!(open(&sample, storage, "swapped").is_err());
    let storage = resealed(&sample, SHARD, 0, PAGE_SIZE, |record| {
        record[PAGE_SIZE - 30] = 1
    });
    let error = open(&sample, storage, "padding").err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Record {
                source: DecodeError::Field {
                    field: "padding",
                    ..
                },
                ..
            }
        ),
        "{error}"
    );
    let checksum_of_a_page = 96 + 16 * 2;
    let storage = resealed(&sample, SHARD, 0, PAGE_SIZE, |record| {
        record[checksum_of_a_page] ^= 1
    });
    let error = open(&sample, storage, "table").err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Mismatch {
                what: "header's checksum",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_segment_of_another_history_is_cut() {
    let sample = sample(Durability::Durable);
    let last = sample.segments[2] as usize;
    let storage = resealed(&sample, LOG, last, PAGE_SIZE, |record| record[96] ^= 1);
    let (image, recovery) = Image::open_on(storage).unwrap();
    assert_eq!(image.version().0, 4);
    assert!(matches!(
        recovery.cut.unwrap().damage,
        Damage::Chain {
            expected: 5,
            found: 5
        }
    ));
}

/// With valid checksums all over, so that what is behind them is reached.
#[test]
fn any_resealed_byte_never_panics() {
    let sample = sample(Durability::Durable);
    let manifest = sample.storage.bytes("manifest").len();
    let mut opened = 0;
    for (name, start, length) in [
        ("manifest", 0, manifest),
        (SHARD, 0, PAGE_SIZE),
        (LOG, 0, PAGE_SIZE),
        (LOG, sample.segments[2] as usize, PAGE_SIZE),
    ] {
        for byte in 0..length - CHECKSUM_SIZE {
            for value in [1, 0xff] {
                let storage = resealed(&sample, name, start, length, |record| record[byte] = value);
                if let Ok((image, _)) = Image::open_on(storage) {
                    let mut page = [0; PAGE_SIZE];
                    for id in 0..12 {
                        let id = PageId::new(Region::Heap, id).unwrap();
                        let _ = image.read_pages(&[id], &mut page, lazaret_image::Verify::Yes);
                    }
                    opened += 1;
                }
            }
        }
    }
    assert!(opened > 100, "{opened}");
}
