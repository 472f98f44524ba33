//! A child that borrows this process's memory until it executes another
//! program (`CLONE_VM`, clone(2)), as posix_spawn(3) does.
//!
//! A copy of even a small process costs more than all the namespaces of a
//! worker: its page tables are copied, both sides fault on what they write
//! next, and exec takes the copy down again.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::futex;

use super::clone::{CloneArgs, INTO_CGROUP};

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
    /// Whether it began in the control group that was given.
    pub into: bool,
    pidfd: OwnedFd,
    used: &'a AtomicU32,
}

impl<'a> Borrower<'a> {
    /// Starts a child with `flags` (namespaces) that runs `child(argument)` on
    /// `stack` and in this process's memory, and begins in the control group
    /// `into` where the kernel can and may: not before Linux 5.7, nor where a filter
    /// knows no `clone3`, nor in a group that this user may not enter.
    ///
    /// # Safety
    /// `argument` must be what `child` expects, and stay so until the value
    /// returned is gone. Child and caller run at the same time with the same
    /// thread-local variables: `child` may make system calls only, without
    /// memory from the allocator, and must not return other than by
    /// executing a program or ending itself.
    pub unsafe fn start(
        flags: i32,
        into: Option<BorrowedFd<'_>>,
        stack: &'a mut Stack,
        child: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> Result<Self, Errno> {
        let mut pidfd: c_int = -1;
        let used = &*stack.used;
        used.store(1, Relaxed);
        let flags = flags | libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
        if let Some(into) = into {
            let mut args = CloneArgs {
                flags: flags as u32 as u64 | INTO_CGROUP,
                pidfd: &raw mut pidfd as u64,
                child_tid: used.as_ptr() as u64,
                exit_signal: libc::SIGCHLD as u64,
                stack: stack.bottom.as_ptr() as u64 + GUARD as u64,
                stack_size: SIZE as u64,
                cgroup: into.as_raw_fd() as u64,
                ..CloneArgs::default()
            };
            // SAFETY: the stack's whole usable part; the rest as below.
            let pid = unsafe { clone3_with_stack(&mut args, child, argument) };
            if let Ok(pid @ 1..) = i32::try_from(pid) {
                return Ok(Self {
                    pid,
                    into: true,
                    // SAFETY: the kernel has just stored a new descriptor there.
                    pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
                    used,
                });
            }
        }
        // SAFETY: the stack's highest address, aligned to a page as the mapping
        // is; nobody uses it, as the borrower before held it until it was gone.
        // The kernel stores a descriptor to this frame before it returns, and
        // clears `used`, which lives as long as `stack`, when the child no
        // longer uses this memory. The rest is the caller's promise.
        let pid = unsafe {
            libc::clone(
                child,
                stack.bottom.as_ptr().byte_add(GUARD + SIZE),
                flags | libc::SIGCHLD,
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
            into: false,
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

/// `clone3` for a child on another stack, which the C library has no function for:
/// the child's number, or the kernel's error as a negative number.
///
/// # Safety
/// `args` describes a stack that nobody uses and has `CLONE_VM`; `child` expects
/// `argument` and never returns.
unsafe fn clone3_with_stack(
    args: &mut CloneArgs,
    child: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> i64 {
    let mut result: i64;
    // SAFETY: the parent goes on behind the system call with all registers but
    // the listed ones as they were. The child begins there on its own stack, whose
    // top is aligned to a page, with zero as the result: it calls `child`, which
    // doesn't return, and stores nothing on the parent's stack.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {child}",
            "ud2",
            "2:",
            child = in(reg) child,
            argument = in(reg) argument,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_mut(args),
            in("rsi") size_of::<CloneArgs>(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, {argument}",
            "blr {child}",
            "brk 1",
            "2:",
            child = in(reg) child,
            argument = in(reg) argument,
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_mut(args) as i64 => result,
            in("x1") size_of::<CloneArgs>(),
        );
    }
    result
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
                unsafe { Borrower::start(0, None, &mut stack, hear, (&raw mut told).cast()) }
                    .unwrap();
            assert!(borrower.pid > 0);
            told.go.store(round, Relaxed);
            futex::wake(&told.go, futex::Flags::empty(), 1).unwrap();
            let pidfd = borrower.wait();
            assert_eq!(told.heard.load(Acquire), round + 1);
            reap(&pidfd).unwrap();
        }
    }

    #[test]
    fn a_borrower_begins_in_a_group_where_it_may_and_without_one_elsewhere() {
        use std::os::fd::OwnedFd;
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let unified = crate::cgroup::hierarchies(&mountinfo, &own)
            .into_iter()
            .find(|one| one.version == crate::cgroup::Version::V2)
            // A group with processes of its own can only have groups below it that
            // have no controllers, or be the root.
            .map(|one| one.own.join(format!("lazaret-test-{}", std::process::id())));
        let made = unified.filter(|path| std::fs::create_dir(path).is_ok());
        let any_directory = std::env::temp_dir();
        for (path, expected) in [(made.as_ref(), true), (Some(&any_directory), false)] {
            let Some(path) = path else { continue };
            let into: OwnedFd = std::fs::File::open(path).unwrap().into();
            let mut stack = Stack::new().unwrap();
            let mut told = Told {
                go: AtomicU32::new(0),
                heard: AtomicU32::new(0),
            };
            // SAFETY: `hear` expects a `Told`, which outlives the borrower.
            let borrower = unsafe {
                Borrower::start(
                    0,
                    Some(into.as_fd()),
                    &mut stack,
                    hear,
                    (&raw mut told).cast(),
                )
            }
            .unwrap();
            let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", borrower.pid));
            let name = path.file_name().unwrap().to_str().unwrap();
            let entered = groups
                .unwrap()
                .lines()
                .any(|line| line.starts_with("0::") && line.ends_with(name));
            told.go.store(1, Relaxed);
            futex::wake(&told.go, futex::Flags::empty(), 1).unwrap();
            // Where the test itself may make a group, it may enter it.
            assert_eq!((borrower.into, entered), (expected, expected), "{path:?}");
            reap(&borrower.wait()).unwrap();
            assert_eq!(told.heard.load(Acquire), 2);
        }
        if let Some(path) = made {
            std::fs::remove_dir(path).unwrap();
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
            unsafe { Borrower::start(0, None, &mut stack, hear, (&raw mut told).cast()) }.unwrap();
        let pid = borrower.pid;
        drop(borrower);
        assert_eq!(told.heard.load(Acquire), 0);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
