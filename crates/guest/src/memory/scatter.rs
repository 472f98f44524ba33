//! Reading short runs into the memories: what lies together in a file is read
//! by one call, wherever in memory its pages belong. A state whose every other
//! page was changed since its base has a short run for each.

use std::os::fd::{AsRawFd, OwnedFd};

use lazaret_wire::layout;
use lazaret_wire::message::Run;
use rustix::io::Errno;

use super::region::Region;

const PAGE: u64 = layout::PAGE as u64;

/// Parts of one call (`UIO_MAXIOV`, kernel: include/uapi/linux/uio.h).
const MAX_PARTS: usize = 1024;
/// Pages between two runs in their file that are read for nothing rather than
/// begin another call.
const MAX_GAP: u64 = 4;

/// Copies `runs`, which have been checked, into anonymous, writable pages.
pub(super) fn read(runs: &mut [(&Run, &Region)], files: &[OwnedFd]) -> Result<(), Errno> {
    runs.sort_unstable_by_key(|(run, _)| (run.file, run.offset));
    let mut nowhere = vec![0u8; (MAX_GAP * PAGE) as usize];
    let mut rest = &*runs;
    while let Some(((first, _), _)) = rest.split_first() {
        let file = files.get(usize::from(first.file)).ok_or(Errno::BADF)?;
        let (mut parts, mut end, mut count) = (Vec::new(), first.offset, 0);
        for (run, memory) in rest {
            // Two runs may even be of the same pages of a file.
            let Some(gap) = run
                .offset
                .checked_sub(end)
                .filter(|gap| *gap <= MAX_GAP * PAGE)
            else {
                break;
            };
            if run.file != first.file || parts.len() + 2 > MAX_PARTS {
                break;
            }
            if gap > 0 {
                parts.push(part(nowhere.as_mut_ptr(), gap));
            }
            let length = run.pages * PAGE;
            let at = memory
                .pointer(run.first_page * PAGE, length, memory.size())
                .ok_or(Errno::FAULT)?;
            parts.push(part(at.as_ptr(), length));
            end = run.offset + length;
            count += 1;
        }
        // SAFETY: each part is `nowhere`, which is as long as the longest gap,
        // or a range below its memory's size, writable here and referred to by
        // nobody.
        unsafe { read_all(file, &mut parts, first.offset)? };
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

fn part(at: *mut u8, length: u64) -> libc::iovec {
    libc::iovec {
        iov_base: at.cast(),
        iov_len: length as usize,
    }
}

/// Fills all parts from `offset` on.
///
/// # Safety
/// Each part must be memory that may be written and that nobody refers to.
unsafe fn read_all(
    file: &OwnedFd,
    parts: &mut [libc::iovec],
    mut offset: u64,
) -> Result<(), Errno> {
    let mut rest = parts;
    while !rest.is_empty() {
        // SAFETY: the caller's promise for the parts; their number is below
        // what the kernel takes.
        let read = unsafe {
            libc::preadv(
                file.as_raw_fd(),
                rest.as_ptr(),
                rest.len() as libc::c_int,
                offset as libc::off_t,
            )
        };
        let mut read = match read {
            ..0 => match Errno::from_io_error(&std::io::Error::last_os_error()) {
                Some(Errno::INTR) => continue,
                other => return Err(other.unwrap_or(Errno::IO)),
            },
            // The file is shorter than it was a moment ago.
            0 => return Err(Errno::IO),
            read => read as usize,
        };
        offset += read as u64;
        let mut done = 0;
        for part in rest.iter_mut() {
            if read < part.iov_len {
                part.iov_base = part.iov_base.wrapping_byte_add(read);
                part.iov_len -= read;
                break;
            }
            read -= part.iov_len;
            done += 1;
        }
        rest = rest.get_mut(done..).unwrap_or_default();
    }
    Ok(())
}
