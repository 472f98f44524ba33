//! Descriptor hand-over while a worker is set up.
//!
//! A SEQPACKET socket pair: one datagram is one message, and its descriptors
//! arrive with it or not at all. The worker closes its end when it is locked;
//! from then on no descriptor can cross.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::thread::{Timespec, futex};
use thiserror::Error;

use crate::layout::MAX_DESCRIPTORS;

/// The longest datagram, in bytes. Anything longer goes through the request
/// area.
pub const MAX_DATAGRAM: usize = 64 << 10;

/// Why nothing could be sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The kernel refused.
    #[error("set-up socket: {step}: {source}")]
    System {
        /// The step.
        step: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The other side is gone.
    #[error("set-up socket: the other side has closed it")]
    Closed,
    /// A datagram or its descriptors were cut.
    #[error(
        "set-up socket: a message was longer than {MAX_DATAGRAM} bytes or had more than {MAX_DESCRIPTORS} descriptors"
    )]
    Cut,
}

impl ChannelError {
    fn at(step: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Self::Closed,
            errno => Self::System {
                step,
                source: errno.into(),
            },
        }
    }
}

/// One end of the set-up socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// The text of a message with descriptors that another follows.
const MORE: &[u8] = b"more";
/// The text of the last message with descriptors.
const LAST: &[u8] = b"all";

/// What arrived: bytes and descriptors.
#[derive(Debug, Default)]
pub struct Datagram {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order sent; all close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// How long a message waits for descriptors under way to be received,
const PATIENCE: Duration = Duration::from_secs(10);
/// and how often it looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Sleeps for [`PAUSE`]: by a futex that nobody wakes, which is a call that a
/// locked worker may make.
fn pause() {
    let nobody = AtomicU32::new(0);
    let time = Timespec::try_from(PAUSE).ok();
    let _ = futex::wait(&nobody, futex::Flags::PRIVATE, 0, time.as_ref());
}

impl Channel {
    /// A connected pair.
    pub fn pair() -> Result<(Self, Self), ChannelError> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(ChannelError::at("socketpair"))?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Takes a descriptor over, after a look at what it is.
    pub fn from_descriptor(socket: OwnedFd) -> Result<Self, ChannelError> {
        let kind =
            rustix::net::sockopt::socket_type(&socket).map_err(ChannelError::at("not a socket"))?;
        if kind != SocketType::SEQPACKET {
            return Err(ChannelError::System {
                step: "not a SEQPACKET socket",
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        Ok(Self { socket })
    }

    /// Sends one message.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if bytes.is_empty() || bytes.len() > MAX_DATAGRAM || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::Cut);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ChannelError::Cut);
        }
        let mut patience = PATIENCE;
        loop {
            match rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Err(rustix::io::Errno::INTR) => continue,
                // Of all descriptors that this user's processes have sent and
                // nobody has received yet, there are more than this process may
                // have open (`too_many_unix_fds`, kernel: net/core/scm.c): when
                // many workers start at once.
                Err(rustix::io::Errno::TOOMANYREFS) if !patience.is_zero() => {
                    pause();
                    patience = patience.saturating_sub(PAUSE);
                }
                Err(errno) => return Err(ChannelError::at("sendmsg")(errno)),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Sends any number of descriptors, in as many messages as that takes.
    pub fn send_descriptors(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut rest = descriptors;
        while rest.len() > MAX_DESCRIPTORS {
            let (part, after) = rest.split_at(MAX_DESCRIPTORS);
            self.send(MORE, part)?;
            rest = after;
        }
        self.send(LAST, rest)
    }

    /// Receives what [`Channel::send_descriptors`] sent, but no more than
    /// `most`.
    pub fn receive_descriptors(&self, most: usize) -> Result<Vec<OwnedFd>, ChannelError> {
        let mut all = Vec::new();
        loop {
            let Datagram { bytes, descriptors } = self.receive()?;
            all.extend(descriptors);
            if all.len() > most {
                return Err(ChannelError::Cut);
            }
            if bytes != MORE {
                return Ok(all);
            }
        }
    }

    /// Receives one message, waiting for it. A time limit is the caller's, by
    /// [`Channel::poll`].
    pub fn receive(&self) -> Result<Datagram, ChannelError> {
        let mut bytes = vec![0; self.next_length()?.min(MAX_DATAGRAM)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(
                &self.socket,
                &mut parts,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => continue,
                other => break other.map_err(ChannelError::at("recvmsg"))?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(ChannelError::Cut);
        }
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        bytes.truncate(received.bytes);
        Ok(Datagram { bytes, descriptors })
    }

    /// Waits for the next message and looks how long it is, in bytes. Room for
    /// the longest would be 16 pages to be zeroed for a few bytes.
    fn next_length(&self) -> Result<usize, ChannelError> {
        let look = RecvFlags::PEEK | RecvFlags::TRUNC;
        loop {
            let mut control = RecvAncillaryBuffer::default();
            match rustix::net::recvmsg(&self.socket, &mut [], &mut control, look) {
                Err(rustix::io::Errno::INTR) => continue,
                // With `TRUNC` it is the length of the whole message (recv(2)).
                other => return Ok(other.map_err(ChannelError::at("recvmsg"))?.bytes),
            }
        }
    }

    /// Waits until something can be received; false when the time is over.
    pub fn poll(&self, limit: std::time::Duration) -> Result<bool, ChannelError> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let timeout = rustix::fs::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut set = [rustix::event::PollFd::new(
                &self.socket,
                rustix::event::PollFlags::IN,
            )];
            match rustix::event::poll(&mut set, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => return Ok(other.map_err(ChannelError::at("poll"))? > 0),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (a, b) = Channel::pair().unwrap();
        let file = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::empty()).unwrap();
        a.send(b"hello", &[file.as_fd(), file.as_fd()]).unwrap();
        let got = b.receive().unwrap();
        assert_eq!(
            (got.bytes.as_slice(), got.descriptors.len()),
            (b"hello".as_slice(), 2)
        );
    }

    #[test]
    fn any_number_of_descriptors_arrives_in_order_but_no_more_than_wanted() {
        let files: Vec<OwnedFd> = (0..5)
            .map(|length| {
                let file = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::empty()).unwrap();
                rustix::fs::ftruncate(&file, length).unwrap();
                file
            })
            .collect();
        for count in [0, 1, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 300] {
            let sent: Vec<BorrowedFd<'_>> =
                (0..count).map(|i| files[i % files.len()].as_fd()).collect();
            let (a, b) = Channel::pair().unwrap();
            a.send_descriptors(&sent).unwrap();
            let got = b.receive_descriptors(count).unwrap();
            assert_eq!(got.len(), count);
            for (i, file) in got.iter().enumerate() {
                let length = rustix::fs::fstat(file).unwrap().st_size;
                assert_eq!(length as usize, i % files.len());
            }
            if count > 0 {
                a.send_descriptors(&sent).unwrap();
                assert!(matches!(
                    b.receive_descriptors(count - 1),
                    Err(ChannelError::Cut)
                ));
            }
        }
    }

    #[test]
    fn a_closed_socket_is_told_apart() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(matches!(b.receive(), Err(ChannelError::Closed)));
        assert!(matches!(b.send(b"x", &[]), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_sent() {
        let (a, _b) = Channel::pair().unwrap();
        assert!(matches!(
            a.send(&vec![0; MAX_DATAGRAM + 1], &[]),
            Err(ChannelError::Cut)
        ));
    }

    #[test]
    fn a_poll_ends_with_its_time() {
        let (a, b) = Channel::pair().unwrap();
        assert!(!b.poll(std::time::Duration::from_millis(2)).unwrap());
        a.send(b"x", &[]).unwrap();
        assert!(b.poll(std::time::Duration::from_secs(5)).unwrap());
    }
}
