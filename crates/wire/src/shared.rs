//! The shared memory file of one worker, and both sides' view of it.
//!
//! The file is a memfd sealed against shrinking and growing before anybody
//! else sees it, so that neither side can make the other's access fault
//! (memfd_create(2), `F_SEAL_SHRINK`). Every shared byte is read and written
//! with relaxed atomics: the peer may write at any moment, and a data race
//! must not be undefined behaviour here whatever it is there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use thiserror::Error;

use crate::layout;

/// Why a shared file can't be made or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The kernel refused a step.
    #[error("shared memory: {step}: {source}")]
    System {
        /// The step.
        step: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The file is not one of ours.
    #[error(
        "shared memory: the file has {found} bytes, not {expected}; the worker executable is of another version"
    )]
    Size {
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The file lacks its seals.
    #[error("shared memory: the file is not sealed against shrinking and growing")]
    Unsealed,
    /// Magic or version differ.
    #[error("shared memory: magic {magic:#x} version {version}, expected version {expected}; the worker executable is of another version", expected = layout::VERSION)]
    Version {
        /// Magic found.
        magic: u64,
        /// Version found.
        version: u32,
    },
    /// A length in shared memory is over its area.
    #[error("shared memory: the {area} area holds {length} bytes, over its size of {size}")]
    Length {
        /// The area.
        area: &'static str,
        /// The length found.
        length: usize,
        /// The size of the area.
        size: usize,
    },
}

fn system(step: &'static str) -> impl Fn(rustix::io::Errno) -> SharedError {
    move |errno| SharedError::System {
        step,
        source: errno.into(),
    }
}

/// Creates the sealed file of one worker.
pub fn create() -> Result<OwnedFd, SharedError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // `MFD_NOEXEC_SEAL` came with Linux 6.3; before it there is nothing to ask.
    let file = rustix::fs::memfd_create("lazaret-wire", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("lazaret-wire", flags))
        .map_err(system("memfd_create"))?;
    rustix::fs::ftruncate(&file, layout::SIZE as u64).map_err(system("ftruncate"))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(system("seal"))?;
    let shared = Shared::map_unchecked(file.as_fd())?;
    shared.u64(layout::MAGIC_AT).store(layout::MAGIC, Relaxed);
    shared
        .u32(layout::VERSION_AT)
        .store(layout::VERSION, Relaxed);
    Ok(file)
}

/// Where the messages of one direction lie.
struct Place {
    area: &'static str,
    len: usize,
    inline: usize,
    at: usize,
    size: usize,
}

const REQUEST: Place = Place {
    area: "request",
    len: layout::REQUEST_LEN,
    inline: layout::REQUEST_INLINE,
    at: layout::REQUEST,
    size: layout::REQUEST_SIZE,
};
const ANSWER: Place = Place {
    area: "answer",
    len: layout::ANSWER_LEN,
    inline: layout::ANSWER_INLINE,
    at: layout::ANSWER,
    size: layout::ANSWER_SIZE,
};

impl Place {
    /// The offset of a message of this length.
    fn of(&self, length: usize) -> Result<usize, SharedError> {
        match length {
            0..=layout::INLINE => Ok(self.inline),
            _ if length <= self.size => Ok(self.at),
            _ => Err(SharedError::Length {
                area: self.area,
                length,
                size: self.size,
            }),
        }
    }
}

/// A mapping of the shared file.
#[derive(Debug)]
pub struct Shared {
    base: NonNull<u8>,
    /// Bytes of canary pages on each side.
    canaries: usize,
}

// SAFETY: the mapping belongs to this value until it is dropped, and all access
// to it is by atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps a file made by [`create`], after a look at its size, seals, magic
    /// and version.
    pub fn map(file: BorrowedFd<'_>) -> Result<Self, SharedError> {
        Self::checked(file, Self::map_unchecked)
    }

    /// The same between two canary pages, which nobody may touch: whoever runs
    /// past an end of the mapping in a worker is found out.
    pub fn map_between_canaries(file: BorrowedFd<'_>) -> Result<Self, SharedError> {
        Self::checked(file, Self::map_guarded)
    }

    fn checked(
        file: BorrowedFd<'_>,
        map: fn(BorrowedFd<'_>) -> Result<Self, SharedError>,
    ) -> Result<Self, SharedError> {
        let found = rustix::fs::fstat(file).map_err(system("stat"))?.st_size as u64;
        if found != layout::SIZE as u64 {
            return Err(SharedError::Size {
                found,
                expected: layout::SIZE as u64,
            });
        }
        let seals = rustix::fs::fcntl_get_seals(file).map_err(system("get seals"))?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(SharedError::Unsealed);
        }
        let shared = map(file)?;
        let magic = shared.u64(layout::MAGIC_AT).load(Relaxed);
        let version = shared.u32(layout::VERSION_AT).load(Relaxed);
        if magic != layout::MAGIC || version != layout::VERSION {
            return Err(SharedError::Version { magic, version });
        }
        Ok(shared)
    }

    fn map_unchecked(file: BorrowedFd<'_>) -> Result<Self, SharedError> {
        // SAFETY: a fresh mapping at an address of the kernel's choice, over
        // nothing of ours.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                layout::SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .map_err(system("mmap"))?;
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self { base, canaries: 0 }),
            None => Err(SharedError::System {
                step: "mmap",
                source: io::ErrorKind::Other.into(),
            }),
        }
    }

    fn map_guarded(file: BorrowedFd<'_>) -> Result<Self, SharedError> {
        const CANARY: usize = layout::PAGE;
        // SAFETY: a fresh reservation at an address of the kernel's choice.
        let reserved = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                layout::SIZE + 2 * CANARY,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(system("reserve"))?;
        // SAFETY: over the middle of the reservation above, which is nobody's.
        let base = unsafe {
            rustix::mm::mmap(
                reserved.cast::<u8>().add(CANARY).cast(),
                layout::SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                file,
                0,
            )
        }
        .map_err(system("mmap"))?;
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self {
                base,
                canaries: CANARY,
            }),
            None => Err(SharedError::System {
                step: "mmap",
                source: io::ErrorKind::Other.into(),
            }),
        }
    }

    /// Whether an address is in a canary page beside the mapping.
    pub fn is_canary(&self, address: usize) -> bool {
        let (begin, end) = (self.address(), self.address() + layout::SIZE);
        (begin - self.canaries..begin).contains(&address)
            || (end..end + self.canaries).contains(&address)
    }

    /// Where the mapping begins in this process.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// The word at `at`.
    ///
    /// # Panics
    /// If `at` is not a multiple of four inside the file. All callers pass
    /// constants of [`layout`].
    pub fn u32(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at <= layout::SIZE - 4);
        // SAFETY: inside the mapping (asserted) and aligned (asserted; the base
        // is page-aligned), and the mapping outlives the borrow of self.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The 64-bit word at `at`.
    ///
    /// # Panics
    /// If `at` is not a multiple of eight inside the file.
    pub fn u64(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at <= layout::SIZE - 8);
        // SAFETY: as in `u32`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    fn u8(&self, at: usize) -> &AtomicU8 {
        assert!(at < layout::SIZE);
        // SAFETY: as in `u32`; a byte is always aligned.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }

    /// Copies `bytes` to offset `at` (a multiple of eight).
    ///
    /// # Panics
    /// If the range is not inside the file: callers check the length first.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(at <= layout::SIZE && bytes.len() <= layout::SIZE - at);
        let (words, rest) = bytes.as_chunks::<8>();
        for (i, word) in words.iter().enumerate() {
            self.u64(at + i * 8)
                .store(u64::from_ne_bytes(*word), Relaxed);
        }
        let tail = at + words.len() * 8;
        for (i, byte) in rest.iter().enumerate() {
            self.u8(tail + i).store(*byte, Relaxed);
        }
    }

    /// Copies `length` bytes from offset `at` (a multiple of eight) into
    /// `out`, replacing what it holds.
    ///
    /// # Panics
    /// If the range is not inside the file: callers check the length first.
    pub fn copy_out(&self, at: usize, length: usize, out: &mut Vec<u8>) {
        assert!(at <= layout::SIZE && length <= layout::SIZE - at);
        out.resize(length, 0);
        self.copy_out_to(at, out);
    }

    /// Fills `out` with the bytes from offset `at` (a multiple of eight) on.
    ///
    /// # Panics
    /// If the range is not inside the file: callers check the length first.
    pub fn copy_out_to(&self, at: usize, out: &mut [u8]) {
        assert!(at <= layout::SIZE && out.len() <= layout::SIZE - at);
        let (words, rest) = out.as_chunks_mut::<8>();
        let tail = at + words.len() * 8;
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.u64(at + i * 8).load(Relaxed).to_ne_bytes();
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            *byte = self.u8(tail + i).load(Relaxed);
        }
    }

    /// Puts a request where it belongs. Its bell must be rung to send it.
    pub fn put_request(&self, bytes: &[u8]) -> Result<(), SharedError> {
        self.put(&REQUEST, bytes)
    }

    /// Copies the request out.
    pub fn take_request(&self, out: &mut Vec<u8>) -> Result<(), SharedError> {
        self.take(&REQUEST, out)
    }

    /// Puts an answer where it belongs. Its bell must be rung to send it.
    pub fn put_answer(&self, bytes: &[u8]) -> Result<(), SharedError> {
        self.put(&ANSWER, bytes)
    }

    /// Copies the answer out, once.
    pub fn take_answer(&self, out: &mut Vec<u8>) -> Result<(), SharedError> {
        self.take(&ANSWER, out)
    }

    fn put(&self, place: &Place, bytes: &[u8]) -> Result<(), SharedError> {
        self.copy_in(place.of(bytes.len())?, bytes);
        self.u32(place.len).store(bytes.len() as u32, Relaxed);
        Ok(())
    }

    fn take(&self, place: &Place, out: &mut Vec<u8>) -> Result<(), SharedError> {
        // Read once: what it says the second time may be something else.
        let length = self.u32(place.len).load(Relaxed) as usize;
        self.copy_out(place.of(length)?, length, out);
        Ok(())
    }

    /// Appends a log record (length, then bytes), or counts it as lost.
    pub fn log(&self, record: &[u8]) {
        let used = (self.u32(layout::LOG_LEN).load(Relaxed) as usize).next_multiple_of(8);
        let needed = 8 + record.len();
        if used > layout::LOG_SIZE || needed > layout::LOG_SIZE - used {
            let lost = self.u32(layout::LOG_LOST);
            lost.store(lost.load(Relaxed).saturating_add(1), Relaxed);
            return;
        }
        self.u64(layout::LOG + used)
            .store(record.len() as u64, Relaxed);
        self.copy_in(layout::LOG + used + 8, record);
        self.u32(layout::LOG_LEN)
            .store((used + needed) as u32, Relaxed);
    }

    /// Copies out all log records and how many were lost, and empties the log.
    /// A record with a wild length ends the list.
    pub fn take_log(&self) -> (Vec<Vec<u8>>, u32) {
        let used = (self.u32(layout::LOG_LEN).load(Relaxed) as usize).min(layout::LOG_SIZE);
        if used == 0 && self.u32(layout::LOG_LOST).load(Relaxed) == 0 {
            return (Vec::new(), 0);
        }
        let mut bytes = Vec::new();
        self.copy_out(layout::LOG, used, &mut bytes);
        let lost = self.u32(layout::LOG_LOST).swap(0, Relaxed);
        self.u32(layout::LOG_LEN).store(0, Relaxed);
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((head, body)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*head);
            let Some(record) = usize::try_from(length).ok().and_then(|n| body.get(..n)) else {
                break;
            };
            records.push(record.to_vec());
            rest = body
                .get(record.len().next_multiple_of(8)..)
                .unwrap_or_default();
        }
        (records, lost)
    }

    /// Writes why this worker is about to end itself. Async-signal-safe: no
    /// allocation, no lock.
    pub fn put_last_words(&self, kind: u32, text: &[u8]) {
        let room = layout::LAST_WORDS_SIZE - 8;
        let text = &text[..text.len().min(room)];
        self.copy_in(layout::LAST_WORDS + 8, text);
        self.u32(layout::LAST_WORDS + 4)
            .store(text.len() as u32, Relaxed);
        self.u32(layout::LAST_WORDS).store(kind, Relaxed);
    }

    /// The last words: their kind (0 if there are none) and text.
    pub fn take_last_words(&self) -> (u32, String) {
        let kind = self.u32(layout::LAST_WORDS).load(Relaxed);
        let length = self.u32(layout::LAST_WORDS + 4).load(Relaxed) as usize;
        let mut text = Vec::new();
        self.copy_out(
            layout::LAST_WORDS + 8,
            length.min(layout::LAST_WORDS_SIZE - 8),
            &mut text,
        );
        (kind, String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let size = layout::SIZE + 2 * self.canaries;
        // SAFETY: the mapping was made with this size, its canaries on both
        // sides, and every borrow of it ends with self.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().sub(self.canaries).cast(), size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Shared, Shared) {
        let file = create().unwrap();
        (
            Shared::map(file.as_fd()).unwrap(),
            Shared::map(file.as_fd()).unwrap(),
        )
    }

    #[test]
    fn what_one_side_puts_the_other_takes() {
        let (host, worker) = pair();
        let mut out = vec![1, 2, 3];
        // Small ones lie behind their bell, larger ones in their area, and
        // neither reaches into what lies next to it.
        for length in [0, 1, layout::INLINE, layout::INLINE + 1, 1037] {
            let message: Vec<u8> = (0..length).map(|i| i as u8 | 1).collect();
            host.put_request(&message).unwrap();
            worker.take_request(&mut out).unwrap();
            assert_eq!(out, message);
            worker.put_answer(&message).unwrap();
            host.take_answer(&mut out).unwrap();
            assert_eq!(out, message);
        }
        for word in [
            layout::REQUEST_BELL,
            layout::ANSWER_BELL,
            layout::LOG_LEN,
            layout::LOG_LOST,
        ] {
            assert_eq!(host.u32(word).load(Relaxed), 0);
        }
    }

    #[test]
    fn a_length_over_the_area_is_refused() {
        let (host, worker) = pair();
        worker.u32(layout::ANSWER_LEN).store(u32::MAX, Relaxed);
        let refused = host.take_answer(&mut Vec::new());
        assert!(
            matches!(refused, Err(SharedError::Length { area: "answer", .. })),
            "{refused:?}"
        );
        let refused = host.put_request(&vec![0; layout::REQUEST_SIZE + 1]);
        assert!(
            matches!(
                refused,
                Err(SharedError::Length {
                    area: "request",
                    ..
                })
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn the_file_can_be_neither_shrunk_nor_grown_nor_resealed() {
        let file = create().unwrap();
        assert!(rustix::fs::ftruncate(&file, 0).is_err());
        assert!(rustix::fs::ftruncate(&file, layout::SIZE as u64 * 2).is_err());
        assert!(rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        let file = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, layout::SIZE as u64).unwrap();
        assert!(matches!(
            Shared::map(file.as_fd()),
            Err(SharedError::Unsealed)
        ));
        rustix::fs::ftruncate(&file, 10).unwrap();
        assert!(matches!(
            Shared::map(file.as_fd()),
            Err(SharedError::Size { found: 10, .. })
        ));
    }

    #[test]
    fn log_records_come_out_in_order_and_lost_ones_are_counted() {
        let (host, worker) = pair();
        worker.log(b"one");
        worker.log(b"");
        worker.log(&vec![b'x'; layout::LOG_SIZE]);
        worker.log(b"three");
        let (records, lost) = host.take_log();
        assert_eq!(records, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
        assert_eq!(lost, 1);
        assert_eq!(host.take_log(), (vec![], 0));
    }

    #[test]
    fn a_wild_log_never_panics() {
        let (host, worker) = pair();
        worker.log(b"one");
        worker.u64(layout::LOG).store(u64::MAX, Relaxed);
        worker.u32(layout::LOG_LEN).store(u32::MAX, Relaxed);
        assert_eq!(host.take_log().0, Vec::<Vec<u8>>::new());
        worker.u32(layout::LOG_LEN).store(u32::MAX, Relaxed);
        worker.log(b"dropped");
        assert_eq!(worker.u32(layout::LOG_LOST).load(Relaxed), 1);
    }

    #[test]
    fn last_words_are_bounded() {
        let (host, worker) = pair();
        assert_eq!(host.take_last_words(), (0, String::new()));
        worker.put_last_words(3, &[b'a'; 10_000]);
        let (kind, text) = host.take_last_words();
        assert_eq!((kind, text.len()), (3, layout::LAST_WORDS_SIZE - 8));
        worker.u32(layout::LAST_WORDS + 4).store(u32::MAX, Relaxed);
        assert_eq!(host.take_last_words().1.len(), layout::LAST_WORDS_SIZE - 8);
    }
}
