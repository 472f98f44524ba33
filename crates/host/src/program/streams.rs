//! A program's standard streams.
//!
//! A worker gets pipes, regular files or sockets, never a terminal or another
//! device: what can be done to those with a descriptor (ioctl) is more than
//! reading and writing. A terminal is relayed through a pipe, and control
//! sequences in what the program prints on one are made harmless. Output
//! always goes through a pipe, where its bytes are counted.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

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

/// Where a worker's ends and the host's ends of the streams are.
pub(super) struct Streams {
    worker: [OwnedFd; 3],
    feed: Option<(OwnedFd, Source)>,
    drains: [(OwnedFd, Output); 2],
    limit: Option<u64>,
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
) -> Result<Streams, StreamError> {
    let (stdin, feed) = connect_input(input)?;
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    Ok(Streams {
        worker: [stdin, out_write, err_write],
        feed,
        drains: [(out_read, output), (err_read, error)],
        limit,
    })
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

/// Threads that carry bytes while the program runs.
pub(super) struct Relays {
    drains: Vec<JoinHandle<()>>,
    count: Arc<Count>,
}

struct Count {
    bytes: AtomicU64,
    limit: Option<u64>,
    hit: AtomicBool,
}

/// What went through.
pub(super) struct Counted {
    pub bytes: u64,
    pub limit_hit: bool,
}

impl Streams {
    /// The ends that the worker is given: input, output, error.
    pub(super) fn worker_ends(&self) -> impl Iterator<Item = &OwnedFd> {
        self.worker.iter()
    }

    /// Starts to carry bytes. The worker has its ends by now; the host's
    /// copies of them are closed here.
    pub(super) fn start(self) -> Relays {
        drop(self.worker);
        if let Some((to, source)) = self.feed {
            // Not joined: it may wait for a terminal long after the program's
            // end. It ends with its pipe or with this process.
            let _ = std::thread::Builder::new()
                .name("lazaret-stdin".into())
                .spawn(move || feed(to, source));
        }
        let count = Arc::new(Count {
            bytes: AtomicU64::new(0),
            limit: self.limit,
            hit: AtomicBool::new(false),
        });
        let drains = self
            .drains
            .into_iter()
            .filter_map(|(from, output)| {
                let count = count.clone();
                std::thread::Builder::new()
                    .name("lazaret-output".into())
                    .spawn(move || drain(from, output, &count))
                    .ok()
            })
            .collect();
        Relays { drains, count }
    }
}

impl Relays {
    /// Waits until all that the program wrote has gone through. The worker
    /// must be dead.
    pub(super) fn finish(self) -> Counted {
        for drain in self.drains {
            let _ = drain.join();
        }
        Counted {
            bytes: self.count.bytes.load(Ordering::SeqCst),
            limit_hit: self.count.hit.load(Ordering::SeqCst),
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

fn drain(from: OwnedFd, output: Output, count: &Count) {
    let mut from = std::fs::File::from(from);
    let terminal = match &output {
        Output::Descriptor(descriptor) => rustix::termios::isatty(descriptor.as_fd()),
        _ => false,
    };
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let before = count.bytes.fetch_add(read as u64, Ordering::SeqCst);
        let allowed = match count.limit {
            None => read,
            Some(limit) => (limit.saturating_sub(before)).min(read as u64) as usize,
        };
        let bytes = &buffer[..allowed];
        let written = match &output {
            Output::Discard => Ok(()),
            Output::Buffer(buffer) => {
                buffer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(bytes);
                Ok(())
            }
            Output::Descriptor(descriptor) if terminal => write_all(descriptor, &harmless(bytes)),
            Output::Descriptor(descriptor) => write_all(descriptor, bytes),
        };
        if allowed < read {
            count.hit.store(true, Ordering::SeqCst);
        }
        // The reader is gone or the limit is reached: closing the pipe lets
        // the program see that, as it would without us.
        if written.is_err() || allowed < read {
            return;
        }
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut set = [rustix::event::PollFd::new(
                    to,
                    rustix::event::PollFlags::OUT,
                )];
                let _ = rustix::event::poll(&mut set, None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// What a program prints on a terminal, without control sequences: escape
/// becomes a visible `␛`, other control characters but tab, newline and
/// carriage return become their pictures (Unicode block Control Pictures), and
/// the C1 set in UTF-8 becomes a replacement character.
fn harmless(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut previous = 0;
    for &byte in bytes {
        match byte {
            b'\t' | b'\n' | b'\r' => out.push(byte),
            0..=0x1f => out.extend_from_slice(picture(0x2400 + u32::from(byte)).as_slice()),
            0x7f => out.extend_from_slice(picture(0x2421).as_slice()),
            // U+0080..U+009F are C2 80..C2 9F.
            0x80..=0x9f if previous == 0xc2 => {
                out.pop();
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
            _ => out.push(byte),
        }
        previous = byte;
    }
    out
}

fn picture(code: u32) -> Vec<u8> {
    char::from_u32(code)
        .unwrap_or('\u{fffd}')
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_shown_not_obeyed() {
        assert_eq!(harmless(b"a\x1b[2Jb\n"), "a\u{241b}[2Jb\n".as_bytes());
        assert_eq!(harmless("\u{9b}31m".as_bytes()), "\u{fffd}31m".as_bytes());
        assert_eq!(harmless("é\t\r\n".as_bytes()), "é\t\r\n".as_bytes());
        assert_eq!(harmless(b"\x07\x7f"), "\u{2407}\u{2421}".as_bytes());
    }

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

    #[test]
    fn output_over_the_limit_is_cut_and_said() {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let streams = connect(
            Input::Empty,
            Output::Buffer(buffer.clone()),
            Output::Discard,
            Some(5),
        )
        .unwrap();
        rustix::io::write(&streams.worker[1], b"0123456789").unwrap();
        let counted = streams.start().finish();
        assert_eq!(buffer.lock().unwrap().as_slice(), b"01234");
        assert!(counted.limit_hit);
        assert_eq!(counted.bytes, 10);
    }
}
