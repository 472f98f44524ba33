//! A program's standard streams.
//!
//! A worker gets pipes, regular files or sockets, never a terminal or another
//! device: what can be done to those with a descriptor (ioctl) is more than
//! reading and writing. A terminal is relayed through a pipe, and control
//! sequences in what the program prints on one are made harmless. Output
//! always goes through a pipe, where its bytes are counted ([`relay`]).

mod relay;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

pub(super) use relay::{Counted, Relays};
use rustix::fs::FileType;
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

/// Where standard input comes from.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Input {
    /// Nothing.
    #[default]
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This descriptor: a file, a pipe, a socket or a terminal.
    Descriptor(OwnedFd),
}

/// Where standard output or error goes.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Output {
    /// Nowhere; it is still counted.
    #[default]
    Discard,
    /// Here.
    Buffer(Arc<Mutex<Vec<u8>>>),
    /// To this descriptor; with control sequences made harmless if it is a
    /// terminal.
    Descriptor(Arc<OwnedFd>),
}

/// Why a stream can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// It is not something that can be read.
    #[error(
        "standard input is a {kind}; a program's input must be a file, a pipe, a socket or a terminal"
    )]
    Kind {
        /// What it is.
        kind: &'static str,
    },
    /// It is not open for reading.
    #[error("standard input is not open for reading")]
    NotReadable,
    /// The system refused.
    #[error("standard streams: {0}")]
    System(#[from] io::Error),
}

/// A worker's ends of its streams, and the host's end of its input.
pub(super) struct Streams {
    worker: [OwnedFd; 3],
    feed: Option<(OwnedFd, Source)>,
}

/// The host's ends of its output.
pub(super) struct Drains {
    /// Nothing once they are carried.
    pipes: Option<[(OwnedFd, Output); 2]>,
    limit: Option<u64>,
}

impl Drains {
    /// Carries output from now on.
    ///
    /// # Errors
    /// If the system gives no thread or descriptor, or it is carried already.
    pub(super) fn carry(&mut self) -> io::Result<Relays> {
        let pipes = self.pipes.take().ok_or(io::ErrorKind::NotConnected)?;
        Relays::start(pipes, self.limit)
    }
}

enum Source {
    Bytes(Vec<u8>),
    Terminal(OwnedFd),
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Connects everything; nothing runs yet.
pub(super) fn connect(
    input: Input,
    output: Output,
    error: Output,
    limit: Option<u64>,
) -> Result<(Streams, Drains), StreamError> {
    let (stdin, feed) = connect_input(input)?;
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let streams = Streams {
        worker: [stdin, out_write, err_write],
        feed,
    };
    let drains = Drains {
        pipes: Some([(out_read, output), (err_read, error)]),
        limit,
    };
    Ok((streams, drains))
}

fn connect_input(input: Input) -> Result<(OwnedFd, Option<(OwnedFd, Source)>), StreamError> {
    let descriptor = match input {
        Input::Empty => return Ok((pipe()?.0, None)),
        Input::Bytes(bytes) => {
            let (read, write) = pipe()?;
            return Ok((read, Some((write, Source::Bytes(bytes)))));
        }
        Input::Descriptor(descriptor) => descriptor,
    };
    let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(io::Error::from)?;
    if flags.contains(rustix::fs::OFlags::WRONLY) || flags.contains(rustix::fs::OFlags::PATH) {
        return Err(StreamError::NotReadable);
    }
    let stat = rustix::fs::fstat(&descriptor).map_err(io::Error::from)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Fifo | FileType::Socket => Ok((descriptor, None)),
        FileType::CharacterDevice if rustix::termios::isatty(&descriptor) => {
            let (read, write) = pipe()?;
            Ok((read, Some((write, Source::Terminal(descriptor)))))
        }
        // /dev/null: the usual way to say "nothing".
        FileType::CharacterDevice if stat.st_rdev == rustix::fs::makedev(1, 3) => {
            Ok((pipe()?.0, None))
        }
        FileType::CharacterDevice => Err(StreamError::Kind {
            kind: "character device",
        }),
        FileType::BlockDevice => Err(StreamError::Kind {
            kind: "block device",
        }),
        FileType::Directory => Err(StreamError::Kind { kind: "directory" }),
        _ => Err(StreamError::Kind {
            kind: "thing that can't be read",
        }),
    }
}

impl Streams {
    /// The ends that the worker is given: input, output, error.
    pub(super) fn worker_ends(&self) -> impl Iterator<Item = &OwnedFd> {
        self.worker.iter()
    }

    /// Feeds input from now on. The worker has its ends by now; the host's copies of them
    /// are closed here.
    pub(super) fn feed(self) {
        drop(self.worker);
        if let Some((to, source)) = self.feed {
            // Not joined: it may wait for a terminal long after the program's
            // end. It ends with its pipe or with this process.
            let _ = std::thread::Builder::new()
                .name("lazaret-stdin".into())
                .spawn(move || feed(to, source));
        }
    }
}

fn feed(to: OwnedFd, source: Source) {
    let mut to = std::fs::File::from(to);
    let result = match source {
        Source::Bytes(bytes) => to.write_all(&bytes),
        Source::Terminal(terminal) => {
            io::copy(&mut std::fs::File::from(terminal), &mut to).map(drop)
        }
    };
    // The program may end without reading all: that is no fault.
    drop(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_no_input() {
        let directory = std::fs::File::open("/").unwrap();
        let refused = connect_input(Input::Descriptor(directory.into()));
        assert!(matches!(
            refused,
            Err(StreamError::Kind { kind: "directory" })
        ));
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert!(connect_input(Input::Descriptor(device.into())).is_err());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(connect_input(Input::Descriptor(null.into())).is_ok());
        let write_only = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .unwrap();
        assert!(matches!(
            connect_input(Input::Descriptor(write_only.into())),
            Err(StreamError::NotReadable)
        ));
    }
}
