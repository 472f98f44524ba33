//! A child that borrows this process's memory until it executes another
//! program (`CLONE_VM`, clone(2)), as posix_spawn(3) does.
//!
//! A copy of even a small process costs more than all the namespaces of a
//! worker: its page tables are copied, both sides fault on what they write
//! next, and exec takes the copy down again.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::futex;

/// Bytes of a borrower's stack. It makes a few dozen system calls.
const SIZE: usize = 64 << 10;
/// Bytes without access below it.
const GUARD: usize = 4 << 10;

/// A stack for one borrower at a time.
#[derive(Debug)]
pub struct Stack {
    bottom: NonNull<c_void>,
    /// Not zero while a borrower uses it; the kernel clears it.
    used: Box<AtomicU32>,
}

impl Stack {
    /// Maps one.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let bottom = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                GUARD + SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::STACK,
            )?
        };
        let stack = Self {
            bottom: NonNull::new(bottom).ok_or(Errno::NOMEM)?,
            used: Box::new(AtomicU32::new(0)),
        };
        // SAFETY: the lowest page of the mapping made above, which nobody uses.
        unsafe { rustix::mm::mprotect(bottom, GUARD, MprotectFlags::empty())? };
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and a borrower of it would hold
        // a reference to this value.
        let _ = unsafe { rustix::mm::munmap(self.bottom.as_ptr(), GUARD + SIZE) };
    }
}

/// A child that may still use this process's memory.
#[derive(Debug)]
pub struct Borrower<'a> {
    /// Its number in the caller's PID namespace.
    pub pid: i32,
    pidfd: OwnedFd,
    used: &'a AtomicU32,
}

impl<'a> Borrower<'a> {
    /// Starts a child with `flags` (namespaces) that runs `child(argument)` on
    /// `stack` and in this process's memory.
    ///
    /// # Safety
    /// `argument` must be what `child` expects, and stay so until the value
    /// returned is gone. Child and caller run at the same time with the same
    /// thread-local variables: `child` may make system calls only, without
    /// memory from the allocator, and must not return other than by
    /// executing a program or ending itself.
    pub unsafe fn start(
        flags: i32,
        stack: &'a mut Stack,
        child: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> Result<Self, Errno> {
        let mut pidfd: c_int = -1;
        let used = &*stack.used;
        used.store(1, Relaxed);
        // SAFETY: the stack's highest address, aligned to a page as the mapping
        // is; nobody uses it, as the borrower before held it until it was gone.
        // The kernel stores a descriptor to this frame before it returns, and
        // clears `used`, which lives as long as `stack`, when the child no
        // longer uses this memory. The rest is the caller's promise.
        let pid = unsafe {
            libc::clone(
                child,
                stack.bottom.as_ptr().byte_add(GUARD + SIZE),
                flags
                    | libc::CLONE_VM
                    | libc::CLONE_PIDFD
                    | libc::CLONE_CHILD_CLEARTID
                    | libc::SIGCHLD,
                argument,
                &raw mut pidfd,
                std::ptr::null_mut::<c_void>(),
                used.as_ptr(),
            )
        };
        if pid < 0 {
            let error = std::io::Error::last_os_error();
            used.store(0, Relaxed);
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL));
        }
        Ok(Self {
            pid,
            // SAFETY: the kernel has just stored a new descriptor there.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            used,
        })
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until it has executed another program or ended: its pidfd.
    pub fn wait(self) -> OwnedFd {
        self.until_gone();
        let this = ManuallyDrop::new(self);
        // SAFETY: read once, as `this` is neither used again nor dropped.
        unsafe { std::ptr::read(&raw const this.pidfd) }
    }

    fn until_gone(&self) {
        // The kernel clears the word and wakes as pthread_join(3) needs it
        // (`mm_release`, kernel: kernel/fork.c), never as a private futex.
        loop {
            match self.used.load(Acquire) {
                0 => return,
                value => {
                    let _ = futex::wait(self.used, futex::Flags::empty(), value, None);
                }
            }
        }
    }
}

impl Drop for Borrower<'_> {
    /// A borrower that nobody waited for is ended first.
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.until_gone();
        let _ = reap(&self.pidfd);
    }
}

/// Waits for the end of a child, so that nobody else sees it.
pub fn reap(pidfd: &OwnedFd) -> Result<(), Errno> {
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told {
        go: AtomicU32,
        heard: AtomicU32,
    }

    extern "C" fn hear(told: *mut c_void) -> c_int {
        // SAFETY: the tests pass a `Told` that outlives the borrower.
        let told = unsafe { &*told.cast::<Told>() };
        while told.go.load(Acquire) == 0 {
            let _ = futex::wait(&told.go, futex::Flags::empty(), 0, None);
        }
        told.heard.store(told.go.load(Acquire) + 1, Relaxed);
        // SAFETY: ends the child only.
        unsafe { libc::_exit(0) }
    }

    #[test]
    fn a_borrower_writes_to_its_parent_s_memory() {
        let mut stack = Stack::new().unwrap();
        for round in 1..4 {
            let mut told = Told {
                go: AtomicU32::new(0),
                heard: AtomicU32::new(0),
            };
            // SAFETY: `hear` expects a `Told`, which outlives the borrower.
            let borrower =
                unsafe { Borrower::start(0, &mut stack, hear, (&raw mut told).cast()) }.unwrap();
            assert!(borrower.pid > 0);
            told.go.store(round, Relaxed);
            futex::wake(&told.go, futex::Flags::empty(), 1).unwrap();
            let pidfd = borrower.wait();
            assert_eq!(told.heard.load(Acquire), round + 1);
            reap(&pidfd).unwrap();
        }
    }

    #[test]
    fn a_borrower_that_is_dropped_is_ended() {
        let mut stack = Stack::new().unwrap();
        let mut told = Told {
            go: AtomicU32::new(0),
            heard: AtomicU32::new(0),
        };
        // SAFETY: as above; it waits for ever and is ended while it does.
        let borrower =
            unsafe { Borrower::start(0, &mut stack, hear, (&raw mut told).cast()) }.unwrap();
        let pid = borrower.pid;
        drop(borrower);
        assert_eq!(told.heard.load(Acquire), 0);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
