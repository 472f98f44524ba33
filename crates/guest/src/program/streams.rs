//! The standard streams of a program: descriptors that it shares with others.
//!
//! Their flags are shared too (open(2), "open file descriptions"), so they are
//! never set to non-blocking: reads and writes block the only thread, which has
//! nothing else to do, and waiting goes through poll(2). Nothing is buffered:
//! what the program wrote is out before it goes on, also if it traps next, and
//! both outputs keep their order.
//!
//! A closed pipe is an error of the write (`EPIPE`), as in a native program
//! that ignores SIGPIPE. The signal has to be ignored by the process, as Rust's
//! start-up code does.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// The most bytes that one read asks for, whatever the guest says: they are
/// copied through memory of the worker's own.
const MOST: usize = 64 << 10;

/// A standard stream.
#[derive(Debug, Clone)]
pub(super) struct Stream(Arc<File>);

impl Stream {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(Arc::new(File::from(descriptor)))
    }

    /// Waits until reading or writing would not block. An error is left to the
    /// read or write to find.
    fn wait(&self, events: PollFlags) {
        while poll(&mut [PollFd::new(&*self.0, events)], None) == Err(rustix::io::Errno::INTR) {}
    }

    /// Reads at least a byte, unless the input has ended: then 0.
    fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).read(to) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Someone else made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::IN),
                result => return result,
            }
        }
    }

    /// Writes at least a byte of `from`, unless that is empty.
    fn write(&self, from: &[u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).write(from) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT)
                }
                result => return result,
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl IsTerminal for Stream {
    /// Never: the host relays a terminal through pipes.
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Input(self.clone()))
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Output(self.clone()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = vec![0; to.remaining().min(MOST)];
        Poll::Ready(
            self.read(&mut buffer)
                .map(|length| to.put_slice(buffer.get(..length).unwrap_or_default())),
        )
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(from))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Standard input as the engine's WASI reads it.
struct Input(Stream);

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        self.0.wait(PollFlags::IN);
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        // An empty buffer would be reported to the guest as EINTR, an end of
        // input as a read of 0 bytes. A read of nothing is the latter.
        if size == 0 {
            return Err(StreamError::Closed);
        }
        let mut buffer = vec![0; size.min(MOST)];
        match self.0.read(&mut buffer) {
            Ok(0) => Err(StreamError::Closed),
            Ok(length) => {
                buffer.truncate(length);
                Ok(buffer.into())
            }
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        }
    }

    /// Without a poll(2) before it.
    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.read(size)
    }
}

/// Standard output or error as the engine's WASI writes it.
struct Output(Stream);

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        self.0.wait(PollFlags::OUT);
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut left = &bytes[..];
        while !left.is_empty() {
            match self.0.write(left) {
                Ok(0) => {
                    return Err(StreamError::LastOperationFailed(
                        io::Error::from(io::ErrorKind::WriteZero).into(),
                    ));
                }
                Ok(length) => left = left.get(length..).unwrap_or_default(),
                // As an I/O error, which keeps EPIPE; "closed" would become EIO.
                Err(error) => return Err(StreamError::LastOperationFailed(error.into())),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MOST)
    }

    /// Without a poll(2) before it.
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write(bytes)
    }
}

/// What is ready of `streams`, waiting for at most `timeout` (for ever if
/// `None`) if nothing is. Returns early, with nothing, on a signal.
pub(super) fn ready(
    streams: &[(&Stream, PollFlags)],
    timeout: Option<std::time::Duration>,
) -> rustix::io::Result<Vec<PollFlags>> {
    let mut polled: Vec<PollFd<'_>> = streams
        .iter()
        .map(|(stream, events)| PollFd::new(*stream, *events))
        .collect();
    let timeout = timeout.and_then(|timeout| rustix::event::Timespec::try_from(timeout).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.iter().map(PollFd::revents).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![PollFlags::empty(); polled.len()]),
        Err(error) => Err(error),
    }
}
