//! Whether a tenant's pages can be followed from outside: copied out of and
//! into another process, and watched by the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::launcher::{Cloned, clone};
use crate::layer::Probe;

const PAGE: usize = 4096;

/// Whether this process may copy out of and into the memory of the process
/// `pid`. Nothing is copied: both are tried where no process has memory.
///
/// # Errors
/// What the kernel says, as a rule `EPERM` (Yama, or another user's process) or
/// what a seccomp filter answers. Of a process that has ended nothing is
/// refused.
pub fn reach(pid: i32) -> io::Result<()> {
    let mut byte = 0u8;
    let local = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // The rights are looked at before the address (kernel:
    // mm/process_vm_access.c). The first page can't be mapped by an ordinary
    // process (vm.mmap_min_addr), and if it is, a zero is written there.
    let remote = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 1,
    };
    for write in [false, true] {
        // SAFETY: one local part of the size it names, alive through the call;
        // the remote part is the other process's, and can only fail.
        let moved = unsafe {
            match write {
                false => libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0),
                true => libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0),
            }
        };
        let error = io::Error::last_os_error();
        let allowed = matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ESRCH));
        if moved < 0 && !allowed {
            let call = ["process_vm_readv", "process_vm_writev"][usize::from(write)];
            return Err(io::Error::new(error.kind(), format!("{call}: {error}")));
        }
    }
    Ok(())
}

/// The same with a child of this process, which waits meanwhile.
pub fn reach_child() -> Probe {
    // SAFETY: the child only makes system calls.
    match unsafe { clone(0, None) } {
        Ok(Cloned::Child) => loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        },
        Ok(Cloned::Parent(pid, pidfd)) => {
            let reached = reach(pid);
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let by = WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd));
            let _ = rustix::process::waitid(by, WaitIdOptions::EXITED);
            match reached {
                Ok(()) => Probe::Works("process_vm_readv and process_vm_writev".into()),
                Err(error) => Probe::Missing(error.to_string()),
            }
        }
        Err(errno) => Probe::Missing(format!("a child to try it with: {errno}")),
    }
}

/// Two pages of this process, unmapped when dropped.
struct Pages(*mut u8);

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nobody refers to
        // it.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), 2 * PAGE) };
    }
}

/// Whether the kernel tells which pages were written: an unprivileged
/// userfaultfd protects two pages asynchronously, one is written, and
/// `PAGEMAP_SCAN` must find just that one.
pub fn kernel_tracker() -> Probe {
    match find_written() {
        Ok((1, true)) => Probe::Works("userfaultfd and PAGEMAP_SCAN find what was written".into()),
        Ok((pages, _)) => Probe::Missing(format!("one page was written, {pages} were found")),
        Err((step, error)) => Probe::Missing(format!("{step}: {error}")),
    }
}

/// How many pages were found, and whether the first of them is the right one.
fn find_written() -> Result<(u64, bool), (&'static str, io::Error)> {
    // kernel: include/uapi/linux/userfaultfd.h
    const USER_MODE_ONLY: libc::c_int = 1;
    const UFFDIO_API: libc::c_ulong = 0xC018_AA3F;
    const UFFDIO_REGISTER: libc::c_ulong = 0xC020_AA00;
    const MODE_WP: u64 = 1 << 1;
    const WP_ASYNC_AND_UNPOPULATED: u64 = 1 << 15 | 1 << 13;
    let last = |step| move || (step, io::Error::last_os_error());
    // SAFETY: a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) };
    let fd = i32::try_from(fd)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(last("userfaultfd"))?;
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // struct uffdio_api: api, features, ioctls.
    let mut api = [0xAA_u64, WP_ASYNC_AND_UNPOPULATED, 0];
    // SAFETY: a struct of the size that the number encodes.
    if unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) } != 0 {
        return Err(last("userfaultfd, asynchronous write-protection")());
    }
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let pages = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            2 * PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let pages = Pages(pages.map_err(|errno| ("mmap", errno.into()))?.cast());
    let start = pages.0 as u64;
    let end = start + 2 * PAGE as u64;
    // struct uffdio_register: start, length, mode, ioctls.
    let mut register = [start, end - start, MODE_WP, 0];
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_REGISTER, register.as_mut_ptr()) } != 0 {
        return Err(last("userfaultfd, registering pages")());
    }
    let pagemap =
        File::open("/proc/self/pagemap").map_err(|error| ("/proc/self/pagemap", error))?;
    let mut found = [[0u64; 3]; 2];
    let mut scan = |report: bool| {
        const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
        const WRITTEN: u64 = 1 << 1;
        let (length, mask) = if report { (2, WRITTEN) } else { (0, 0) };
        let vector = if report { found.as_mut_ptr() as u64 } else { 0 };
        // struct pm_scan_arg (kernel: include/uapi/linux/fs.h): size, flags
        // (WP_MATCHING, CHECK_WPASYNC), start, end, walk_end, vec, vec_len,
        // max_pages, inverted, mask, anyof_mask, return_mask.
        let mut argument = [96, 3, start, end, 0, vector, length, 0, 0, mask, 0, mask];
        // SAFETY: an argument of the size it names, whose vector is as long as
        // it says and outlives the call.
        unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, argument.as_mut_ptr()) }
    };
    if scan(false) < 0 {
        return Err(last("PAGEMAP_SCAN (Linux 6.7)")());
    }
    // SAFETY: inside the mapping just made, writable, and nobody refers to it.
    unsafe { pages.0.add(PAGE).write_volatile(1) };
    let regions = scan(true);
    if regions < 0 {
        return Err(last("PAGEMAP_SCAN (Linux 6.7)")());
    }
    let found = found.get(..regions as usize).unwrap_or_default();
    let count = found
        .iter()
        .map(|[from, to, _]| to.saturating_sub(*from) / PAGE as u64)
        .sum();
    let right = found
        .first()
        .is_some_and(|[from, _, _]| *from == start + PAGE as u64);
    Ok((count, right))
}
