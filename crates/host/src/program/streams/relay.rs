//! Output, from the worker's pipe to wherever it goes, counted on the way.
//!
//! Whoever is to read it may never do so. A thread of its own waits for that,
//! and as long as it can it waits in a way that it can be called back from.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

use super::{Output, pipe};

/// Threads that carry bytes while the program runs.
pub(in crate::program) struct Relays {
    count: Arc<Count>,
    /// Nothing is ever sent: it closes when the last thread is done.
    done: Receiver<()>,
    /// Closing it calls the threads back.
    stop: OwnedFd,
}

struct Count {
    bytes: AtomicU64,
    limit: Option<u64>,
    hit: AtomicBool,
}

/// What went through.
pub(in crate::program) struct Counted {
    /// Bytes that the program wrote, as far as they were looked at.
    pub bytes: u64,
    /// Whether it wrote more than it may.
    pub limit_hit: bool,
    /// Whether something is left that nobody read in time.
    pub unread: bool,
}

/// How long threads that were called back may take to end. One that waits for
/// a stopped terminal doesn't: it is left behind.
const CALLED_BACK: Duration = Duration::from_millis(100);

impl Relays {
    /// Starts a thread for each pipe.
    pub(super) fn start(
        pipes: impl IntoIterator<Item = (OwnedFd, Output)>,
        limit: Option<u64>,
    ) -> io::Result<Self> {
        let count = Arc::new(Count {
            bytes: AtomicU64::new(0),
            limit,
            hit: AtomicBool::new(false),
        });
        let (stopped, stop) = pipe()?;
        let stopped = Arc::new(stopped);
        let (alive, done) = channel();
        for (from, output) in pipes {
            let (count, stopped, alive) = (count.clone(), stopped.clone(), alive.clone());
            std::thread::Builder::new()
                .name("lazaret-output".into())
                .spawn(move || {
                    let _alive: Sender<()> = alive;
                    drain(from, &output, &count, &stopped);
                })?;
        }
        Ok(Self { count, done, stop })
    }

    /// Waits until all that the program wrote has gone through, but not longer
    /// than to `until`. The worker must be dead.
    pub(in crate::program) fn finish(self, until: Option<Instant>) -> Counted {
        let wait = |left: Duration| {
            let ended = self.done.recv_timeout(left);
            ended == Err(RecvTimeoutError::Disconnected)
        };
        let all = match until {
            // Ends when every thread has dropped its sender.
            None => self.done.recv().is_err(),
            Some(until) => wait(until.saturating_duration_since(Instant::now())),
        };
        if !all {
            drop(self.stop);
            wait(CALLED_BACK);
        }
        Counted {
            bytes: self.count.bytes.load(Ordering::SeqCst),
            limit_hit: self.count.hit.load(Ordering::SeqCst),
            unread: !all,
        }
    }
}

/// How a descriptor is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pipe or a socket: its reader decides how long it takes.
    Reader,
    /// A terminal: a person looks at it.
    Terminal,
    /// A file or a device.
    Other,
}

fn kind(of: &OwnedFd) -> Kind {
    let mode = rustix::fs::fstat(of).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match mode {
        Ok(FileType::Fifo | FileType::Socket) => Kind::Reader,
        _ if rustix::termios::isatty(of.as_fd()) => Kind::Terminal,
        _ => Kind::Other,
    }
}

fn drain(from: OwnedFd, output: &Output, count: &Count, stopped: &OwnedFd) {
    let mut from = std::fs::File::from(from);
    let kind = match output {
        Output::Descriptor(descriptor) => kind(descriptor),
        _ => Kind::Other,
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
        let written = match output {
            Output::Discard => Ok(()),
            Output::Buffer(buffer) => {
                buffer
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(bytes);
                Ok(())
            }
            Output::Descriptor(descriptor) => match kind {
                Kind::Reader => write_to_reader(descriptor, bytes, stopped),
                Kind::Terminal => write_all(descriptor, &harmless(bytes)),
                Kind::Other => write_all(descriptor, bytes),
            },
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

/// Writes to a pipe or socket, and stops when `stopped` is closed.
///
/// The descriptor is shared with other processes as a rule, so it must not be
/// made non-blocking: each write is (`RWF_NOWAIT`, pwritev2(2)). A kernel that
/// can't do that with pipes (before Linux 6.5, commit afed6271f5b0) is written
/// to as ever, and the thread may be left behind.
fn write_to_reader(to: &OwnedFd, mut bytes: &[u8], stopped: &OwnedFd) -> io::Result<()> {
    // The current position: the only one that a pipe has.
    const HERE: u64 = u64::MAX;
    while !bytes.is_empty() {
        match rustix::io::pwritev2(to, &[IoSlice::new(bytes)], HERE, ReadWriteFlags::NOWAIT) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut set = [
                    PollFd::new(to, PollFlags::OUT),
                    PollFd::new(stopped, PollFlags::IN),
                ];
                match rustix::event::poll(&mut set, None) {
                    Ok(_) if !set[1].revents().is_empty() => {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return write_all(to, bytes),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut set = [PollFd::new(to, PollFlags::OUT)];
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
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn control_sequences_are_shown_not_obeyed() {
        assert_eq!(harmless(b"a\x1b[2Jb\n"), "a\u{241b}[2Jb\n".as_bytes());
        assert_eq!(harmless("\u{9b}31m".as_bytes()), "\u{fffd}31m".as_bytes());
        assert_eq!(harmless("é\t\r\n".as_bytes()), "é\t\r\n".as_bytes());
        assert_eq!(harmless(b"\x07\x7f"), "\u{2407}\u{2421}".as_bytes());
    }

    #[test]
    fn output_over_the_limit_is_cut_and_said() {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let (streams, mut drains) = super::super::connect(
            super::super::Input::Empty,
            Output::Buffer(buffer.clone()),
            Output::Discard,
            Some(5),
        )
        .unwrap();
        rustix::io::write(&streams.worker[1], b"0123456789").unwrap();
        let relays = drains.carry().unwrap();
        streams.feed();
        let counted = relays.finish(None);
        assert_eq!(buffer.lock().unwrap().as_slice(), b"01234");
        assert!(counted.limit_hit);
        assert_eq!(counted.bytes, 10);
    }

    /// 100 KiB on their way through a relay to a pipe, whose reader this
    /// returns: more than that pipe holds (64 KiB, pipe(7)), less than fits on
    /// the whole way.
    fn on_the_way() -> (Relays, std::fs::File) {
        let (worker, ours) = (pipe().unwrap(), pipe().unwrap());
        let out = Output::Descriptor(Arc::new(ours.1));
        let relays = Relays::start([(worker.0, out)], None).unwrap();
        io::Write::write_all(&mut std::fs::File::from(worker.1), &[7; 100 << 10]).unwrap();
        (relays, ours.0.into())
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for_longer_than_said() {
        let (relays, mut reader) = on_the_way();
        let counted = relays.finish(Some(Instant::now()));
        assert!(counted.unread && !counted.limit_hit);
        // The thread has gone, and with it the pipe's last writer: this ends.
        reader.read_to_end(&mut Vec::new()).unwrap();
    }

    #[test]
    fn a_reader_that_reads_late_gets_everything() {
        let (relays, mut reader) = on_the_way();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        assert!(!relays.finish(None).unread);
        assert_eq!(late.join().unwrap(), 100 << 10);
    }
}
