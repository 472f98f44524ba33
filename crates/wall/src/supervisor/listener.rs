//! The listener of a filter, and its notifications.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::architecture::Architecture;

/// A system call that a worker tried and that its filter forbids. It didn't
/// happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForbiddenCall {
    /// Its name, if the number is one of this architecture's that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub number: u32,
    /// Through which entry it came: `AUDIT_ARCH_*` (kernel:
    /// include/uapi/linux/audit.h).
    pub audit_architecture: u32,
    /// Its arguments, as they stood in the registers.
    pub arguments: [u64; 6],
    /// Where the call was made.
    pub instruction_pointer: u64,
}

/// Numbers with this bit are x32 calls (kernel: arch/x86/include/uapi/asm/unistd.h).
const X32: u32 = 0x4000_0000;

impl ForbiddenCall {
    /// A call of this number through this entry.
    pub fn new(
        number: u32,
        audit_architecture: u32,
        arguments: [u64; 6],
        instruction_pointer: u64,
    ) -> Self {
        let here = Architecture::HERE;
        Self {
            name: (audit_architecture == here.audit())
                .then(|| here.call_name(number))
                .flatten()
                .map(str::to_owned),
            number,
            audit_architecture,
            arguments,
            instruction_pointer,
        }
    }
}

impl fmt::Display for ForbiddenCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        let foreign = self.audit_architecture != Architecture::HERE.audit();
        match &self.name {
            Some(name) => write!(f, "{name} (system call {number})"),
            None if foreign => write!(
                f,
                "system call {number} through the entry of another architecture ({:#x})",
                self.audit_architecture
            ),
            None if number & X32 != 0 => write!(f, "x32 system call {}", number & !X32),
            None => write!(f, "system call {number}"),
        }
    }
}

/// What was handed over isn't a filter's listener.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the descriptor for the filter's listener is {found}, not a listener")]
pub struct NotAListener {
    /// What it is.
    pub found: String,
}

/// A call that stopped a worker, and under which number the kernel keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The call.
    pub call: ForbiddenCall,
    id: u64,
}

/// A filter's listener.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes a descriptor over, after a look at what it is.
    ///
    /// # Errors
    /// If it is something else: a worker could hand over anything.
    pub fn from_descriptor(descriptor: OwnedFd) -> Result<Self, NotAListener> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        match link {
            Ok(link) if link.as_os_str() == "anon_inode:seccomp notify" => Ok(Self(descriptor)),
            Ok(link) => Err(NotAListener {
                found: link.display().to_string(),
            }),
            Err(error) => Err(NotAListener {
                found: error.to_string(),
            }),
        }
    }

    /// The next call that isn't on the filter's list. Call this when the listener is readable, or it
    /// waits.
    ///
    /// # Errors
    /// `NotFound` if the worker has gone meanwhile.
    pub fn receive(&self) -> io::Result<Notification> {
        // The kernel of tomorrow may have more to say than its structures of
        // today hold (seccomp_unotify(2), SECCOMP_GET_NOTIF_SIZES).
        const ROOM: usize = 512;
        #[repr(C, align(8))]
        struct Room([u8; ROOM]);
        let mut room = Room([0; ROOM]);
        loop {
            // SAFETY: `room` is zeroed, as the kernel demands, and larger than
            // what it writes; it is aligned for the structure.
            let done = unsafe {
                libc::ioctl(
                    self.0.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_RECV,
                    room.0.as_mut_ptr(),
                )
            };
            if done == 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            room.0.fill(0);
        }
        // SAFETY: the kernel has filled in this structure, of plain numbers,
        // in memory that is aligned for it.
        let told = unsafe { &*room.0.as_ptr().cast::<libc::seccomp_notif>() };
        Ok(Notification {
            call: ForbiddenCall::new(
                told.data.nr.cast_unsigned(),
                told.data.arch,
                told.data.args,
                told.data.instruction_pointer,
            ),
            id: told.id,
        })
    }

    /// Lets the call go on as if it were on the list: only for what the host
    /// would have put there, after a look at the registers alone, of which the
    /// kernel made a copy (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`,
    /// seccomp_unotify(2)).
    ///
    /// # Errors
    /// `NotFound` if the worker has gone meanwhile.
    pub fn go_on(&self, notification: &Notification) -> io::Result<()> {
        let response = libc::seccomp_notif_resp {
            id: notification.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the structure that the kernel reads.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const response,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_where_they_have_a_name() {
        let here = Architecture::HERE;
        let call = |number, audit| ForbiddenCall::new(number, audit, [0; 6], 0).to_string();
        let ptrace = here.call_number("ptrace").unwrap();
        assert_eq!(
            call(ptrace, here.audit()),
            format!("ptrace (system call {ptrace})")
        );
        assert_eq!(
            call(11, 0x4000_0003),
            "system call 11 through the entry of another architecture (0x40000003)"
        );
        assert_eq!(call(X32 | 3, here.audit()), "x32 system call 3");
        assert_eq!(call(9999, here.audit()), "system call 9999");
    }

    #[test]
    fn nothing_else_is_a_listener() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = Listener::from_descriptor(file.into()).unwrap_err();
        assert_eq!(refused.found, "/dev/null");
    }
}
