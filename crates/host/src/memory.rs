//! Copying pages between the host and a worker
//! (`process_vm_readv`, `process_vm_writev`).

use std::io;

use lazaret_image::PageId;
use lazaret_wire::layout::PAGE;
use lazaret_wire::message::{Ready, Region, Sizes, Space};

/// The most parts of one call (`UIO_MAXIOV`, kernel: `include/uapi/linux/uio.h`).
const MAX_PARTS: usize = 1024;

/// The memories of one worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerMemory {
    pid: i32,
    heap_at: u64,
    stable_at: u64,
    cards_at: [u64; 2],
}

impl WorkerMemory {
    /// The memories of the worker `pid`, where it says they are. A lie makes
    /// the host read and write other memory of the same worker; the addresses
    /// must only not overflow.
    pub(crate) fn new(pid: i32, ready: &Ready) -> Option<Self> {
        let plausible = |at: u64| at.is_multiple_of(PAGE as u64) && at < 1 << 47;
        let all = [
            ready.heap_at,
            ready.stable_at,
            ready.cards_at[0],
            ready.cards_at[1],
        ];
        all.into_iter().all(plausible).then_some(Self {
            pid,
            heap_at: ready.heap_at,
            stable_at: ready.stable_at,
            cards_at: ready.cards_at,
        })
    }

    fn address(&self, region: Region, page: u64) -> u64 {
        let base = match region {
            Region::Heap => self.heap_at,
            Region::Stable => self.stable_at,
        };
        base.wrapping_add(page.wrapping_mul(PAGE as u64))
    }

    /// The same worker's memories, or their cards as memories of their own.
    pub(crate) fn space(&self, space: Space) -> Self {
        match space {
            Space::Memory => *self,
            Space::Cards => {
                let [heap_at, stable_at] = self.cards_at;
                Self {
                    heap_at,
                    stable_at,
                    ..*self
                }
            }
        }
    }

    /// Of a process that has a heap, and nothing else.
    #[cfg(test)]
    pub(crate) fn of(pid: i32, heap_at: u64) -> Self {
        Self {
            pid,
            heap_at,
            stable_at: 0,
            cards_at: [0; 2],
        }
    }

    /// The parts of the worker's memory that `pages` are, neighbours joined.
    fn parts(&self, pages: &[(Region, u64)]) -> Vec<libc::iovec> {
        let mut parts: Vec<libc::iovec> = Vec::new();
        let mut end = 0;
        for &(region, page) in pages {
            let at = self.address(region, page);
            match parts.last_mut() {
                Some(part) if end == at => part.iov_len += PAGE,
                _ => parts.push(libc::iovec {
                    iov_base: at as *mut _,
                    iov_len: PAGE,
                }),
            }
            end = at.wrapping_add(PAGE as u64);
        }
        parts
    }

    /// Copies pages out of the worker, one after another.
    pub(crate) fn read(&self, pages: &[(Region, u64)], into: &mut [u8]) -> io::Result<()> {
        self.transfer(
            pages,
            into.as_mut_ptr(),
            into.len(),
            |pid, local, remote| {
                // SAFETY: one local part, which `transfer` keeps inside `into`;
                // remote parts are the other process's and can only fail.
                unsafe {
                    libc::process_vm_readv(pid, local, 1, remote.as_ptr(), remote.len() as _, 0)
                }
            },
        )
    }

    /// Copies pages into the worker.
    pub(crate) fn write(&self, pages: &[(Region, u64)], from: &[u8]) -> io::Result<()> {
        self.transfer(
            pages,
            from.as_ptr().cast_mut(),
            from.len(),
            |pid, local, remote| {
                // SAFETY: as in `read`; the local part is only read from.
                unsafe {
                    libc::process_vm_writev(pid, local, 1, remote.as_ptr(), remote.len() as _, 0)
                }
            },
        )
    }

    fn transfer(
        &self,
        pages: &[(Region, u64)],
        local: *mut u8,
        length: usize,
        call: impl Fn(i32, *const libc::iovec, &[libc::iovec]) -> isize,
    ) -> io::Result<()> {
        if length != pages.len() * PAGE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let parts = self.parts(pages);
        let mut done = 0;
        for remote in parts.chunks(MAX_PARTS) {
            let wanted: usize = remote.iter().map(|part| part.iov_len).sum();
            let part = libc::iovec {
                iov_base: local.wrapping_add(done).cast(),
                iov_len: wanted,
            };
            let moved = call(self.pid, &raw const part, remote);
            if moved < 0 {
                return Err(io::Error::last_os_error());
            }
            if moved as usize != wanted {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{moved} of {wanted} bytes"),
                ));
            }
            done += wanted;
        }
        Ok(())
    }
}

/// The wire's name for a region of the image.
pub(crate) fn from_image(region: lazaret_image::Region) -> Region {
    match region {
        lazaret_image::Region::Heap => Region::Heap,
        lazaret_image::Region::Stable => Region::Stable,
    }
}

/// The image's name for a region of the wire.
pub(crate) fn to_image(region: Region) -> lazaret_image::Region {
    match region {
        Region::Heap => lazaret_image::Region::Heap,
        Region::Stable => lazaret_image::Region::Stable,
    }
}

/// The image's sizes, as the wire says them.
pub(crate) fn sizes(sizes: lazaret_image::Sizes) -> Sizes {
    Sizes {
        heap: sizes.heap,
        stable: sizes.stable,
    }
}

/// The wire's sizes, as the image says them.
pub(crate) fn image_sizes(sizes: Sizes) -> lazaret_image::Sizes {
    lazaret_image::Sizes {
        heap: sizes.heap,
        stable: sizes.stable,
    }
}

/// The pages of a memory with these sizes.
pub(crate) fn pages(sizes: Sizes, region: Region) -> u64 {
    let size = match region {
        Region::Heap => sizes.heap,
        Region::Stable => sizes.stable,
    };
    size.div_ceil(PAGE as u64)
}

/// The wire's name for a page of the image.
pub(crate) fn wire_page(page: &PageId) -> (Region, u64) {
    (from_image(page.region()), page.page())
}

/// The image's name for a page.
pub(crate) fn page_id(&(region, page): &(Region, u64)) -> Option<PageId> {
    PageId::new(to_image(region), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_process_are_read_and_written_in_order() {
        // This process stands in for a worker.
        let mut memory = vec![0u8; PAGE * 8];
        let aligned = (memory.as_mut_ptr() as u64).next_multiple_of(PAGE as u64);
        let ready = Ready {
            heap_at: aligned,
            stable_at: aligned + PAGE as u64 * 4,
            cards_at: [0; 2],
            missing: Vec::new(),
        };
        let worker = WorkerMemory::new(std::process::id() as i32, &ready).unwrap();
        let pages = [
            (Region::Heap, 0),
            (Region::Heap, 1),
            (Region::Heap, 3),
            (Region::Stable, 2),
        ];
        let bytes: Vec<u8> = (0..4 * PAGE).map(|i| (i / PAGE + 1) as u8).collect();
        worker.write(&pages, &bytes).unwrap();
        let mut back = vec![0; 4 * PAGE];
        worker.read(&pages, &mut back).unwrap();
        assert_eq!(back, bytes);
        let mut one = vec![0; PAGE];
        worker.read(&[(Region::Stable, 2)], &mut one).unwrap();
        assert_eq!(one, vec![4; PAGE]);
        assert!(
            worker.read(&pages, &mut one).is_err(),
            "a buffer of the wrong length"
        );
        let nowhere = WorkerMemory::new(
            std::process::id() as i32,
            &Ready {
                heap_at: 0,
                stable_at: 0,
                cards_at: [0; 2],
                missing: Vec::new(),
            },
        )
        .unwrap();
        assert!(nowhere.read(&[(Region::Heap, 0)], &mut one).is_err());
    }
}
