//! Snapshots, forks and restores on a real file system: what is shared, what is apart, what is refused.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lazaret_image::{
    Accept, Durability, Image, OpenError, PAGE_SIZE, PageId, PageSource, ReadError, Region,
    RestoreError, Sizes, SnapshotError, Verify,
};

const SIZES: Sizes = Sizes {
    heap: 1 << 30,
    stable: 1 << 20,
};

/// Fills every page with one byte.
struct Filled(u8);

impl PageSource for Filled {
    fn read(&mut self, _: &[PageId], into: &mut [u8]) -> io::Result<()> {
        into.fill(self.0);
        Ok(())
    }
}

fn heap(page: u64) -> PageId {
    PageId::new(Region::Heap, page).unwrap()
}

fn commit(image: &mut Image, pages: impl IntoIterator<Item = u64>, byte: u8) {
    let ids: Vec<_> = pages.into_iter().map(heap).collect();
    image
        .commit(&ids, &mut Filled(byte), SIZES, &[byte], Durability::Relaxed)
        .unwrap();
}

fn bytes(image: &Image, pages: &[u64]) -> Vec<u8> {
    let read = |page: &u64| {
        let mut bytes = [0; PAGE_SIZE];
        image
            .read_pages(&[heap(*page)], &mut bytes, Verify::Yes)
            .unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    };
    pages.iter().map(read).collect()
}

/// An image with a base of pages 0 to 9 and a log of pages 5 to 14.
fn sample(directory: &Path) -> (Image, PathBuf) {
    let path = directory.join("origin");
    let mut image = Image::create(&path).unwrap();
    commit(&mut image, 0..10, 1);
    image.fold().unwrap();
    commit(&mut image, 5..15, 2);
    (image, path)
}

fn open(path: &Path) -> Image {
    let (image, recovery) = Image::open(path).unwrap();
    assert!(recovery.cut.is_none() && recovery.leftovers.is_empty());
    assert_eq!(recovery.verified, 0, "all of it was on disk");
    image
}

/// Names and inode numbers.
fn inodes(path: &Path) -> Vec<(String, u64)> {
    let mut inodes: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().ino())
        })
        .collect();
    inodes.sort();
    inodes
}

#[test]
fn a_snapshot_shares_files_and_outlives_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, origin) = sample(directory.path());
    let snapshot = directory.path().join("snapshot");
    image.snapshot(&snapshot).unwrap();
    let ours: Vec<u64> = inodes(&origin).iter().map(|(_, inode)| *inode).collect();
    let shared = inodes(&snapshot)
        .iter()
        .filter(|(_, inode)| ours.contains(inode))
        .count();
    assert_eq!(shared, 2, "the shard and the log");

    // The origin appends to the shared log, then folds, and goes.
    commit(&mut image, 0..3, 3);
    image.sync().unwrap();
    let taken = open(&snapshot);
    assert_eq!((taken.tenant(), taken.version().0), (image.tenant(), 2));
    assert_eq!(bytes(&taken, &[0, 4, 5, 14, 15]), [1, 1, 2, 2, 0]);
    drop(taken);
    image.fold().unwrap();
    drop(image);
    Image::remove(&origin).unwrap();
    let mut taken = open(&snapshot);
    assert_eq!(bytes(&taken, &[0, 4, 5, 14, 15]), [1, 1, 2, 2, 0]);
    assert_eq!(taken.meta(), [2]);
    // It is an image like any other.
    commit(&mut taken, [20], 4);
    taken.fold().unwrap();
    drop(taken);
    assert_eq!(bytes(&open(&snapshot), &[0, 14, 20]), [1, 2, 4]);
    let names = inodes(directory.path());
    assert_eq!(names.len(), 1, "nothing is left aside: {names:?}");
}

#[test]
fn forks_go_their_own_ways() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, _) = sample(directory.path());
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let tenant = image.fork(&first).unwrap();
    let mut fork = open(&first);
    assert_eq!(fork.tenant(), tenant);
    assert_ne!(fork.tenant(), image.tenant());
    commit(&mut fork, [0], 7);
    commit(&mut image, [0], 8);
    // A fork of a fork has files of three origins.
    fork.fork(&second).unwrap();
    let mut last = open(&second);
    commit(&mut last, [1], 9);
    last.checkpoint().unwrap();
    drop(last);
    drop(fork);
    for (path, expected) in [(&first, [7, 1, 2]), (&second, [7, 9, 2])] {
        assert_eq!(bytes(&open(path), &[0, 1, 5]), expected);
    }
    assert_eq!(bytes(&image, &[0, 1, 5]), [8, 1, 2]);
    assert_eq!(image.version().0, 3);
}

#[test]
fn a_restore_goes_on_with_the_next_version() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, origin) = sample(directory.path());
    let [snapshot, fork] = ["snapshot", "fork"].map(|name| directory.path().join(name));
    image.snapshot(&snapshot).unwrap();
    image.fork(&fork).unwrap();
    commit(&mut image, 0..15, 3);
    let (held, reader) = (image.view(), image.reader());
    let before: Vec<String> = inodes(&origin).into_iter().map(|(name, _)| name).collect();

    assert_eq!(
        image.restore(&snapshot, Accept::SameTenant).unwrap().0,
        image.version().0
    );
    assert_eq!((image.version().0, image.meta()), (4, [2].as_slice()));
    assert_eq!(bytes(&image, &[0, 5, 14]), [1, 2, 2]);
    let after = inodes(&origin);
    let kept = after.iter().filter(|(name, _)| before.contains(name));
    assert_eq!(kept.count(), 1, "only the manifest has its old name");
    // What was held stays; what changed isn't known any more.
    let mut page = [0; PAGE_SIZE];
    held.read_pages(&[heap(0)], &mut page, Verify::Yes).unwrap();
    assert_eq!((held.version().0, page), (3, [3; PAGE_SIZE]));
    assert!(reader.changed_since(held.version()).is_none());
    assert_eq!(reader.view().version().0, 4);

    commit(&mut image, [1], 5);
    assert_eq!(
        reader
            .changed_since(lazaret_image::Version(4))
            .unwrap()
            .pages,
        [heap(1)]
    );
    drop(image);
    let mut image = Image::open(&origin).unwrap().0;
    assert_eq!(
        (image.version().0, bytes(&image, &[0, 1, 14])),
        (5, vec![1, 5, 2])
    );

    // A fork is somebody else's, also that of this image.
    let error = image.restore(&fork, Accept::SameTenant).unwrap_err();
    assert!(matches!(error, RestoreError::OtherTenant { .. }), "{error}");
    image.restore(&fork, Accept::AnyTenant).unwrap();
    assert_eq!((image.version().0, bytes(&image, &[1])), (6, vec![1]));
    image.fold().unwrap();
    drop(image);
    assert_eq!(bytes(&open(&origin), &[0, 5]), [1, 2]);
    assert_eq!(bytes(&open(&snapshot), &[0, 5]), [1, 2]);
}

#[test]
fn a_fold_is_in_vain_after_a_restore() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, origin) = sample(directory.path());
    let snapshot = directory.path().join("snapshot");
    image.snapshot(&snapshot).unwrap();
    let mut job = image.begin_fold().unwrap();
    image.restore(&snapshot, Accept::SameTenant).unwrap();
    job.run(None, &false.into()).unwrap();
    let mut second = image.begin_fold().unwrap();
    let error = image.finish_fold(&mut job).unwrap_err();
    assert!(error.to_string().contains("begin another"), "{error}");
    drop(job);
    second.run(None, &false.into()).unwrap();
    image.finish_fold(&mut second).unwrap();
    drop((second, image));
    assert_eq!(bytes(&open(&origin), &[0, 5]), [1, 2]);
}

#[test]
fn what_cannot_be_made_or_restored_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, origin) = sample(directory.path());
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("file"), "x").unwrap();
    for name in ["empty", "file", "origin"] {
        let error = image.snapshot(&at(name)).unwrap_err();
        assert!(matches!(error, SnapshotError::Exists { .. }), "{error}");
    }
    assert!(matches!(
        image.snapshot(Path::new("/")),
        Err(SnapshotError::Name { .. })
    ));
    let error = image.fork(&at("no/such")).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    // Somebody's own files where a snapshot would be made are not removed.
    fs::create_dir(at(".mine.new")).unwrap();
    fs::write(at(".mine.new/notes.txt"), "x").unwrap();
    let error = image.snapshot(&at("mine")).unwrap_err();
    assert!(error.to_string().contains(".mine.new"), "{error}");
    assert!(at(".mine.new/notes.txt").exists());
    // What a crash left is.
    fs::create_dir(at(".good.new")).unwrap();
    fs::write(at(".good.new/log-0.log"), "x").unwrap();
    image.snapshot(&at("good")).unwrap();
    assert!(!at(".good.new").exists());

    let mut restore = |name: &str| image.restore(&at(name), Accept::AnyTenant).unwrap_err();
    for name in ["missing", "empty"] {
        let error = restore(name);
        assert!(
            matches!(error, RestoreError::Open(OpenError::Missing { .. })),
            "{error}"
        );
    }
    assert!(matches!(
        restore("origin"),
        RestoreError::Open(OpenError::InUse { .. })
    ));
    let manifest = fs::read(at("good/manifest")).unwrap();
    fs::write(at("good/manifest"), &manifest[..100]).unwrap();
    let error = restore("good");
    assert!(
        matches!(error, RestoreError::Open(OpenError::Record { .. })),
        "{error}"
    );
    assert_eq!(bytes(&image, &[0, 5]), [1, 2]);
    drop(image);
    assert_eq!(bytes(&open(&origin), &[0, 5]), [1, 2]);
}

#[test]
fn damage_to_a_shared_file_is_told_by_each_that_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut image, origin) = sample(directory.path());
    let snapshot = directory.path().join("snapshot");
    image.snapshot(&snapshot).unwrap();
    drop(image);
    let (shard, _) = inodes(&origin)
        .into_iter()
        .find(|(name, _)| name.starts_with("base"))
        .unwrap();
    let mut damaged = fs::read(origin.join(&shard)).unwrap();
    damaged[PAGE_SIZE + 9] ^= 4;
    fs::write(origin.join(&shard), damaged).unwrap();
    for path in [&origin, &snapshot] {
        let image = open(path);
        let error = image.verify_page(heap(0)).unwrap_err();
        assert!(
            matches!(&error, ReadError::Checksum { path: at, page, .. }
                if at.starts_with(path) && *page == heap(0)),
            "{error}"
        );
        image.verify_page(heap(1)).unwrap();
    }
    // A sealed log that was cut short: the one that reads all of it says so, and where.
    let (log, _) = inodes(&snapshot)
        .into_iter()
        .find(|(name, _)| name.starts_with("log"))
        .unwrap();
    let whole = fs::read(snapshot.join(&log)).unwrap();
    // Behind the last segment there may be zeros.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(snapshot.join(&log), &whole[..end]).unwrap();
    for path in [&origin, &snapshot] {
        let error = Image::open(path).err().unwrap();
        assert!(
            matches!(&error, OpenError::Segment { path: at, offset: 0, .. } if at.starts_with(path)),
            "{error}"
        );
    }
}

/// Between file systems there are no links. `/dev/shm` is one of its own on every Linux that mounts it.
#[test]
fn between_file_systems_files_are_copied() {
    let (here, there) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in("/dev/shm").unwrap(),
    );
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(here.path()) == device(there.path()) {
        panic!("both directories are on one file system; set TMPDIR to one that isn't /dev/shm's");
    }
    let (mut image, _) = sample(here.path());
    let snapshot = there.path().join("snapshot");
    image.snapshot(&snapshot).unwrap();
    assert_eq!(bytes(&open(&snapshot), &[0, 5, 14]), [1, 2, 2]);
    commit(&mut image, 0..15, 3);
    image.restore(&snapshot, Accept::SameTenant).unwrap();
    assert_eq!(bytes(&image, &[0, 5, 14]), [1, 2, 2]);
}
