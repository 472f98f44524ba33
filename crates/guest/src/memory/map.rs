//! Bringing an image into the memories: long runs of pages are mapped, short
//! ones copied.

use std::os::fd::{AsFd, OwnedFd};

use lazaret_wire::layout;
use lazaret_wire::message::{Region as Kind, Run};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::region::Region;
use super::scatter;
use super::{MemoryError, system};

const PAGE: u64 = layout::PAGE as u64;

/// Turns transparent huge pages off in this process: with them, one written
/// byte is 512 written pages.
pub(super) fn disable_huge_pages() -> Result<(), MemoryError> {
    // SAFETY: this prctl changes a flag of the process and takes no pointer.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(MemoryError::System {
            step: "prctl(PR_SET_THP_DISABLE)",
            source: std::io::Error::last_os_error(),
        }),
    }
}

/// Puts the image's pages in place. Everything is checked before anything is
/// mapped; what is loaded is read-only afterwards. Runs of at least `map_from`
/// pages are mapped.
pub(super) fn load(
    memories: [&Region; 2],
    runs: &[Run],
    map_from: u64,
    files: &[OwnedFd],
) -> Result<(), MemoryError> {
    let is_mapped = |run: &Run| run.pages >= map_from;
    let mut lengths = Vec::with_capacity(files.len());
    for file in files {
        lengths.push(
            rustix::fs::fstat(file)
                .map_err(system("stat of an image file"))?
                .st_size as u64,
        );
    }
    for (index, run) in runs.iter().enumerate() {
        check(run, memory(memories, run), &lengths)
            .map_err(|reason| refused(index, run, reason))?;
    }
    let mapped = runs.iter().filter(|run| is_mapped(run)).count();
    if mapped > layout::MAX_MAPPED_RUNS {
        return Err(MemoryError::Runs {
            runs: mapped,
            least: map_from,
        });
    }
    if mapped < runs.len() {
        for memory in memories {
            let flags = MprotectFlags::READ | MprotectFlags::WRITE;
            memory
                .protect(0, memory.size(), flags)
                .map_err(system("mprotect for the image"))?;
        }
    }
    for (index, run) in runs.iter().enumerate() {
        let file = files
            .get(usize::from(run.file))
            .ok_or_else(|| refused(index, run, NO_FILE))?;
        if is_mapped(run) {
            let memory = memory(memories, run);
            map(run, memory, file).map_err(system("mmap of a run"))?;
            memory
                .prime(run.first_page * PAGE)
                .map_err(system("mprotect of a run's first page"))?;
        }
    }
    let mut short: Vec<(&Run, &Region)> = runs
        .iter()
        .filter(|run| !is_mapped(run))
        .map(|run| (run, memory(memories, run)))
        .collect();
    scatter::read(&mut short, files).map_err(system("read of a run"))?;
    for memory in memories {
        memory
            .protect(0, memory.size(), memory.closed())
            .map_err(system("mprotect of the image"))?;
    }
    Ok(())
}

const NO_FILE: &str = "there is no such file";

fn memory<'a>([heap, stable]: [&'a Region; 2], run: &Run) -> &'a Region {
    match run.region {
        Kind::Heap => heap,
        Kind::Stable => stable,
    }
}

fn refused(index: usize, run: &Run, reason: &'static str) -> MemoryError {
    MemoryError::Run {
        index,
        first_page: run.first_page,
        pages: run.pages,
        file: run.file,
        offset: run.offset,
        reason,
    }
}

fn check(run: &Run, memory: &Region, lengths: &[u64]) -> Result<(), &'static str> {
    let end = run
        .first_page
        .checked_add(run.pages)
        .and_then(|page| page.checked_mul(PAGE));
    if run.pages == 0 || end.is_none_or(|end| end > memory.size()) {
        return Err("it is empty or beyond the memory");
    }
    if !run.offset.is_multiple_of(PAGE) {
        return Err("its place in the file is not a multiple of 4096");
    }
    let length = *lengths.get(usize::from(run.file)).ok_or(NO_FILE)?;
    // Beyond its file a mapping raises SIGBUS.
    let end = run.offset.checked_add(run.pages * PAGE);
    if end.is_none_or(|end| end > length) {
        return Err("it is beyond the end of its file");
    }
    Ok(())
}

fn map(run: &Run, memory: &Region, file: &OwnedFd) -> Result<(), Errno> {
    let (from, length) = (run.first_page * PAGE, run.pages * PAGE);
    let at = memory
        .pointer(from, length, memory.size())
        .ok_or(Errno::INVAL)?;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: replaces pages of the region's own mapping (checked), to which
    // there are no references; the mapping is private, so the file can't be
    // changed through it, and the host never changes an image's file.
    let mapped = unsafe {
        rustix::mm::mmap(
            at.as_ptr().cast(),
            length as usize,
            ProtFlags::READ,
            flags,
            file.as_fd(),
            run.offset,
        )
    };
    mapped.map(drop)
}
