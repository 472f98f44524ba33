//! Sockets, queues and memory of the host's, which anybody may come to.

use std::ffi::CString;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use super::DecoyError;
use super::process::owned;
use crate::drill::Arrival;

/// Permissions with which everybody may do everything.
const EVERYBODY: i32 = 0o666;
/// What the shared segment holds.
const PLAIN: u8 = b'.';

/// All of them.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    udp: UdpSocket,
    abstract_name: String,
    abstract_socket: UnixListener,
    path: UnixListener,
    /// The key of segment and queue.
    pub key: i32,
    segment: Option<Segment>,
    queue: Option<i32>,
    posix_name: String,
    posix: Option<OwnedFd>,
}

#[derive(Debug)]
struct Segment {
    id: i32,
    at: *mut u8,
}

// SAFETY: the mapping is nobody's but this value's; it is read and written through
// it only, a byte at a time.
unsafe impl Send for Segment {}
// SAFETY: as above; two threads could only read a byte at the same time.
unsafe impl Sync for Segment {}

impl Listeners {
    /// Makes all of them; `name` is one that nobody else has.
    ///
    /// # Errors
    /// If a socket can't be had. What kernels may lack is left out.
    pub fn new(name: &str, at: &Path) -> Result<Self, DecoyError> {
        let fail = DecoyError::at("the decoy sockets");
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(&fail)?;
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(&fail)?;
        let abstract_name = format!("lazaret-redteam-{name}");
        let address = SocketAddr::from_abstract_name(&abstract_name).map_err(&fail)?;
        let abstract_socket = UnixListener::bind_addr(&address).map_err(&fail)?;
        let path = UnixListener::bind(at).map_err(&fail)?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(at, everybody).map_err(&fail)?;
        tcp.set_nonblocking(true).map_err(&fail)?;
        udp.set_nonblocking(true).map_err(&fail)?;
        abstract_socket.set_nonblocking(true).map_err(&fail)?;
        path.set_nonblocking(true).map_err(&fail)?;
        // A positive number that nobody else has; 0 is IPC_PRIVATE.
        let key = i32::from_str_radix(name.get(..7).unwrap_or("1"), 16)
            .unwrap_or(1)
            .max(1);
        let posix_name = format!("lazaret-redteam-{name}");
        Ok(Self {
            tcp,
            udp,
            abstract_name,
            abstract_socket,
            path,
            key,
            segment: segment(key),
            queue: queue(key),
            posix: posix(&posix_name),
            posix_name,
        })
    }

    /// What a drill must know to come here.
    ///
    /// # Errors
    /// If a socket has no address.
    pub fn words(&self) -> std::io::Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("tcp", self.tcp.local_addr()?.port().to_string()),
            ("udp", self.udp.local_addr()?.port().to_string()),
            ("abstract", self.abstract_name.clone()),
            ("key", self.key.to_string()),
            ("queue", self.posix_name.clone()),
        ])
    }

    /// Whether a kernel without it leaves nothing to come to.
    pub fn lacks(&self, arrival: Arrival) -> bool {
        match arrival {
            Arrival::Queue => self.queue.is_none(),
            Arrival::PosixQueue => self.posix.is_none(),
            _ => false,
        }
    }

    /// Whether there is a shared segment.
    pub fn has_segment(&self) -> bool {
        self.segment.is_some()
    }

    /// Who came, if anybody has since this was last asked.
    pub fn arrived(&self, arrival: Arrival) -> Option<String> {
        let waits = |kind: ErrorKind| kind == ErrorKind::WouldBlock;
        match arrival {
            Arrival::Tcp => match self.tcp.accept() {
                Ok((_, from)) => Some(format!("a connection from {from}")),
                Err(error) if waits(error.kind()) => None,
                Err(error) => Some(error.to_string()),
            },
            Arrival::Udp => match self.udp.recv_from(&mut [0; 64]) {
                Ok((length, from)) => Some(format!("{length} bytes from {from}")),
                Err(_) => None,
            },
            Arrival::Abstract => match self.abstract_socket.accept() {
                Ok(_) => Some("a connection to the abstract name".into()),
                Err(_) => None,
            },
            Arrival::Path => match self.path.accept() {
                Ok(_) => Some("a connection to the path".into()),
                Err(_) => None,
            },
            Arrival::Queue => {
                let mut message = [0u64; 8];
                // SAFETY: a type and room for 56 bytes.
                let got = unsafe {
                    libc::msgrcv(
                        self.queue?,
                        message.as_mut_ptr().cast(),
                        56,
                        0,
                        libc::IPC_NOWAIT,
                    )
                };
                (got >= 0).then(|| format!("a message of {got} bytes"))
            }
            Arrival::PosixQueue => {
                let mut bytes = [0u8; 64];
                // SAFETY: a queue of messages of 64 bytes, and room for one.
                let got = unsafe {
                    libc::mq_receive(
                        self.posix.as_ref()?.as_raw_fd(),
                        bytes.as_mut_ptr().cast(),
                        bytes.len(),
                        std::ptr::null_mut(),
                    )
                };
                (got >= 0).then(|| format!("a message of {got} bytes"))
            }
        }
    }

    /// Whether the segment holds something else.
    pub fn segment_changed(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| {
            // SAFETY: attached for the life of this value.
            unsafe { std::ptr::read_volatile(segment.at) != PLAIN }
        })
    }

    /// Everybody who has come is sent away.
    pub fn renew(&self) {
        for arrival in [
            Arrival::Tcp,
            Arrival::Udp,
            Arrival::Abstract,
            Arrival::Path,
            Arrival::Queue,
            Arrival::PosixQueue,
        ] {
            // As many as fit a backlog, at most.
            for _ in 0..128 {
                if self.arrived(arrival).is_none() {
                    break;
                }
            }
        }
        if let Some(segment) = &self.segment {
            // SAFETY: attached for the life of this value.
            unsafe { std::ptr::write_volatile(segment.at, PLAIN) };
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(segment) = &self.segment {
            // SAFETY: attached by this value, and removed by its number.
            unsafe {
                libc::shmdt(segment.at.cast());
                libc::shmctl(segment.id, libc::IPC_RMID, std::ptr::null_mut());
            }
        }
        if let Some(queue) = self.queue {
            // SAFETY: removed by its number.
            unsafe { libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()) };
        }
        if let (Some(_), Ok(name)) = (&self.posix, CString::new(format!("/{}", self.posix_name))) {
            // SAFETY: a NUL-terminated name.
            unsafe { libc::mq_unlink(name.as_ptr()) };
        }
    }
}

fn segment(key: i32) -> Option<Segment> {
    // SAFETY: plain numbers.
    let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | EVERYBODY) };
    if id < 0 {
        return None;
    }
    // SAFETY: attached at an address of the kernel's choice.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if at as isize == -1 {
        // SAFETY: removed by its number.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        return None;
    }
    Some(Segment { id, at: at.cast() })
}

fn queue(key: i32) -> Option<i32> {
    // SAFETY: plain numbers.
    let id = unsafe { libc::msgget(key, libc::IPC_CREAT | libc::IPC_EXCL | EVERYBODY) };
    (id >= 0).then_some(id)
}

fn posix(name: &str) -> Option<OwnedFd> {
    let name = CString::new(format!("/{name}")).ok()?;
    // SAFETY: all-zero is a mq_attr.
    let mut attributes = unsafe { std::mem::zeroed::<libc::mq_attr>() };
    (attributes.mq_maxmsg, attributes.mq_msgsize) = (4, 64);
    // SAFETY: a name, and the mode and attributes that O_CREAT takes.
    let fd = unsafe {
        libc::mq_open(
            name.as_ptr(),
            libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC,
            EVERYBODY,
            &raw mut attributes,
        )
    };
    let fd = owned(fd).ok()?;
    // Past the umask.
    rustix::fs::fchmod(&fd, rustix::fs::Mode::from_raw_mode(0o666)).ok()?;
    Some(fd)
}
