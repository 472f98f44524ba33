//! What can be seen of a worker that stands still.

use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::listener::ForbiddenCall;
use super::registers::Registers;
use crate::architecture::Architecture;
use crate::layers::read;
use crate::policy::Policy;

/// The most of a worker's stack that is looked at, in bytes.
const STACK: usize = 256 << 10;
/// How long a worker may take to stop for its tracer, and to be gone once it
/// was killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker may still be on its way into the stop that was told of.
const SETTLING: Duration = Duration::from_millis(100);

/// What `/proc/PID/syscall` says of a process: the call that it is in (its
/// number, in decimal), arguments, stack pointer and program counter; or
/// `running` (proc_pid_syscall(5)).
pub fn system_call_of(pid: i32) -> Result<String, String> {
    read(pid, "syscall").map(|line| String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The same of a process that is about to stand still: whoever is told of its call
/// may be sooner here than it is off its processor.
fn settled_system_call_of(pid: i32) -> Result<String, String> {
    let deadline = Instant::now() + SETTLING;
    loop {
        match system_call_of(pid) {
            Ok(line) if line == "running" && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_micros(200));
            }
            other => return other,
        }
    }
}

/// The forbidden call that a worker is stopped in during its set-up, where
/// nobody is told of it: the call that it is in isn't on its list.
pub fn stopped_in(pid: i32, policy: &Policy) -> Option<ForbiddenCall> {
    let call = parse(&system_call_of(pid).ok()?)?;
    policy.find(call.number.into()).is_none().then_some(call)
}

/// Reads a line of `/proc/PID/syscall`. Which entry the call came through is
/// not in it.
fn parse(line: &str) -> Option<ForbiddenCall> {
    let mut words = line.split(' ');
    // `running`, or -1 if it is stopped outside of any call.
    let number: u32 = words.next()?.parse().ok()?;
    let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = next()?;
    }
    let _stack = next()?;
    let at = next()?;
    Some(ForbiddenCall::new(
        number,
        Architecture::HERE.audit(),
        arguments,
        at,
    ))
}

/// What was seen of a stopped worker. What could not be had is None, with the
/// reason among the remarks.
#[derive(Debug, Clone, Default)]
pub struct Stopped {
    /// The line of `/proc/PID/syscall`.
    pub system_call: Option<String>,
    /// The lines of `/proc/PID/maps`.
    pub mappings: Vec<String>,
    /// Its registers.
    pub registers: Option<Registers>,
    /// Its stack, from the stack pointer up.
    pub stack: Vec<u8>,
    /// What could not be seen, and why.
    pub remarks: Vec<String>,
}

impl Stopped {
    /// Looks at a worker that is stopped in a forbidden call, and has `kill`
    /// end it as soon as all is seen. It has gone on return if it had to be
    /// traced for that.
    pub fn look_and_kill(pid: i32, kill: impl FnOnce(Self)) {
        let mut seen = Self::default();
        match settled_system_call_of(pid) {
            Ok(line) => seen.system_call = Some(line),
            Err(why) => seen.remarks.push(why),
        }
        match read(pid, "maps") {
            Ok(maps) => {
                seen.mappings = String::from_utf8_lossy(&maps)
                    .lines()
                    .map(str::to_owned)
                    .collect();
            }
            Err(why) => seen.remarks.push(why),
        }
        let Some(process) = Pid::from_raw(pid) else {
            return kill(seen);
        };
        match Traced::stop(process) {
            Ok(traced) => {
                match Registers::read(process) {
                    Ok(registers) => {
                        seen.stack = stack(process, &registers);
                        seen.registers = Some(registers);
                    }
                    Err(error) => seen.remarks.push(format!("registers: {error}")),
                }
                kill(seen);
                traced.gone();
            }
            Err(error) => {
                seen.remarks
                    .push(format!("registers and stack: ptrace: {error}"));
                kill(seen);
            }
        }
    }
}

/// The bytes above the stack pointer, as many as are mapped there.
fn stack(pid: Pid, registers: &Registers) -> Vec<u8> {
    let Some([_, sp, _]) = registers.frame() else {
        return Vec::new();
    };
    let mut bytes = vec![0; STACK];
    let mut length = 0;
    // One page after another: a read ends before the first that is not there.
    while length < STACK {
        let Some(at) = sp.checked_add(length as u64) else {
            break;
        };
        let to_page_end = 4096 - (at as usize & 4095);
        let room = &mut bytes[length..STACK.min(length + to_page_end)];
        let size = room.len();
        match read_memory(pid.as_raw_nonzero().get(), at, room) {
            Ok(read) if read == size => length += size,
            _ => break,
        }
    }
    bytes.truncate(length);
    bytes
}

/// Reads another process's memory; how many bytes there were from `at` on
/// (process_vm_readv(2)).
///
/// # Errors
/// If the first of them is not there, or this process may not.
pub fn read_memory(pid: i32, at: u64, to: &mut [u8]) -> io::Result<usize> {
    let remote = libc::iovec {
        iov_base: at as *mut libc::c_void,
        iov_len: to.len(),
    };
    let mut local = IoSliceMut::new(to);
    // SAFETY: an IoSliceMut is an iovec (its documentation), of memory that is
    // this function's to write; the other process's memory is only read.
    let done = unsafe {
        libc::process_vm_readv(
            pid,
            (&raw mut local).cast::<libc::iovec>(),
            1,
            &raw const remote,
            1,
            0,
        )
    };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// A process that this thread traces, stopped.
struct Traced(Pid);

impl Traced {
    fn stop(pid: Pid) -> io::Result<Self> {
        trace(libc::PTRACE_SEIZE, pid)?;
        let traced = Self(pid);
        let stopped = trace(libc::PTRACE_INTERRUPT, pid).and_then(|()| traced.wait());
        match stopped {
            Ok(true) => Ok(traced),
            Ok(false) => {
                let _ = trace(libc::PTRACE_DETACH, pid);
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => {
                let _ = trace(libc::PTRACE_DETACH, pid);
                Err(error)
            }
        }
    }

    /// Waits for the next thing that it does: whether there was one.
    fn wait(&self) -> io::Result<bool> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut status = 0;
            // SAFETY: a place on this stack to write to. It waits for this one
            // process only, which is nobody's child here.
            let found = unsafe {
                libc::waitpid(
                    self.0.as_raw_nonzero().get(),
                    &raw mut status,
                    libc::__WALL | libc::WNOHANG,
                )
            };
            match found {
                0 if Instant::now() < until => std::thread::sleep(Duration::from_micros(50)),
                0 => return Ok(false),
                -1 => return Err(io::Error::last_os_error()),
                _ if libc::WIFSTOPPED(status) => return Ok(true),
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// Waits until it has gone, after it was killed. Its end is its tracer's
    /// to hear of first: until then the launcher doesn't.
    fn gone(self) {
        while let Ok(true) = self.wait() {}
    }
}

fn trace(request: libc::c_uint, pid: Pid) -> io::Result<()> {
    // SAFETY: these requests take no pointers.
    let done = unsafe { libc::ptrace(request, pid.as_raw_nonzero().get(), 0usize, 0usize) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Kind, policy};

    #[test]
    fn a_line_of_the_kernel_s_is_read() {
        let number = Architecture::HERE.call_number("ptrace").unwrap();
        let call = parse(&format!(
            "{number} 0x1 0xffffffffffffffff 0x3 0x4 0x5 0x6 0x7ffd00000000 0x7f0000001234"
        ))
        .unwrap();
        assert_eq!(call.name.as_deref(), Some("ptrace"));
        assert_eq!(call.arguments, [1, u64::MAX, 3, 4, 5, 6]);
        assert_eq!(call.instruction_pointer, 0x7f00_0000_1234);
        for line in ["", "running", "-1 0x7ffd 0x7f00", "101", "101 0x1", "x 0x1"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    /// This thread reads its own file: that call is on the launch list, and on
    /// no tenant's.
    #[test]
    fn what_is_on_the_list_is_no_attack() {
        let here = std::process::id() as i32;
        assert_eq!(stopped_in(here, &policy(Kind::Launch)), None);
        assert_eq!(stopped_in(i32::MAX, &policy(Kind::Tenant)), None);
    }
}
