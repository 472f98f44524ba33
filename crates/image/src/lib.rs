//! A tenant's memory on disk.
//!
//! An [`Image`] is two regions of 4096-byte pages ([`Region::Heap`] and [`Region::Stable`]), their [`Sizes`], and a
//! short opaque string `meta`, all at one [`Version`]. [`Image::commit`] appends the pages that an update wrote to a
//! log, as one segment with checksums, and makes the next version; [`Image::fold`] writes it as a new base and starts
//! an empty log. A [`View`] is one version, to be read for as long as it is held: [`View::plan`] says what a worker maps
//! or reads to see it. A [`Reader`] gives the newest view on any thread, also while a commit is being written.
//!
//! [`Image::checkpointer`] gives what puts commits on disk while others are made; [`Image::checkpoint`] does so at once.
//!
//! [`Image::snapshot`] and [`Image::fork`] make other directories with the same files, which cost no more for gigabytes
//! than for a page, and [`Image::restore`] goes back to one. [`Image::begin_fold`], [`FoldJob::run`] and
//! [`Image::finish_fold`] fold while commits go on.
//!
//! ```
//! use lazaret_image::{Durability, Image, PageId, PageSource, Region, Sizes, Verify, PAGE_SIZE};
//!
//! /// Every page is filled with its number.
//! struct Numbers;
//! impl PageSource for Numbers {
//!     fn read(&mut self, pages: &[PageId], into: &mut [u8]) -> std::io::Result<()> {
//!         for (page, bytes) in pages.iter().zip(into.chunks_exact_mut(PAGE_SIZE)) {
//!             bytes.fill(page.page() as u8);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let directory = directory.path().join("counter");
//! let mut image = Image::create(&directory)?;
//! let page = PageId::new(Region::Heap, 7).ok_or("no such page")?;
//! let sizes = Sizes { heap: 1 << 20, stable: 0 };
//! image.commit(&[page], &mut Numbers, sizes, b"globals", Durability::Durable)?;
//! drop(image);
//!
//! let (image, recovery) = Image::open(&directory)?;
//! assert_eq!(recovery.version.0, 1);
//! let mut bytes = [0; PAGE_SIZE];
//! image.read_pages(&[page], &mut bytes, Verify::Yes)?;
//! assert_eq!(bytes, [7; PAGE_SIZE]);
//! # Ok(())
//! # }
//! ```
//!
//! A [`StateHasher`] hashes a version from the pages that changed since the version that it hashed before.
//!
//! The bytes on disk are specified in `docs/format.md`. What is in `decode` is what an attacker with write
//! access to the directory, or a failing disk, can reach.
//!
//! # Testing
//!
//! [`Storage`] is the whole outside world. `tests/crash_consistency.rs` runs images on a simulated disk that
//! fails and loses power at every operation, and at `LAZARET_CRASH_POINTS` moments of random histories;
//! `tests/bad_files.rs` on files with every byte damaged. Figures:
//! `cargo run --release -p lazaret-image --example commit_speed [DIR]`, `snapshot_speed`, and `hash_speed`.

mod archive;
mod changes;
mod check;
mod checkpointer;
mod checksum;
mod commit;
mod decode;
mod encode;
mod error;
mod files;
mod finding;
mod fold;
mod format;
mod image;
mod index;
mod input;
mod log;
mod manifest;
mod node_hash;
mod numbers;
mod page;
mod page_map;
mod plan;
mod read;
mod reader;
mod recovery;
mod restore;
mod runs;
mod shard;
mod snapshot;
mod stale;
mod state_hasher;
mod storage;
mod tree;
mod tree_file;
mod tree_tier;
mod view;
mod walk;
mod windows;

pub use archive::{ArchiveHeader, ArchiveLimits, ArchiveReader, Exported, export};
pub use changes::Changes;
pub use check::{CheckError, CheckEvent, Checked, Depth, Newest, check, check_on};
pub use checkpointer::{Checkpointer, Synced};
pub use checksum::{CHECKSUM_SIZE, Checksum, header_checksum, page_checksum};
pub use commit::{CHUNK_PAGES, Committed, Durability, PageSource};
pub use decode::{
    DecodeError, decode_manifest, decode_segment_fields, decode_segment_header, decode_shard_header,
};
pub use encode::{SegmentEncoder, encode_manifest, encode_shard_header};
pub use error::{
    Action, ArchiveError, CommitError, CreateError, Damage, ExportError, FileError, FoldError,
    ImportError, OpenError, ReadError, RemoveError, RestoreError, SnapshotError, SyncError,
};
pub use finding::{Finding, Problem, Severity};
pub use fold::{FoldJob, Folded};
pub use format::{
    FORMAT_VERSION, LogEntry, Manifest, Origin, SealedLog, SegmentFields, SegmentHeader,
    ShardEntry, ShardHeader,
};
pub use image::Image;
pub use page::{
    FileId, MAX_META, MAX_PAGES, MAX_SIZE, PAGE_SIZE, PageId, Region, Sizes, TenantId, Version,
};
pub use plan::{Plan, Run};
pub use read::Verify;
pub use reader::Reader;
pub use recovery::{Cut, Recovery};
pub use restore::Accept;
pub use runs::MAPPED_RUN_PAGES;
pub use shard::BytesPerSecond;
pub use state_hasher::{Hashed, StateHasher, StateRoots};
pub use storage::{Descriptor, OpenFiles, OsFile, OsStorage, ReadAt, Storage, open_descriptors};
pub use view::View;
