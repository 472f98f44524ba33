//! Copying a memory out of a worker, without the pages that are zero.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use lazaret_wire::layout::PAGE;
use lazaret_wire::message::snapshot::MAX_SNAPSHOT_RUNS;
use lazaret_wire::message::{Initialised, PageRun, Ready, Region};

use crate::memory::WorkerMemory;
use crate::sealed::{memfd, seal};

/// Bytes in a page of WebAssembly.
pub(super) const WASM_PAGE: u64 = 64 << 10;

/// Pages that are copied at once.
const PIECE: u64 = 256;

/// Zero pages between two others that are kept rather than left out: a mapping
/// more costs the worker about as much as a few pages in a file.
const BRIDGE: u64 = 16;

const ZERO: [u8; PAGE] = [0; PAGE];

/// The runs of pages of a memory, as they are found in address order.
struct Runs {
    runs: Vec<PageRun>,
    /// Fewer zero pages than this don't part a run.
    bridge: u64,
    file: File,
}

/// Copies the memory of the worker `pid`, which must wait meanwhile, into a
/// sealed memfd: where its pages belong, and the pages.
pub(super) fn copy(pid: i32, left: &Initialised) -> io::Result<(Vec<PageRun>, OwnedFd)> {
    let implausible = || cache_error("the worker's memory can't be where it says");
    let memory = WorkerMemory::new(
        pid,
        &Ready {
            heap_at: left.memory_at,
            stable_at: 0,
            cards_at: [0; 2],
            missing: Vec::new(),
        },
    )
    .ok_or_else(implausible)?;
    let file = memfd()?;
    let total = left.memory / PAGE as u64;
    let mut runs = Runs {
        runs: Vec::new(),
        bridge: bridge(total),
        file: File::from(file.try_clone()?),
    };
    let mut buffer = vec![0; PIECE as usize * PAGE];
    let mut first = 0;
    while first < total {
        let pages: Vec<(Region, u64)> = (first..total.min(first + PIECE))
            .map(|page| (Region::Heap, page))
            .collect();
        let bytes = buffer
            .get_mut(..pages.len() * PAGE)
            .ok_or_else(implausible)?;
        memory.read(&pages, bytes)?;
        for (&(_, page), bytes) in pages.iter().zip(bytes.chunks_exact(PAGE)) {
            if bytes != ZERO {
                runs.add(page, bytes)?;
            }
        }
        first += PIECE;
    }
    Ok((runs.runs, seal(&file)?))
}

fn cache_error(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The fewest zero pages that part two runs in a memory of so many pages, so
/// that there are never more runs than a snapshot may have.
fn bridge(total: u64) -> u64 {
    BRIDGE.max(total / (MAX_SNAPSHOT_RUNS as u64 - 1) + 1)
}

impl Runs {
    /// Adds a page that is not zero, and lies after all before.
    fn add(&mut self, page: u64, bytes: &[u8]) -> io::Result<()> {
        match self.runs.last_mut() {
            Some(run) if page - (run.first + run.pages) < self.bridge => {
                for _ in run.first + run.pages..page {
                    self.file.write_all(&ZERO)?;
                }
                run.pages = page - run.first + 1;
            }
            _ => self.runs.push(PageRun {
                first: page,
                pages: 1,
            }),
        }
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// This process stands in for a worker.
    fn copied(pages: usize, written: &[usize]) -> (Vec<PageRun>, Vec<u8>) {
        let mut memory = vec![0u8; (pages + 1) * PAGE];
        let start = memory.as_ptr() as usize;
        let skip = start.next_multiple_of(PAGE) - start;
        for &page in written {
            memory[skip + page * PAGE + page % PAGE] = 1 + (page % 255) as u8;
        }
        let (runs, file) = copy(
            std::process::id() as i32,
            &Initialised {
                memory_at: (start + skip) as u64,
                memory: (pages * PAGE) as u64,
                globals: Vec::new(),
            },
        )
        .unwrap();
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).unwrap();
        let mut back = vec![0; pages * PAGE];
        let mut offset = 0;
        for run in &runs {
            let length = run.pages as usize * PAGE;
            back[run.first as usize * PAGE..][..length]
                .copy_from_slice(&bytes[offset..offset + length]);
            offset += length;
        }
        assert_eq!(offset, bytes.len());
        assert_eq!(back, memory[skip..skip + pages * PAGE]);
        (runs, bytes)
    }

    #[test]
    fn pages_come_back_where_they_were_and_zeros_are_left_out() {
        assert_eq!(copied(64, &[]).0, []);
        assert_eq!(copied(64, &[0, 63]).1.len(), 2 * PAGE);
        // Short gaps are kept.
        let (runs, _) = copied(640, &[3, 4, 19, 400, 639]);
        let runs: Vec<_> = runs.iter().map(|run| (run.first, run.pages)).collect();
        assert_eq!(runs, [(3, 17), (400, 1), (639, 1)]);
    }

    #[test]
    fn no_memory_has_too_many_runs() {
        let every: Vec<usize> = (0..60_000).step_by(17).collect();
        assert!(copied(60_000, &every).0.len() <= MAX_SNAPSHOT_RUNS);
    }

    #[test]
    fn a_memory_that_is_not_there_is_an_error() {
        let left = |memory_at| Initialised {
            memory_at,
            memory: WASM_PAGE,
            globals: Vec::new(),
        };
        let pid = std::process::id() as i32;
        for at in [0, 1, u64::MAX - 4095, 1 << 47] {
            assert!(copy(pid, &left(at)).is_err(), "{at:#x}");
        }
    }
}
