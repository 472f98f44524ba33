//! As `bad_files.rs`, of a directory with sealed logs and files of a snapshot: all of it was on disk, so nothing is ever
//! cut, and whatever is wrong is named.

mod fault_storage;
mod model;

use std::path::Path;

use fault_storage::FaultStorage;
use lazaret_image::{
    Accept, CHECKSUM_SIZE, Durability, Image, OpenError, PAGE_SIZE, PageId, Region, Sizes,
    header_checksum,
};
use model::{Contents, State};

const SIZES: Sizes = Sizes {
    heap: 32 * PAGE_SIZE as u64,
    stable: 8 * PAGE_SIZE as u64,
};

/// An image with two sealed logs, one of them from before it was restored, and an active one; and its state.
fn sealed() -> (FaultStorage, State) {
    let storage = FaultStorage::new(4);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let mut state = State::default();
    let mut commit = |image: &mut Image<FaultStorage>, page, content| {
        let pages = [(PageId::new(Region::Heap, page).unwrap(), content)];
        let meta = [page as u8; 9];
        image
            .commit(
                &[pages[0].0],
                &mut Contents::of(&pages),
                SIZES,
                &meta,
                Durability::Durable,
            )
            .unwrap();
        state = state.after(&pages, SIZES, &meta);
    };
    commit(&mut image, 1, 11);
    image.fold().unwrap();
    commit(&mut image, 2, 12);
    commit(&mut image, 3, 13);
    let path = Path::new("/snapshot");
    image.snapshot(path).unwrap();
    image.restore(path, Accept::SameTenant).unwrap();
    commit(&mut image, 4, 14);
    drop(image.begin_fold().unwrap());
    commit(&mut image, 5, 15);
    drop(image);
    // Nothing of the disk's other directories is looked at.
    (storage.copy(), state)
}

fn logs(storage: &FaultStorage) -> Vec<String> {
    let mut logs = storage.names();
    logs.retain(|name| name.starts_with("log-"));
    logs.sort();
    logs
}

#[test]
fn any_bit_of_a_manifest_with_sealed_logs() {
    let (storage, state) = sealed();
    let (image, recovery) = Image::open_on(storage.copy()).unwrap();
    assert_eq!((image.version().0, recovery.segments), (6, 4));
    state.check(&image, "undamaged");
    for byte in 0..storage.bytes("manifest").len() {
        for bit in 0..8 {
            let damaged = storage.copy();
            let mut bytes = damaged.bytes("manifest");
            bytes[byte] ^= 1 << bit;
            damaged.set_bytes("manifest", bytes);
            let error = Image::open_on(damaged).err().expect("damaged");
            assert!(error.to_string().contains("/image/manifest"), "{error}");
        }
    }
}

#[test]
fn any_byte_of_a_sealed_logs_headers_and_any_length() {
    let (storage, state) = sealed();
    for name in logs(&storage).iter().take(2) {
        let bytes = storage.bytes(name);
        for byte in (0..bytes.len()).filter(|byte| (byte / PAGE_SIZE).is_multiple_of(2)) {
            let damaged = storage.copy();
            let mut changed = bytes.clone();
            changed[byte] ^= 1 << (byte % 8);
            damaged.set_bytes(name, changed);
            let error = Image::open_on(damaged.clone()).err().expect("damaged");
            assert!(error.to_string().contains(name.as_str()), "{error}");
            assert!(
                matches!(
                    error,
                    OpenError::Segment { .. } | OpenError::NewerFormat { .. }
                ),
                "{error}"
            );
            assert_eq!(damaged.bytes(name).len(), bytes.len(), "nothing is cut");
        }
        for length in (0..bytes.len()).step_by(61) {
            let damaged = storage.copy();
            damaged.set_bytes(name, bytes[..length].to_vec());
            let error = Image::open_on(damaged).err().expect("cut short");
            assert!(error.to_string().contains(name.as_str()), "{error}");
        }
        // What is behind is nobody's here, whatever it is.
        let longer = storage.copy();
        longer.set_bytes(name, [bytes.as_slice(), &bytes].concat());
        let (image, recovery) = Image::open_on(longer).unwrap();
        assert!(recovery.cut.is_none());
        state.check(&image, "longer");
    }
}

#[test]
fn a_sealed_log_in_the_place_of_another_is_refused() {
    let (storage, _) = sealed();
    let names = logs(&storage);
    let [first, second, active] = names.as_slice() else {
        panic!("{names:?}")
    };
    for (to, from) in [(first, second), (second, first), (first, active)] {
        let swapped = storage.copy();
        swapped.set_bytes(to, storage.bytes(from));
        let error = Image::open_on(swapped).err().expect("another log");
        assert!(error.to_string().contains(to.as_str()), "{error}");
    }
    for name in &names {
        let lost = storage.copy();
        lost.lose(name);
        let error = Image::open_on(lost).err().expect("missing");
        assert!(
            error
                .to_string()
                .contains(&format!("cannot open /image/{name}"))
        );
    }
}

/// With valid checksums, so that what is behind them is reached.
#[test]
fn any_resealed_byte_of_a_manifest_with_sealed_logs_never_panics() {
    let (storage, _) = sealed();
    let length = storage.bytes("manifest").len();
    for byte in 0..length - CHECKSUM_SIZE {
        for value in [0, 1, 0x7f, 0xff] {
            let changed = storage.copy();
            let mut bytes = changed.bytes("manifest");
            bytes[byte] = value;
            let checksum = header_checksum(&bytes[..length - CHECKSUM_SIZE]);
            bytes[length - CHECKSUM_SIZE..].copy_from_slice(&checksum);
            changed.set_bytes("manifest", bytes);
            if let Ok((mut image, _)) = Image::open_on(changed) {
                let _ = image.fold();
                let _ = image.snapshot(Path::new("/another"));
            }
        }
    }
}

/// Its end could be a torn tail, but a snapshot shares it: an image that cut it would cut the snapshot too.
#[test]
fn an_active_log_that_a_snapshot_shares_is_never_cut() {
    let storage = FaultStorage::new(6);
    let mut image = Image::create_on(storage.clone()).unwrap();
    let pages = [(PageId::new(Region::Heap, 1).unwrap(), 7)];
    let commit = |image: &mut Image<FaultStorage>| {
        let mut source = Contents::of(&pages);
        let ids = [pages[0].0];
        image
            .commit(&ids, &mut source, SIZES, b"", Durability::Durable)
            .unwrap();
        image.log_len()
    };
    commit(&mut image);
    let shared = commit(&mut image);
    image.snapshot(Path::new("/snapshot")).unwrap();
    let end = commit(&mut image);
    drop(image);
    for (byte, cut) in [(shared - 9, false), (shared + 40, true), (end - 9, true)] {
        let damaged = storage.copy();
        let mut bytes = damaged.bytes("log-0.log");
        bytes[byte as usize] ^= 1;
        damaged.set_bytes("log-0.log", bytes);
        let opened = Image::open_on(damaged.clone());
        let left = damaged.bytes("log-0.log").len() as u64;
        if cut {
            assert!(opened.unwrap().1.cut.is_some());
            assert_eq!(left, shared);
            let snapshot = damaged.at(Path::new("/snapshot")).unwrap();
            assert_eq!(Image::open_on(snapshot).unwrap().0.version().0, 2);
        } else {
            // Damage in a page is told when the page is read; nothing is cut for it.
            let (image, recovery) = opened.unwrap();
            assert!(recovery.cut.is_none());
            assert_eq!((image.version().0, left), (3, end));
        }
    }
    // Also when the shared part is all there is.
    let damaged = storage.copy();
    let mut bytes = damaged.bytes("log-0.log");
    bytes.truncate(shared as usize);
    bytes[shared as usize - 2 * PAGE_SIZE + 40] ^= 1;
    damaged.set_bytes("log-0.log", bytes);
    let error = Image::open_on(damaged.clone()).err().expect("damaged");
    assert!(matches!(error, OpenError::Segment { .. }), "{error}");
    assert_eq!(damaged.bytes("log-0.log").len() as u64, shared);
}
