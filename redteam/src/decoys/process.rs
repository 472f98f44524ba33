//! A process that is there to be attacked: it has the worker's user id, can be
//! traced by anybody, and has a secret in its memory and in a descriptor.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::DecoyError;

/// `argv[0]` of the decoy process.
pub const ARGV0: &str = "lazaret:red-team-decoy";

/// Bytes of its memory that are looked at.
const LENGTH: usize = 64;

/// The decoy process itself: called when this executable was started as one. It
/// ends when its standard input does.
pub fn main() -> ! {
    let mut words = std::env::args().skip(1);
    let secret = words.next().unwrap_or_default();
    let user: Option<u32> = words.next().and_then(|word| word.parse().ok());
    let code = match serve(&secret, user) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("lazaret redteam decoy: {error}");
            2
        }
    };
    std::process::exit(code)
}

fn serve(secret: &str, user: Option<u32>) -> std::io::Result<()> {
    let done = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: plain numbers and an empty list; a signal set on this stack.
    unsafe {
        if let Some(user) = user {
            done(libc::setgroups(0, std::ptr::null()))?;
            done(libc::setresgid(user, user, user))?;
            done(libc::setresuid(user, user, user))?;
        }
        done(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        // Where there is no Yama there is nothing to permit.
        libc::prctl(libc::PR_SET_PTRACER, u64::MAX, 0, 0, 0);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGRTMIN());
        done(libc::sigprocmask(
            libc::SIG_BLOCK,
            &set,
            std::ptr::null_mut(),
        ))?;
    }
    let memory = Box::leak(vec![0u8; LENGTH].into_boxed_slice());
    let length = secret.len().min(LENGTH);
    memory[..length].copy_from_slice(&secret.as_bytes()[..length]);
    let file = rustix::fs::memfd_create("decoy", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&file, secret.as_bytes())?;
    println!("{} {}", memory.as_ptr() as usize, file.into_raw_fd());
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// A decoy process, from the host's side.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where the secret is in its memory.
    pub address: u64,
    /// Its descriptor of a file with the secret.
    pub descriptor: i32,
    memory: std::fs::File,
    before: [u8; LENGTH],
    /// Signals that waited for its user when it began.
    signals: u64,
}

impl Process {
    /// Starts `executable` as one.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(executable: &Path, secret: &str, user: Option<u32>) -> Result<Self, DecoyError> {
        let fail = DecoyError::at("the decoy process");
        let mut command = Command::new(executable);
        command
            .arg0(ARGV0)
            .arg(secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env_clear()
            .current_dir("/");
        if let Some(user) = user {
            command.arg(user.to_string());
        }
        let mut child = command.spawn().map_err(&fail)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(&fail)?;
        }
        let mut words = line.split_whitespace();
        let (Some(address), Some(descriptor)) = (
            words.next().and_then(|word| word.parse().ok()),
            words.next().and_then(|word| word.parse().ok()),
        ) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(fail(std::io::Error::other("it said nothing of itself")));
        };
        let memory = std::fs::File::open(format!("/proc/{}/mem", child.id())).map_err(&fail)?;
        let mut made = Self {
            child,
            address,
            descriptor,
            memory,
            before: [0; LENGTH],
            signals: 0,
        };
        made.before = made.read().map_err(&fail)?;
        made.signals = made.pending();
        Ok(made)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn read(&self) -> std::io::Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        self.memory.read_exact_at(&mut bytes, self.address)?;
        Ok(bytes)
    }

    /// Whether its memory holds something else than at first.
    pub fn memory_changed(&self) -> bool {
        self.read().is_ok_and(|now| now != self.before)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            _ => None,
        }
    }

    fn status(&self, field: &str) -> Option<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned())
    }

    /// Who traces it, if somebody does.
    pub fn tracer(&self) -> Option<String> {
        self.status("TracerPid").filter(|pid| pid != "0")
    }

    fn pending(&self) -> u64 {
        self.status("SigQ")
            .and_then(|text| text.split('/').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// How many signals wait for it and its user's others, more than at first.
    pub fn signals(&self) -> u64 {
        self.pending().saturating_sub(self.signals)
    }

    /// Whether anything was done to it.
    pub fn is_touched(&mut self) -> bool {
        self.ended().is_some()
            || self.memory_changed()
            || self.tracer().is_some()
            || self.signals() > 0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sealed secret of one run: 24 characters that nobody can guess.
pub fn secret() -> Result<String, DecoyError> {
    let fail = DecoyError::at("random numbers");
    let mut bytes = [0u8; 12];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| fail(errno.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A descriptor that a C function returned.
pub(super) fn owned(result: i32) -> std::io::Result<OwnedFd> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the callers pass what a function that makes descriptors returned.
    let fd = unsafe { OwnedFd::from_raw_fd(result) };
    debug_assert!(fd.as_raw_fd() >= 0);
    Ok(fd)
}
