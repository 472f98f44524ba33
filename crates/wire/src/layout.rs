//! Where everything lies in the shared file of one worker.
//!
//! ```text
//! 0x0000  control page: magic, version; each bell with its small messages; log counts
//! 0x1000  last words: why the worker is about to end itself
//! 0x2000  entered chunks of the heap, a bit each
//! 0x6000  entered chunks of the stable memory, a bit each
//! 0xa000  log area
//! ......  request area (host to worker)
//! ......  answer area (worker to host)
//! ......  written pages of the heap, a bit each
//! ......  written pages of the stable memory, a bit each
//! ......  transfer area (both ways)
//! ```
//!
//! Pages of the file exist only once somebody has touched them, so the areas
//! are sized for the largest message and cost nothing until one comes.

/// Bytes in a page; also the unit of tracking.
pub const PAGE: usize = 4096;
/// `"LAZWIRE1"`, little endian: the first eight bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LAZWIRE1");
/// Version of this layout and of the messages. Host and worker are the same
/// executable, so a mismatch means a wrong `worker_exe`.
pub const VERSION: u32 = 5;

/// Offset of [`MAGIC`].
pub const MAGIC_AT: usize = 0;
/// Offset of [`VERSION`] (u32).
pub const VERSION_AT: usize = 8;

/// How many chunks of both memories are entered (u32): lets the host skip the
/// bitmaps when nothing was ever written. A wrong number harms only the
/// tenant whose pages are missed. It changes seldom, so it shares no cache line
/// with a bell: the host reads it in every call.
pub const ENTERED: usize = 64;

/// Request bell (u32, futex word): the number of requests rung, wrapping.
/// Written by the host only.
pub const REQUEST_BELL: usize = 128;
/// Length of the request in bytes (u32); valid once its bell has rung.
pub const REQUEST_LEN: usize = 132;
/// 1 while the worker sleeps on the request bell (u32), so that the host can
/// save the system call when it doesn't.
pub const WORKER_SLEEPS: usize = 136;
/// 1 if the host has another request ready for when this one is answered (u32), so that
/// it is worth spinning for.
pub const MORE: usize = 140;
/// Where a request of at most [`INLINE`] bytes lies: behind its bell, so that it
/// comes with the cache lines that the worker looks at anyway. A larger one lies
/// in the request area.
pub const REQUEST_INLINE: usize = 144;

/// Answer bell (u32, futex word): the number of answers rung, wrapping.
/// Written by the worker only.
pub const ANSWER_BELL: usize = 512;
/// Length of the answer in bytes (u32).
pub const ANSWER_LEN: usize = 516;
/// 1 while a host thread sleeps on the answer bell (u32).
pub const HOST_SLEEPS: usize = 520;
/// Where an answer of at most [`INLINE`] bytes lies.
pub const ANSWER_INLINE: usize = 528;

/// The most bytes of a message that lies behind its bell.
pub const INLINE: usize = 368;

/// Bytes of log written since the last request (u32).
pub const LOG_LEN: usize = 896;
/// Log records that did not fit (u32).
pub const LOG_LOST: usize = 900;

/// Offset of the last words: kind (u32), length (u32), UTF-8 text.
pub const LAST_WORDS: usize = PAGE;
/// Bytes of the last-words page.
pub const LAST_WORDS_SIZE: usize = PAGE;

/// Bytes in a chunk of tenant memory under the kernel's tracking: what is
/// entered by the first write.
///
/// Entering costs one fault (5 to 10 µs), and every later call scans what is
/// entered (4 ns a page). Smaller chunks scan less where writes are scattered,
/// and need more mappings in the worker.
pub const CHUNK: usize = 512 << 10;
/// Pages in a chunk.
pub const CHUNK_PAGES: usize = CHUNK / PAGE;
/// Pages in a chunk under tracking by cards: as many as have their cards in one
/// page. What the first write enters is the page of cards.
pub const CARD_CHUNK_PAGES: usize = PAGE;
/// Offset of the bitmap of entered heap chunks.
pub const HEAP_CHUNKS: usize = 2 * PAGE;
/// Offset of the bitmap of entered stable-memory chunks.
pub const STABLE_CHUNKS: usize = HEAP_CHUNKS + CHUNKS_SIZE;
/// Bytes in each bitmap.
pub const CHUNKS_SIZE: usize = 4 * PAGE;
/// The most bytes of either memory: as many as its bitmap has chunks for.
pub const MAX_MEMORY: u64 = (CHUNKS_SIZE * 8 * CHUNK) as u64;

/// A run of at least so many pages is mapped from its file, unless there are too
/// many of them; a shorter one is copied into anonymous memory, as every mapping
/// costs the kernel an entry.
pub const MAP_RUN_PAGES: u64 = 16;
/// The most runs that a worker maps: the kernel allows 65,530 mappings a
/// process (`vm.max_map_count`), and every closed or opened chunk may split one.
pub const MAX_MAPPED_RUNS: usize = 4_000;

/// Offset of the log area.
pub const LOG: usize = STABLE_CHUNKS + CHUNKS_SIZE;
/// Bytes of the log area.
pub const LOG_SIZE: usize = 64 * PAGE;

/// Offset of the request area.
pub const REQUEST: usize = LOG + LOG_SIZE;
/// Bytes of the request area: the largest request.
pub const REQUEST_SIZE: usize = 4 << 20;
/// Offset of the answer area.
pub const ANSWER: usize = REQUEST + REQUEST_SIZE;
/// Bytes of the answer area: the largest answer.
pub const ANSWER_SIZE: usize = 4 << 20;

/// Offset of the bitmap of heap pages written in this call, under the signal
/// tracker. Only words of entered chunks mean anything.
pub const HEAP_PAGES: usize = ANSWER + ANSWER_SIZE;
/// Offset of the same of the stable memory.
pub const STABLE_PAGES: usize = HEAP_PAGES + PAGES_SIZE;
/// Bytes in each of these bitmaps.
pub const PAGES_SIZE: usize = CHUNKS_SIZE * CHUNK_PAGES;
/// The most separate runs of pages of one memory that are writable at a time
/// under the signal tracker. Each splits a mapping in three, and the kernel
/// allows 65,530 of them (`vm.max_map_count`).
pub const MAX_OPEN_RUNS: usize = 8192;
/// The most pages that the signal tracker opens at once because those before
/// them were written one after another.
pub const MAX_OPEN_AHEAD: usize = 16;

/// Offset of the transfer area: pages that the worker copies for the host.
pub const TRANSFER: usize = STABLE_PAGES + PAGES_SIZE;
/// Pages in the transfer area: as many as are copied in one round.
pub const TRANSFER_PAGES: usize = 256;
/// Bytes of the whole file.
pub const SIZE: usize = TRANSFER + TRANSFER_PAGES * PAGE;

/// The largest argument of a call, in bytes.
pub const MAX_ARGUMENT: usize = 2 << 20;
/// The largest reply of a call, in bytes.
pub const MAX_REPLY: usize = 2 << 20;
/// The longest method name, in bytes.
pub const MAX_METHOD: usize = 20_000;
/// The longest principal, in bytes (Internet Computer interface
/// specification, "Principals").
pub const MAX_PRINCIPAL: usize = 29;
/// The most mutable globals a tenant's module may have.
pub const MAX_GLOBALS: usize = 1_000;
/// The most descriptors handed over in one set-up message. The kernel's own
/// bound is 253 (`SCM_MAX_FD`, include/net/scm.h).
pub const MAX_DESCRIPTORS: usize = 128;

/// The most files of an image that one worker is given: each costs a descriptor
/// in the host and, until its lock, in the worker.
pub const MAX_FILES: usize = 4096;

const _: () = assert!(
    REQUEST.is_multiple_of(PAGE) && ANSWER.is_multiple_of(PAGE) && SIZE.is_multiple_of(PAGE)
);
const _: () = assert!(
    REQUEST_INLINE + INLINE <= ANSWER_BELL
        && ANSWER_INLINE + INLINE <= LOG_LEN
        && LOG_LOST < PAGE
        && REQUEST_INLINE.is_multiple_of(8)
        && ANSWER_INLINE.is_multiple_of(8)
);
const _: () = assert!(MAX_ARGUMENT + 128 * 1024 <= REQUEST_SIZE);
const _: () = assert!(MAX_REPLY + 128 * 1024 <= ANSWER_SIZE);
const _: () =
    assert!(HEAP_PAGES.is_multiple_of(PAGE) && PAGES_SIZE as u64 * 8 * PAGE as u64 == MAX_MEMORY);
// Both memories' open runs and the image's mappings, with room for the rest.
const _: () = assert!(2 * 2 * MAX_OPEN_RUNS + 2 * MAX_MAPPED_RUNS < 60_000);
