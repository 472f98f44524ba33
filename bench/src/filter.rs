//! What the filters of a worker cost a system call that they allow: one that is
//! allowed whatever its arguments are, which the kernel answers from a bitmap
//! (`seccomp_cache_check_allow`, kernel: kernel/seccomp.c), and one whose
//! arguments are looked at, for which it runs the filters.

use std::ptr::NonNull;
use std::time::Duration;

use lazaret::wall::layers::seccomp::{self, Denied, Filter};
use lazaret::wall::{Kind, policy};
use rustix::mm::{MapFlags, ProtFlags};

use crate::Options;
use crate::error::BenchError;
use crate::sample::Sample;
use crate::table::Row;

/// Calls in a row, timed together.
const BATCH: u32 = 1000;
/// Batches at most: as many times as a page holds.
const BATCHES: usize = 512;

/// A call that every worker may make, and that does nothing.
#[derive(Debug, Clone, Copy)]
enum Call {
    /// close(-1): any descriptor may be closed.
    Any,
    /// madvise(0, 0, MADV_DONTNEED): only this advice.
    Checked,
}

impl Call {
    fn make(self) {
        // SAFETY: a descriptor that nobody has; no memory at all.
        unsafe {
            match self {
                Self::Any => libc::syscall(libc::SYS_close, -1),
                Self::Checked => {
                    libc::syscall(libc::SYS_madvise, 0usize, 0usize, libc::MADV_DONTNEED)
                }
            }
        };
    }
}

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    for (key, what, call) in [
        (
            "filter/any",
            "system call that is allowed with any arguments",
            Call::Any,
        ),
        (
            "filter/checked",
            "system call whose arguments are checked",
            Call::Checked,
        ),
    ] {
        if options.wants(key) {
            progress("system calls behind the filters of a worker");
            rows.push(row(options, key, what, call)?);
        }
    }
    Ok(())
}

fn row(options: &Options, key: &str, what: &str, call: Call) -> Result<Row, BenchError> {
    let compiled = |kind| {
        seccomp::compile(&policy(kind), Denied::Kill)
            .map_err(|error| BenchError::system("compiling a filter")(std::io::Error::other(error)))
    };
    // As in a tenant's worker: one for its set-up, and the one that narrows it.
    let filters = [compiled(Kind::Launch)?, compiled(Kind::Tenant)?];
    let batches = options.times(BATCHES).min(BATCHES);
    let page = Page::map()?;
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    // In turns, a process each, as filters are there for good.
    for _ in 0..2 {
        measure(call, &[], &page, batches, &mut bare)?;
        measure(call, &filters, &page, batches, &mut ours)?;
    }
    Ok(Row::new(key, what, "ns")
        .ours(
            ours.len(),
            ours.quantiles(Duration::from_nanos(BATCH.into())),
        )
        .baseline(
            "the same without filters",
            bare.quantiles(Duration::from_nanos(BATCH.into())),
        )
        .note(format!(
            "medians of {BATCH} calls in a row; two filters, as in a tenant's worker"
        )))
}

/// A page that a child writes its times into.
struct Page(NonNull<u64>);

impl Page {
    fn map() -> Result<Self, BenchError> {
        let fail = BenchError::system("mapping a shared page");
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                BATCHES * size_of::<u64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        };
        match at.map(|at| NonNull::new(at.cast())) {
            Ok(Some(at)) => Ok(Self(at)),
            Ok(None) => Err(fail(std::io::ErrorKind::Other.into())),
            Err(errno) => Err(fail(errno.into())),
        }
    }

    fn set(&self, index: usize, time: u64) {
        if index < BATCHES {
            // SAFETY: inside of the page, aligned; the parent reads it when this
            // process has ended.
            unsafe { self.0.as_ptr().add(index).write_volatile(time) };
        }
    }

    fn get(&self, index: usize) -> u64 {
        match index < BATCHES {
            // SAFETY: inside of the page, aligned; who wrote it has ended.
            true => unsafe { self.0.as_ptr().add(index).read_volatile() },
            false => 0,
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length; nobody borrows it.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), BATCHES * size_of::<u64>()) };
    }
}

/// Times batches of calls in a child behind these filters.
fn measure(
    call: Call,
    filters: &[Filter],
    page: &Page,
    batches: usize,
    sample: &mut Sample,
) -> Result<(), BenchError> {
    // SAFETY: the child makes system calls only, and ends by one.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(BenchError::system("fork")(std::io::Error::last_os_error()));
    }
    if pid == 0 {
        let code = child(call, filters, page, batches);
        // SAFETY: ends this process without running anything else of it.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a place on this stack to write to, and a child of this process.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(BenchError::system("waiting for a child")(error));
        }
    }
    if !(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0) {
        return Err(BenchError::system("system calls behind filters")(
            std::io::Error::other(format!(
                "the child ended with status {status:#x}; where the vDSO has no clock, its filter refuses to read one"
            )),
        ));
    }
    for index in 0..batches {
        sample.push(Duration::from_nanos(page.get(index)));
    }
    Ok(())
}

fn child(call: Call, filters: &[Filter], page: &Page, batches: usize) -> i32 {
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return 1;
    }
    if filters.iter().any(|filter| seccomp::load(filter).is_err()) {
        return 1;
    }
    for index in 0..batches {
        let begin = std::time::Instant::now();
        for _ in 0..BATCH {
            call.make();
        }
        page.set(index, begin.elapsed().as_nanos() as u64);
    }
    0
}
