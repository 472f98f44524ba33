//! Stops a process at each change that it makes to files, from outside and without its help (ptrace(2)), and kills it
//! at the one that is chosen. Neither its launcher nor its workers are traced.

use std::collections::BTreeSet;
use std::ffi::{c_long, c_void};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A process that is traced, by a thread of its own: only the thread that attached may go on with it.
pub struct Tracer {
    pid: i32,
    thread: JoinHandle<()>,
    changes: Arc<Mutex<Vec<String>>>,
}

impl Tracer {
    /// Attaches to a process. Changes below `root` are counted.
    pub fn attach(pid: i32, root: PathBuf, kill_at: Option<u64>) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let (ready, attached) = channel();
        let tracing = Tracing {
            pid,
            root,
            kill_at,
            changes: changes.clone(),
        };
        let thread = std::thread::spawn(move || tracing.run(&ready));
        attached.recv().expect("the process can be traced");
        Self {
            pid,
            thread,
            changes,
        }
    }

    /// The changes so far.
    pub fn changes(&self) -> Vec<String> {
        self.changes.lock().unwrap().clone()
    }

    /// Kills the process, if it still lives, and waits for its end.
    pub fn kill(self) {
        // Nobody has waited for it but the thread, which does nothing else to it once it is gone: if it is, the number
        // may be another's, so look first.
        if !self.thread.is_finished() {
            kill(self.pid);
        }
        self.thread.join().unwrap();
    }
}

fn kill(pid: i32) {
    // SAFETY: no memory is touched.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

struct Tracing {
    pid: i32,
    root: PathBuf,
    kill_at: Option<u64>,
    changes: Arc<Mutex<Vec<String>>>,
}

/// A system call is entered (`PTRACE_SYSCALL_INFO_ENTRY`, kernel: include/uapi/linux/ptrace.h).
const ENTRY: u8 = 1;

fn ptrace(request: u32, tid: i32, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: requests that write to this process are given the size and address of memory that is theirs.
    let result = unsafe { libc::ptrace(request, tid, address as *mut c_void, data as *mut c_void) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The system call that a stopped thread enters: its number and arguments.
fn entered(tid: i32) -> Option<(c_long, [u64; 6])> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of_val(&info);
    ptrace(
        libc::PTRACE_GET_SYSCALL_INFO,
        tid,
        size,
        info.as_mut_ptr() as usize,
    )
    .ok()?;
    // SAFETY: all fields are integers, so zeros would do, and the kernel has filled in those of its kind.
    let info = unsafe { info.assume_init() };
    (info.op == ENTRY).then(|| {
        // SAFETY: as above.
        let entry = unsafe { info.u.entry };
        (entry.nr as c_long, entry.args)
    })
}

impl Tracing {
    fn run(&self, ready: &Sender<()>) {
        let options =
            libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        let mut waited_for = BTreeSet::new();
        // Threads may start meanwhile; those of traced threads are traced from the start.
        loop {
            let before = waited_for.len();
            for tid in threads(self.pid) {
                if !waited_for.contains(&tid)
                    && ptrace(libc::PTRACE_SEIZE, tid, 0, options as usize).is_ok()
                {
                    ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0).unwrap();
                    waited_for.insert(tid);
                }
            }
            if waited_for.len() == before {
                break;
            }
        }
        if waited_for.is_empty() {
            return;
        }
        loop {
            let mut status = 0;
            // Only what this thread traces.
            // SAFETY: `status` is this frame's.
            let tid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if tid < 0 {
                match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => continue,
                    _ => return,
                }
            }
            if !libc::WIFSTOPPED(status) {
                if tid == self.pid {
                    return;
                }
                continue;
            }
            if waited_for.remove(&tid) && waited_for.is_empty() {
                let _ = ready.send(());
            }
            self.stopped(tid, libc::WSTOPSIG(status), status >> 16);
        }
    }

    fn stopped(&self, tid: i32, signal: i32, event: i32) {
        let mut deliver = 0;
        if signal == libc::SIGTRAP | 0x80 {
            if let Some((number, arguments)) = entered(tid)
                && let Some(change) = self.change(number, &arguments)
            {
                let mut changes = self.changes.lock().unwrap();
                changes.push(change);
                if Some(changes.len() as u64) == self.kill_at {
                    // A call that was stopped at its entry is not made (`syscall_trace_enter`, kernel:
                    // kernel/entry/common.c).
                    kill(self.pid);
                    return;
                }
            }
        } else if event == 0 {
            deliver = signal;
        }
        // It may have been killed meanwhile.
        let _ = ptrace(libc::PTRACE_SYSCALL, tid, 0, deliver as usize);
    }

    /// What a system call changes, if that is a file of ours.
    fn change(&self, number: c_long, arguments: &[u64; 6]) -> Option<String> {
        let name = name(number)?;
        let path = match place(number, arguments)? {
            Place::Descriptor(fd) => self.descriptor(fd)?,
            Place::Path(fd, address) => {
                let path = self.text(address)?;
                match path.is_absolute() || fd == libc::AT_FDCWD {
                    true => path,
                    false => self.descriptor(fd)?.join(path),
                }
            }
        };
        let inside = path.strip_prefix(&self.root).ok()?;
        Some(format!("{name} {}", inside.display()))
    }

    fn descriptor(&self, fd: i32) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/fd/{fd}", self.pid)).ok()
    }

    /// The path at an address of the process.
    fn text(&self, address: u64) -> Option<PathBuf> {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).ok()?;
        let mut bytes = Vec::new();
        // A page at a time: the next may not be there.
        while bytes.len() < libc::PATH_MAX as usize {
            let at = address + bytes.len() as u64;
            let mut piece = vec![0; 4096 - at as usize % 4096];
            memory.read_exact_at(&mut piece, at).ok()?;
            let end = piece.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if end.is_some() {
                return Some(Path::new(&String::from_utf8(bytes).ok()?).to_owned());
            }
        }
        None
    }
}

fn threads(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Where a system call says which file it changes.
enum Place {
    Descriptor(i32),
    /// The directory's descriptor, and the address of the path.
    Path(i32, u64),
}

/// The names of the calls that change files.
fn name(number: c_long) -> Option<&'static str> {
    Some(match number {
        libc::SYS_openat => "open",
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => "write",
        libc::SYS_pwritev2 => "write",
        libc::SYS_ftruncate => "truncate",
        libc::SYS_fallocate => "allocate",
        libc::SYS_fsync | libc::SYS_fdatasync => "sync",
        libc::SYS_copy_file_range => "copy to",
        libc::SYS_mkdirat => "make",
        libc::SYS_unlinkat => "remove",
        libc::SYS_renameat2 => "rename",
        libc::SYS_linkat => "link",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_creat => "open",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => "make",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink | libc::SYS_rmdir => "remove",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => "rename",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => "link",
        _ if number == libc::SYS_renameat => "rename",
        _ => return None,
    })
}

/// Where such a call says it; nothing if it changes nothing.
fn place(number: c_long, arguments: &[u64; 6]) -> Option<Place> {
    let changes = |flags: u64| flags as i32 & (libc::O_CREAT | libc::O_TRUNC) != 0;
    Some(match number {
        libc::SYS_openat if !changes(arguments[2]) => return None,
        libc::SYS_openat
        | libc::SYS_mkdirat
        | libc::SYS_unlinkat
        | libc::SYS_renameat2
        | libc::SYS_renameat => Place::Path(arguments[0] as i32, arguments[1]),
        // The new name: the old one may be a descriptor's.
        libc::SYS_linkat => Place::Path(arguments[2] as i32, arguments[3]),
        libc::SYS_copy_file_range => Place::Descriptor(arguments[2] as i32),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open if !changes(arguments[1]) => return None,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open
        | libc::SYS_creat
        | libc::SYS_mkdir
        | libc::SYS_unlink
        | libc::SYS_rmdir
        | libc::SYS_rename => Place::Path(libc::AT_FDCWD, arguments[0]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => Place::Path(libc::AT_FDCWD, arguments[1]),
        _ => Place::Descriptor(arguments[0] as i32),
    })
}
