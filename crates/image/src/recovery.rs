//! Opening an image: reading the base, walking the log, cutting what a crash left at its end.

use std::path::PathBuf;

use crate::decode::{
    DecodeError, ShardFront, decode_manifest, decode_shard_front, decode_shard_header,
};
use crate::error::{Action, Damage, FileError, OpenError};
use crate::files::{Block, Files, SourceFile};
use crate::format::{
    MANIFEST, MAX_MANIFEST, Manifest, SHARD_FIXED, SegmentHeader, ShardEntry, ShardHeader,
    log_name, shard_name,
};
use crate::image::{Image, remove_leftovers};
use crate::index::{Extent, Index, Location};
use crate::log::LogTail;
use crate::page::{FileId, PAGE_BYTES, PageId, Sizes, Version};
use crate::runs::BaseRuns;
use crate::storage::{ReadAt, Storage};
use crate::walk::{Found, Link, Walk};

/// What opening an image found.
#[derive(Debug)]
pub struct Recovery {
    /// The version that the image is at.
    pub version: Version,
    /// Commits in the logs.
    pub segments: u64,
    /// How many of them had to be verified page by page, as they may not have been on disk.
    pub verified: u64,
    /// The torn tail that was cut off the log.
    pub cut: Option<Cut>,
    /// Files that a crash had left, now removed.
    pub leftovers: Vec<String>,
}

/// A torn tail: what was behind the last published segment.
#[derive(Debug)]
pub struct Cut {
    /// The log.
    pub path: PathBuf,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
    /// Why they aren't a published segment.
    pub damage: Damage,
}

/// What the manifest's settled files hold: the base and the sealed logs.
pub(crate) struct Settled<F> {
    pub(crate) files: Files<F>,
    pub(crate) index: Index,
    pub(crate) base: BaseRuns,
    pub(crate) sizes: Sizes,
    pub(crate) meta: Vec<u8>,
    /// Commits in the sealed logs.
    pub(crate) segments: u64,
}

impl<S: Storage> Image<S> {
    /// [`open`](Image::open) on any storage.
    ///
    /// # Errors
    ///
    /// As for [`open`](Image::open).
    pub fn open_on(storage: S) -> Result<(Image<S>, Recovery), OpenError> {
        let manifest = read_manifest(&storage)?;
        let mut settled = load_settled(&storage, &manifest)?;

        let file = manifest.log.file;
        let name = log_name(file);
        let fail = |action, offset, source| FileError::new(&storage, action, &name, offset, source);
        let writing = storage
            .open_write(&name)
            .map_err(|error| fail(Action::Open, 0, error))?;
        let (reading, length) = open_log(&storage, &name)?;
        let walk = Walk {
            storage: &storage,
            name: &name,
            file: &reading,
            length,
            tenant: manifest.tenant,
        };
        let begin = Link {
            offset: 0,
            version: manifest.version,
            chain: manifest.log.seed,
        };
        let log = walk.recover(begin, manifest.log.durable_len)?;
        let segments = settled.segments + log.segments.len() as u64;
        let slot = settled.apply_log(&storage, file, reading, log.segments)?;

        let cut = match log.torn {
            Some(damage) => {
                // Before anything is written where the tail was, it must be gone from the disk too.
                storage
                    .truncate(&writing, log.end.offset)
                    .map_err(|error| fail(Action::Truncate, 0, error))?;
                storage
                    .fdatasync(&writing)
                    .map_err(|error| fail(Action::Sync, 0, error))?;
                let bytes = length - log.end.offset;
                Some(Cut {
                    path: storage.path().join(&name),
                    offset: log.end.offset,
                    bytes,
                    damage,
                })
            }
            None => None,
        };
        let leftovers = remove_leftovers(&storage, &manifest)?;
        let version = log.end.version;
        // Without a cut, what is behind the end is zeros.
        let length = if cut.is_some() {
            log.end.offset
        } else {
            length
        };
        let tail = LogTail {
            handle: writing,
            slot,
            end: log.end.offset,
            durable: log.durable,
            chain: log.end.chain,
            dirty: false,
            reserved: log.end.offset,
            zeroed: length,
        };
        let image = Image::assemble(storage, manifest, settled, version, tail);
        Ok((
            image,
            Recovery {
                version,
                segments,
                verified: log.verified,
                cut,
                leftovers,
            },
        ))
    }
}

/// Reads the base and the sealed logs, and checks all but the pages.
pub(crate) fn load_settled<S: Storage>(
    storage: &S,
    manifest: &Manifest,
) -> Result<Settled<S::File>, OpenError> {
    let mut settled = Settled {
        files: Files::default(),
        index: Index::default(),
        base: BaseRuns::default(),
        sizes: manifest.sizes,
        meta: manifest.meta.clone(),
        segments: 0,
    };
    // One for all headers, so that it stays in the processor's cache.
    let mut bytes = Vec::new();
    for shard in &manifest.shards {
        let slot = settled.files.free();
        let file = open_shard(storage, shard, slot, &mut settled.index, &mut bytes)?;
        settled.files.insert(file);
    }
    settled.base = BaseRuns::of(&settled.index);
    for log in &manifest.sealed {
        let name = log_name(log.file);
        let (reading, length) = open_log(storage, &name)?;
        let walk = Walk {
            storage,
            name: &name,
            file: &reading,
            // What is behind belongs to whoever appends to the file.
            length: length.min(log.length),
            tenant: log.origin.tenant,
        };
        let begin = Link {
            offset: 0,
            version: log.begin,
            chain: log.seed,
        };
        let segments = walk.sealed(begin, log.length, log.checksum)?;
        settled.segments += segments.len() as u64;
        settled.apply_log(storage, log.file, reading, segments)?;
    }
    Ok(settled)
}

impl<F: ReadAt> Settled<F> {
    /// Adds a log and the commits in it. Returns its slot.
    fn apply_log<S: Storage<File = F>>(
        &mut self,
        storage: &S,
        file: FileId,
        reading: F,
        segments: Vec<Found>,
    ) -> Result<usize, OpenError> {
        let path = storage.path().join(log_name(file));
        let slot = self.files.free();
        let mut blocks = Vec::new();
        for Found { offset, header } in segments {
            let data = offset + header.header_len;
            apply_segment(&header, data / PAGE_BYTES, slot, &mut self.index)
                .ok_or_else(|| OpenError::TooLarge { path: path.clone() })?;
            if !header.data.is_empty() {
                blocks.push(Block::in_segment(offset, data));
            }
            self.index.truncate(&header.fields.sizes);
            (self.sizes, self.meta) = (header.fields.sizes, header.meta);
        }
        Ok(self
            .files
            .insert(SourceFile::new(file, path, reading, blocks)))
    }
}

/// Opens a log for reading, and finds its length.
pub(crate) fn open_log<S: Storage>(storage: &S, name: &str) -> Result<(S::File, u64), FileError> {
    let fail = |action, source| FileError::new(storage, action, name, 0, source);
    let reading = storage
        .open_read(name)
        .map_err(|error| fail(Action::Open, error))?;
    let length = storage
        .len(&reading)
        .map_err(|error| fail(Action::Read, error))?;
    Ok((reading, length))
}

pub(crate) fn read_manifest<S: Storage>(storage: &S) -> Result<Manifest, OpenError> {
    let fail = |action, source| FileError::new(storage, action, MANIFEST, 0, source);
    let file = storage
        .open_read(MANIFEST)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => OpenError::Missing {
                path: storage.path().to_path_buf(),
            },
            _ => OpenError::File(fail(Action::Open, error)),
        })?;
    let length = storage
        .len(&file)
        .map_err(|error| fail(Action::Read, error))?;
    if length > MAX_MANIFEST {
        return Err(OpenError::Length {
            path: storage.path().join(MANIFEST),
            expected: MAX_MANIFEST,
            found: length,
        });
    }
    let mut bytes = vec![0; length as usize];
    file.pread(&mut bytes, 0)
        .map_err(|error| fail(Action::Read, error))?;
    decode_manifest(&bytes).map_err(|error| record(storage, MANIFEST, 0, error))
}

/// Opens a shard, checks that it is the one that the manifest lists, and leaves its header in `bytes`.
fn read_shard_front<S: Storage>(
    storage: &S,
    shard: &ShardEntry,
    bytes: &mut Vec<u8>,
) -> Result<(S::File, ShardFront), OpenError> {
    let name = shard_name(shard.file);
    let path = || storage.path().join(&name);
    let fail = |action, source| FileError::new(storage, action, &name, 0, source);
    let handle = storage
        .open_read(&name)
        .map_err(|error| fail(Action::Open, error))?;
    let length = storage
        .len(&handle)
        .map_err(|error| fail(Action::Read, error))?;
    let expected = shard.file_len();
    if length != expected {
        return Err(OpenError::Length {
            path: path(),
            expected,
            found: length,
        });
    }
    let header_len =
        usize::try_from(shard.header_len).map_err(|_| OpenError::TooLarge { path: path() })?;
    bytes.resize(header_len, 0);
    handle
        .pread(bytes, 0)
        .map_err(|error| fail(Action::Read, error))?;
    let (front, checksum) =
        decode_shard_front(bytes).map_err(|error| record(storage, &name, 0, error))?;
    if front.tenant != shard.origin.tenant {
        return Err(OpenError::OtherTenant {
            path: path(),
            offset: 0,
            expected: shard.origin.tenant,
            found: front.tenant,
        });
    }
    let first = front.runs.first().map(|(first, _)| *first);
    let last = front.runs.last().map(|(first, pages)| first + pages - 1);
    let differs = [
        (front.file != shard.origin.file, "file number"),
        (checksum != shard.checksum, "header's checksum"),
        (front.region != shard.region, "region"),
        (front.pages != shard.pages, "number of pages"),
        (
            first != Some(shard.first_page) || last != Some(shard.last_page),
            "range of pages",
        ),
    ];
    if let Some((_, what)) = differs.into_iter().find(|(differs, _)| *differs) {
        return Err(OpenError::Mismatch { path: path(), what });
    }
    Ok((handle, front))
}

/// Opens a shard and checks that it is the one that the manifest lists; gives all of its header.
pub(crate) fn read_shard_header<S: Storage>(
    storage: &S,
    shard: &ShardEntry,
) -> Result<(S::File, ShardHeader), OpenError> {
    let mut bytes = Vec::new();
    let (handle, _) = read_shard_front(storage, shard, &mut bytes)?;
    let (header, _) = decode_shard_header(&bytes)
        .map_err(|error| record(storage, &shard_name(shard.file), 0, error))?;
    Ok((handle, header))
}

/// Opens a shard and puts its pages into the index. `bytes` is room for its header.
fn open_shard<S: Storage>(
    storage: &S,
    shard: &ShardEntry,
    slot: usize,
    index: &mut Index,
    bytes: &mut Vec<u8>,
) -> Result<SourceFile<S::File>, OpenError> {
    let (handle, header) = read_shard_front(storage, shard, bytes)?;
    let path = storage.path().join(shard_name(shard.file));
    let mut next = shard.header_len / PAGE_BYTES;
    if Location::new(slot, next + shard.pages).is_none() {
        return Err(OpenError::TooLarge { path });
    }
    index.put(header.runs.iter().filter_map(|(first, pages)| {
        let location = Location::new(slot, next);
        next += pages;
        Some(Extent {
            first: PageId::new(shard.region, *first)?,
            pages: *pages,
            location: location?,
        })
    }));
    let checksums = (SHARD_FIXED + 16 * header.runs.len()) as u64;
    let block = Block {
        data: shard.header_len,
        checksums,
        stride: 8,
    };
    Ok(SourceFile::new(shard.file, path, handle, vec![block]))
}

/// Applies a segment whose data begins at page `next` of its file. `None` if it is out of the index's reach.
fn apply_segment(header: &SegmentHeader, next: u64, slot: usize, index: &mut Index) -> Option<()> {
    Location::new(slot, next.checked_add(header.data.len() as u64)?)?;
    let data = header.data.iter().zip(next..);
    index.apply(data.map(|((page, _), offset)| (*page, Location::new(slot, offset))));
    index.apply(header.zeros.iter().map(|page| (*page, None)));
    Some(())
}

/// The error for a record at `offset` of `name` that doesn't decode.
pub(crate) fn record<S: Storage>(
    storage: &S,
    name: &str,
    offset: u64,
    source: DecodeError,
) -> OpenError {
    let path = storage.path().join(name);
    match source {
        DecodeError::NewerFormat { found } => OpenError::NewerFormat {
            path,
            offset,
            found,
        },
        source => OpenError::Record {
            path,
            offset,
            source,
        },
    }
}
