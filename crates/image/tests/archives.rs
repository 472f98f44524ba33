//! An archive gives back what went in, and whatever else somebody makes of it is refused, with the place.

mod archive_bytes;
mod fault_storage;
mod model;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use archive_bytes::{Archive, Frame};
use fault_storage::{FaultStorage, Numbers};
use lazaret_image::{
    ArchiveError, ArchiveLimits, ArchiveReader, DecodeError, Durability, ExportError, Image,
    ImportError, PAGE_SIZE, PageId, ReadError, Region, Sizes, export,
};
use model::{Contents, State, random_pages, random_sizes};
use proptest::prelude::*;

/// Notes the largest allocation of each thread.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator as it came; the cell needs neither allocation nor destructor.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

const MODULE: &[u8] = b"\0asm and so on";

const SIZES: Sizes = Sizes {
    heap: 32 * PAGE_SIZE as u64,
    stable: 8 * PAGE_SIZE as u64,
};

/// The most that a frame needs at once.
const FRAME_ROOM: usize = (1 << 20) + (1 << 12) + 256;

fn exported(image: &Image<FaultStorage>, module: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let done = export(
        &image.view(),
        image.tenant(),
        module,
        &mut bytes,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(done.bytes, bytes.len() as u64);
    assert_eq!(done.pages, image.stored_pages());
    bytes
}

fn reader(bytes: &[u8]) -> Result<ArchiveReader<&[u8]>, ArchiveError> {
    ArchiveReader::open(bytes, &ArchiveLimits::default())
}

/// Reads to the end; the first byte of each page.
fn read(bytes: &[u8]) -> Result<BTreeMap<PageId, u8>, ArchiveError> {
    let mut reader = reader(bytes)?;
    let mut pages = BTreeMap::new();
    while let Some((ids, contents)) = reader.next_pages()? {
        assert_eq!(ids.len() * PAGE_SIZE, contents.len());
        let firsts = contents.chunks_exact(PAGE_SIZE).map(|page| page[0]);
        pages.extend(ids.iter().copied().zip(firsts));
    }
    Ok(pages)
}

/// An image with a few pages in both regions, and its state.
fn sample() -> (Image<FaultStorage>, State) {
    let mut image = Image::create_on(FaultStorage::new(1)).unwrap();
    let pages = [(Region::Heap, 1), (Region::Heap, 7), (Region::Stable, 7)]
        .map(|(region, page)| (PageId::new(region, page).unwrap(), 50 + page));
    let ids = pages.map(|(page, _)| page);
    let mut contents = Contents::of(&pages);
    image
        .commit(&ids, &mut contents, SIZES, b"meta", Durability::Durable)
        .unwrap();
    (image, State::default().after(&pages, SIZES, b"meta"))
}

#[test]
fn what_is_exported_is_what_the_specification_says() {
    let one = |region, page: u64| PageId::new(region, page).unwrap();
    let archive = Archive::new(SIZES, &[(3, 1), ((1 << 56) | 7, 2)]);
    let pages = read(&archive.bytes()).unwrap();
    let expected = [(one(Region::Heap, 3), 1), (one(Region::Stable, 7), 2)];
    assert_eq!(pages, BTreeMap::from(expected));
    // And the other way: what is written has the fields where they are specified.
    let (image, _) = sample();
    let bytes = exported(&image, MODULE);
    assert!(bytes.starts_with(b"LZRTARC\0\x01\0\0\0\0\0\0\0"));
    assert_eq!(bytes[16..32], image.tenant().0);
    assert_eq!(bytes[56..64], 3u64.to_le_bytes());
    assert_eq!(bytes[80..112], *blake3::hash(MODULE).as_bytes());
    let (body, hash) = bytes.split_last_chunk::<32>().unwrap();
    assert_eq!(blake3::hash(body), *hash);
    let mut at = 128;
    let mut kinds = Vec::new();
    loop {
        let field = |i: usize| {
            let bytes = bytes[at + 4 * i..][..4].try_into();
            u32::from_le_bytes(bytes.unwrap()) as usize
        };
        kinds.push((field(0), field(3)));
        if field(0) == 0 {
            break;
        }
        at += 32 + field(1);
    }
    assert_eq!(kinds, [(1, 0), (2, 0), (3, 3), (0, 0)]);
    assert_eq!(at + 64, bytes.len());
}

#[test]
fn a_tenant_made_of_an_archive_has_its_state_and_another_id() {
    let (image, state) = sample();
    let bytes = exported(&image, MODULE);
    let reader = reader(&bytes).unwrap();
    assert_eq!((reader.meta(), reader.module()), (&b"meta"[..], MODULE));
    assert_eq!(reader.header().tenant, image.tenant());
    let storage = FaultStorage::new(2);
    let made = reader.into_image_on(storage.clone(), &mut |_| {}).unwrap();
    assert_ne!(made.tenant(), image.tenant());
    state.check(&made, "made");
    drop(made);
    // On disk, and durable.
    storage.power_cut(&mut Numbers(4));
    let (opened, recovery) = Image::open_on(storage).unwrap();
    assert_eq!((recovery.verified, recovery.cut.is_none()), (0, true));
    state.check(&opened, "after a power cut");
}

#[test]
fn many_pages_go_in_several_commits_and_progress_is_told() {
    let mut image = Image::create_on(FaultStorage::new(1)).unwrap();
    let sizes = Sizes {
        heap: 40 << 20,
        stable: 0,
    };
    let pages: Vec<_> = (0..10_000u64)
        .map(|page| (PageId::new(Region::Heap, page).unwrap(), 1 + page))
        .collect();
    let ids: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
    image
        .commit(
            &ids,
            &mut Contents::of(&pages),
            sizes,
            b"last",
            Durability::Durable,
        )
        .unwrap();
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    let module = vec![7; (2 << 20) + 5];
    export(
        &image.view(),
        image.tenant(),
        &module,
        &mut bytes,
        &mut |pages| told.push(pages),
    )
    .unwrap();
    assert!(told.is_sorted() && told.last() == Some(&10_000));
    told.clear();
    let reader = reader(&bytes).unwrap();
    assert!(reader.module() == module);
    let made = reader
        .into_image_on(FaultStorage::new(2), &mut |pages| told.push(pages))
        .unwrap();
    assert_eq!(told.len(), 10_000usize.div_ceil(255));
    assert_eq!((made.version().0, made.meta()), (3, &b"last"[..]));
    assert_eq!(made.stored_pages(), 10_000);
    let (a, b) = (image.view(), made.view());
    let (mut one, mut other) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
    for id in ids {
        a.read_pages(&[id], &mut one, lazaret_image::Verify::Yes)
            .unwrap();
        b.read_pages(&[id], &mut other, lazaret_image::Verify::Yes)
            .unwrap();
        assert!(one == other, "{id}");
    }
}

#[test]
fn an_archive_that_ends_anywhere_is_refused() {
    let (image, _) = sample();
    let bytes = exported(&image, MODULE);
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Err(ArchiveError::Truncated { offset }) => assert!(offset <= length as u64),
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    match read(&longer) {
        Err(ArchiveError::Behind { offset }) => assert_eq!(offset, bytes.len() as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_flipped_bit_is_found() {
    let (image, _) = sample();
    let sound = exported(&image, MODULE);
    for byte in 0..sound.len() {
        // Every bit of the records, one of each byte of the contents.
        let bits = if byte < 300 || byte + 100 > sound.len() {
            8
        } else {
            1
        };
        for bit in 0..bits {
            let mut bytes = sound.clone();
            bytes[byte] ^= 1 << ((bit + byte) % 8);
            assert!(read(&bytes).is_err(), "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn what_is_no_archive_is_told_so() {
    assert!(matches!(
        read(&[b'x'; 200]),
        Err(ArchiveError::NotAnArchive)
    ));
    let mut newer = Archive::new(SIZES, &[]);
    newer.version = 2;
    assert!(matches!(
        read(&newer.bytes()),
        Err(ArchiveError::NewerFormat { found: 2 })
    ));
}

#[test]
fn lying_counts_are_found() {
    let honest = Archive::new(SIZES, &[(1, 1), (2, 2)]);
    assert_eq!(read(&honest.bytes()).unwrap().len(), 2);
    let lie = |change: &dyn Fn(&mut Archive)| {
        let mut archive = honest.clone();
        change(&mut archive);
        read(&archive.bytes()).unwrap_err()
    };
    // Fewer and more pages than there are, in the header and in the trailer.
    for pages in [1, 3, 40] {
        let error = lie(&|archive| archive.pages = pages);
        let ArchiveError::Count { what, stated, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((what, stated), ("pages", pages));
    }
    let error = lie(&|archive| archive.pages = 41);
    assert!(
        matches!(error, ArchiveError::Record { offset: 0, .. }),
        "{error}"
    );
    for (index, name) in ["frames", "pages", "bytes"].into_iter().enumerate() {
        let error = lie(&|archive| archive.totals[index] += 1);
        assert!(
            matches!(error, ArchiveError::Count { what, .. } if what == name),
            "{error}"
        );
    }
    for length in [3, 5] {
        let error = lie(&|archive| archive.module_len = length);
        assert!(matches!(error, ArchiveError::FrameLength { .. }), "{error}");
        let error = lie(&|archive| archive.meta_len = length);
        assert!(matches!(error, ArchiveError::FrameLength { .. }), "{error}");
    }
    let error = lie(&|archive| archive.module_hash[3] ^= 1);
    assert!(matches!(error, ArchiveError::ModuleHash), "{error}");
    let error = lie(&|archive| archive.frames[2].pages = 1);
    assert!(
        matches!(
            error,
            ArchiveError::Record {
                source: DecodeError::Field {
                    field: "pages in the frame",
                    value: 1
                },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn frames_in_another_order_or_missing_are_found() {
    for (order, expected) in [
        (&[1, 0, 2][..], "meta"),
        (&[0, 2, 1], "module"),
        (&[0, 1, 1, 2], "pages"),
        (&[1, 2], "meta"),
        (&[0, 2], "module"),
    ] {
        let mut archive = Archive::new(SIZES, &[(1, 1)]);
        let frames = order.iter().map(|index| archive.frames[*index].clone());
        archive.frames = frames.collect();
        let error = read(&archive.bytes()).unwrap_err();
        assert!(
            matches!(error, ArchiveError::Kind { expected: found, .. } if found == expected),
            "{order:?}: {error}"
        );
    }
    let mut unknown = Archive::new(SIZES, &[(1, 1)]);
    unknown.frames[2].kind = 4;
    unknown.frames[2].pages = 0;
    let error = read(&unknown.bytes()).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Kind { found: 4, .. }),
        "{error}"
    );
}

#[test]
fn pages_out_of_order_twice_or_outside_are_found() {
    let stable = 1 << 56;
    for pages in [
        &[(2, 1), (1, 1)][..],
        &[(1, 1), (1, 1)],
        &[(stable, 1), (1, 1)],
    ] {
        let error = read(&Archive::new(SIZES, pages).bytes()).unwrap_err();
        assert!(matches!(error, ArchiveError::Order { .. }), "{error}");
        // The same in two frames.
        let mut archive = Archive::new(SIZES, pages);
        archive.frames.pop();
        let single = pages.iter().map(|page| Frame::of_pages(&[*page]));
        archive.frames.extend(single);
        let error = read(&archive.bytes()).unwrap_err();
        assert!(matches!(error, ArchiveError::Order { .. }), "{error}");
    }
    for address in [32, stable + 8, (1 << 36) - 1] {
        let error = read(&Archive::new(SIZES, &[(address, 1)]).bytes()).unwrap_err();
        assert!(matches!(error, ArchiveError::Outside { .. }), "{error}");
    }
    for address in [1 << 36, 2 << 56, u64::MAX] {
        let error = read(&Archive::new(SIZES, &[(address, 1)]).bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                ArchiveError::Record {
                    source: DecodeError::Field {
                        field: "address",
                        ..
                    },
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// What reading takes at most at once.
fn largest_allocation(bytes: &[u8]) -> (ArchiveError, usize) {
    LARGEST.set(0);
    let error = read(bytes).unwrap_err();
    (error, LARGEST.get())
}

#[test]
fn a_bomb_takes_no_more_room_than_a_frame() {
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
    assert!(bomb.len() < 1 << 20);
    for frame in 0..3 {
        let mut archive = Archive::new(SIZES, &[(1, 1)]);
        archive.frames[frame].compressed = bomb.clone();
        if frame == 1 {
            (archive.module_len, archive.frames[1].uncompressed) = (256 << 20, 1 << 20);
        }
        let bytes = archive.bytes();
        let limits = ArchiveLimits {
            module: 1 << 30,
            ..ArchiveLimits::default()
        };
        LARGEST.set(0);
        let error = ArchiveReader::open(&bytes[..], &limits)
            .and_then(|mut reader| reader.next_pages().map(drop))
            .unwrap_err();
        let refused = match frame {
            // So long for so little can't be.
            0 | 2 => matches!(error, ArchiveError::Record { .. }),
            _ => matches!(error, ArchiveError::Decompress { .. }),
        };
        assert!(refused, "frame {frame}: {error}");
        assert!(LARGEST.get() <= FRAME_ROOM, "{}", LARGEST.get());
    }
    // One that would fit: the frame may be as long as a page's, and it is only the contents that lie.
    let mut archive = Archive::new(SIZES, &[(1, 1)]);
    archive.frames[2].compressed = zstd::bulk::compress(&vec![0; 16 << 20], 3).unwrap();
    let (error, largest) = largest_allocation(&archive.bytes());
    assert!(matches!(error, ArchiveError::Decompress { .. }), "{error}");
    assert!(largest <= FRAME_ROOM, "{largest}");
    // And one that has less than it says.
    archive.frames[2].compressed = zstd::bulk::compress(&[0; 100], 3).unwrap();
    let (error, _) = largest_allocation(&archive.bytes());
    assert!(
        matches!(error, ArchiveError::FrameLength { found: 100, .. }),
        "{error}"
    );
}

#[test]
fn what_a_header_states_is_not_allocated() {
    let mut archive = Archive::new(
        Sizes {
            heap: 1 << 48,
            stable: 1 << 48,
        },
        &[(1, 1)],
    );
    archive.pages = 1 << 37;
    archive.module_len = 100 << 20;
    archive.meta_len = 1 << 20;
    let (_, largest) = largest_allocation(&archive.bytes());
    assert!(largest <= FRAME_ROOM, "{largest}");
}

#[test]
fn limits_are_looked_at_first() {
    let archive = Archive::new(SIZES, &[(1, 1), (2, 1)]);
    let header = &archive.bytes()[..128];
    let open = |limits: ArchiveLimits| ArchiveReader::open(header, &limits).unwrap_err();
    let wide = ArchiveLimits::default();
    let tight = [
        (
            "bytes of heap",
            ArchiveLimits {
                heap: SIZES.heap - 1,
                ..wide
            },
        ),
        (
            "bytes of stable memory",
            ArchiveLimits {
                stable: SIZES.stable - 1,
                ..wide
            },
        ),
        ("pages", ArchiveLimits { pages: 1, ..wide }),
        ("bytes of meta", ArchiveLimits { meta: 3, ..wide }),
        ("bytes of module", ArchiveLimits { module: 3, ..wide }),
    ];
    for (expected, limits) in tight {
        let error = open(limits);
        assert!(
            matches!(error, ArchiveError::Limit { what, found, limit } if what == expected && found > limit),
            "{error}"
        );
    }
    // With room enough it is the frames that are missing.
    assert!(matches!(open(wide), ArchiveError::Truncated { .. }));
}

#[test]
fn a_damaged_page_is_not_exported() {
    let storage = FaultStorage::new(1);
    let page = PageId::new(Region::Heap, 1).unwrap();
    let mut image = Image::create_on(storage.clone()).unwrap();
    image
        .commit(
            &[page],
            &mut Contents::of(&[(page, 5)]),
            SIZES,
            b"",
            Durability::Durable,
        )
        .unwrap();
    let mut bytes = storage.bytes("log-0.log");
    bytes[PAGE_SIZE + 3] ^= 1;
    storage.set_bytes("log-0.log", bytes);
    let mut out = Vec::new();
    let error = export(&image.view(), image.tenant(), MODULE, &mut out, &mut |_| {}).unwrap_err();
    assert!(
        matches!(error, ExportError::Read(ReadError::Checksum { page: found, .. }) if found == page),
        "{error}"
    );
    assert!(matches!(read(&out), Err(ArchiveError::Truncated { .. })));
}

#[test]
fn a_failed_import_leaves_nothing_and_a_full_disk_is_told() {
    let (image, _) = sample();
    let bytes = exported(&image, MODULE);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made");
    let mut cut = bytes.clone();
    cut.truncate(bytes.len() - 1);
    let error = reader(&cut)
        .unwrap()
        .into_image(&path, &mut |_| {})
        .err()
        .unwrap();
    assert!(
        matches!(error, ImportError::Archive(ArchiveError::Truncated { .. })),
        "{error}"
    );
    assert!(!path.exists());
    let made = reader(&bytes).unwrap().into_image(&path, &mut |_| {});
    assert_eq!(made.unwrap().meta(), b"meta");
    let again = reader(&bytes).unwrap().into_image(&path, &mut |_| {});
    assert!(matches!(again, Err(ImportError::Create(_))));
    // The one that was there is still there.
    assert_eq!(Image::open(&path).unwrap().0.meta(), b"meta");
    for at in 1..200 {
        let storage = FaultStorage::new(3);
        storage.fail_at(at, 28);
        match reader(&bytes).unwrap().into_image_on(storage, &mut |_| {}) {
            Ok(_) => return assert!(at > 8, "only {at} operations"),
            Err(error) => assert!(error.to_string().contains("free some space"), "{error}"),
        }
    }
    panic!("never imported");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any history, folded or not: the archive of its newest version gives that back.
    #[test]
    fn any_state_comes_back(seed: u64, commits in 0usize..6, module in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let mut numbers = Numbers(seed);
        let mut image = Image::create_on(FaultStorage::new(seed)).unwrap();
        let mut state = State::default();
        for _ in 0..commits {
            let sizes = random_sizes(&mut numbers);
            let pages = random_pages(&mut numbers, sizes, 300);
            let ids: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
            let meta = vec![1; numbers.below(3000)];
            image.commit(&ids, &mut Contents::of(&pages), sizes, &meta, Durability::Relaxed).unwrap();
            state = state.after(&pages, sizes, &meta);
            if numbers.below(3) == 0 {
                image.fold().unwrap();
            }
        }
        let bytes = exported(&image, &module);
        let reader = reader(&bytes).unwrap();
        prop_assert_eq!(reader.module(), &module[..]);
        let made = reader.into_image_on(FaultStorage::new(!seed), &mut |_| {}).unwrap();
        state.check(&made, "imported");
    }

    /// Any bytes behind a valid header, and any damage of a sound archive: an error or the truth, never a panic.
    #[test]
    fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..400), keep in 0usize..200) {
        let archive = Archive::new(SIZES, &[(1, 1), (2, 2)]);
        let mut bytes = archive.bytes();
        bytes.truncate(keep);
        bytes.extend(noise);
        prop_assert!(read(&bytes).is_err());
    }
}
