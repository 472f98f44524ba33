//! The workers' executable, and copies of it: no file is mapped by thousands of them.
//!
//! All mappings of a file are in one tree behind one lock (`i_mmap_rwsem`, kernel:
//! `mm/rmap.c`, `mm/vma.c`). Whoever executes the file takes it for writing, some ten
//! times; whoever looks which of the file's pages are used (reclaim, DAMON) holds it
//! while it goes through every process that has the page. With 5,000 workers of one file
//! starts were seen to wait there for half a second. So a copy in memory is made for
//! each few hundred workers that live.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::executable::{Unwritable, sealed_copy_of};

/// The most workers that live with one file. A copy costs each of so many 1/256 of it.
const MOST: usize = 256;
/// A longer file isn't copied, bytes: it is a whole program, and a few copies of it are
/// more memory than all the workers.
const LONGEST: u64 = 16 << 20;

/// The executable and its copies.
#[derive(Debug)]
pub struct Copies {
    original: Unwritable,
    /// How many live with the original, and with each copy.
    live: Vec<usize>,
    /// Those that there are.
    copies: Vec<Option<OwnedFd>>,
    /// Whether copies can be made.
    copied: bool,
}

/// Where the next worker goes: the first with room.
fn place(live: &[usize]) -> Option<usize> {
    live.iter().position(|live| *live < MOST)
}

impl Copies {
    pub fn new(original: Unwritable) -> Self {
        Self {
            original,
            live: vec![0],
            copies: vec![None],
            copied: true,
        }
    }

    /// The file for one more worker, and its number. `proc` is `/proc`.
    pub fn next(&mut self, proc: BorrowedFd<'_>) -> io::Result<(usize, BorrowedFd<'_>)> {
        let mut number = place(&self.live).unwrap_or(self.live.len());
        if number > 0 && self.copied && self.copies.get(number).is_none_or(Option::is_none) {
            match copy(self.original.get()?, proc) {
                Ok(made) if number == self.copies.len() => {
                    self.copies.push(Some(made));
                    self.live.push(0);
                }
                Ok(made) => self.copies[number] = Some(made),
                // All go with the one that is there.
                Err(_) => self.copied = false,
            }
        }
        if !self.copied {
            number = 0;
        }
        match self.copies.get(number) {
            Some(Some(copy)) => Ok((number, copy.as_fd())),
            _ => Ok((0, self.original.get()?)),
        }
    }

    /// A worker lives with this one.
    pub fn started(&mut self, number: usize) {
        if let Some(live) = self.live.get_mut(number) {
            *live += 1;
        }
    }

    /// A worker that lived with this one has ended. One copy without any stays: where a
    /// worker comes and goes at the edge, none is made for each.
    pub fn ended(&mut self, number: usize) {
        let Some(live) = self.live.get_mut(number) else {
            return;
        };
        *live = live.saturating_sub(1);
        if *live == 0 {
            for (other, copy) in self.copies.iter_mut().enumerate() {
                if other != number && self.live[other] == 0 {
                    *copy = None;
                }
            }
        }
    }
}

fn copy(original: BorrowedFd<'_>, proc: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let length = rustix::fs::fstat(original)?.st_size;
    if u64::try_from(length).is_ok_and(|length| length > LONGEST) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    sealed_copy_of(original, proc)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_of_so_many_and_one_copy_without_any_stays() {
        let proc = std::fs::File::open("/proc").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a program").unwrap();
        let mut copies = Copies::new(Unwritable::new(file.into()));
        let start = |copies: &mut Copies| {
            let (number, file) = copies.next(proc.as_fd()).unwrap();
            let inode = rustix::fs::fstat(file).unwrap().st_ino;
            let mut bytes = [0; 16];
            let read = rustix::io::pread(file, &mut bytes, 0).unwrap();
            assert_eq!(&bytes[..read], b"a program");
            copies.started(number);
            (number, inode)
        };
        let first: Vec<_> = (0..MOST).map(|_| start(&mut copies)).collect();
        assert!(first.iter().all(|one| *one == first[0] && one.0 == 0));
        let second = start(&mut copies);
        assert_eq!(second.0, 1);
        assert_ne!(second.1, first[0].1);
        assert_eq!(start(&mut copies), second);
        // There is room again.
        copies.ended(0);
        assert_eq!(start(&mut copies), first[0]);
        assert!(copies.copies[1].is_some());
        copies.ended(1);
        copies.ended(1);
        // It is there for the next one, and goes when another has nobody.
        assert_eq!(start(&mut copies), second);
        let more: Vec<_> = (0..MOST).map(|_| start(&mut copies)).collect();
        assert_eq!(more[MOST - 1].0, 2);
        for _ in 0..MOST {
            copies.ended(1);
        }
        assert!(copies.copies[1].is_some() && copies.copies[2].is_some());
        copies.ended(2);
        assert!(copies.copies[1].is_none() && copies.copies[2].is_some());
        let third = start(&mut copies);
        assert_eq!(third.0, 1);
        assert_ne!(third.1, second.1);
        // Nobody's end is noted twice, or of a number that there isn't.
        copies.ended(7);
        assert_eq!(copies.live, [MOST, 1, 0]);
    }

    #[test]
    fn without_proc_all_go_with_the_original() {
        let nowhere = std::fs::File::open("/dev/null").unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut copies = Copies::new(Unwritable::new(file.into()));
        for _ in 0..MOST + 2 {
            let (number, _) = copies.next(nowhere.as_fd()).unwrap();
            assert_eq!(number, 0);
            copies.started(number);
        }
    }
}
