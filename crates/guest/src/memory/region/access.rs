//! Reading and writing a memory from outside of compiled code. Nothing here
//! makes a reference into it, as its bytes change whenever the guest runs.

use super::{Region, Watch};

/// Which of two ranges is beyond its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyRefused {
    /// The one that is read.
    Source,
    /// The one that is written.
    Target,
}

impl Region {
    /// Notes a write that is about to happen.
    fn mark(&self, at: u64, length: u64) {
        if let Watch::Cards(cards) = &self.watch {
            cards.mark(at, length);
        }
    }

    /// Appends `length` bytes at `from` to `out`; false, and nothing appended,
    /// if they are not all below the size.
    #[must_use]
    pub fn read(&self, from: u64, length: u64, out: &mut Vec<u8>) -> bool {
        let Some(at) = self.pointer(from, length, self.size()) else {
            return false;
        };
        let length = length as usize;
        out.reserve(length);
        // SAFETY: the bytes are readable (below the size), the spare capacity
        // holds as many (reserved), and no guest code runs meanwhile. Then as
        // many bytes more are initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(at.as_ptr(), out.as_mut_ptr().add(out.len()), length);
            out.set_len(out.len() + length);
        }
        true
    }

    /// Writes `bytes` at `to`; false, and nothing written, if they would not
    /// all lie below the size.
    #[must_use]
    pub fn write(&self, to: u64, bytes: &[u8]) -> bool {
        if self.pointer(to, bytes.len() as u64, self.size()).is_some() {
            self.mark(to, bytes.len() as u64);
        }
        self.write_unnoted(to, bytes)
    }

    /// The same without setting cards, as if the host wrote.
    #[must_use]
    pub(in crate::memory) fn write_unnoted(&self, to: u64, bytes: &[u8]) -> bool {
        let Some(at) = self.pointer(to, bytes.len() as u64, self.size()) else {
            return false;
        };
        // SAFETY: the range is below the size, so each of its pages is
        // writable, or becomes so in the fault handler; `bytes` is no part of
        // it, as nobody makes references into it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr(), bytes.len()) };
        true
    }

    /// Sets `length` bytes at `to` to `byte`; false, and nothing written, if
    /// they would not all lie below the size.
    #[must_use]
    pub(in crate::memory) fn fill(&self, to: u64, length: u64, byte: u8) -> bool {
        let Some(at) = self.pointer(to, length, self.size()) else {
            return false;
        };
        self.mark(to, length);
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_bytes(at.as_ptr(), byte, length as usize) };
        true
    }

    /// Copies `length` bytes at `from` of this memory to `at` of the `other`.
    /// Both ranges must be below the sizes: what is refused is said.
    pub fn copy_to(
        &self,
        from: u64,
        other: &Self,
        at: u64,
        length: u64,
    ) -> Result<(), CopyRefused> {
        let source = self
            .pointer(from, length, self.size())
            .ok_or(CopyRefused::Source)?;
        let target = other
            .pointer(at, length, other.size())
            .ok_or(CopyRefused::Target)?;
        other.mark(at, length);
        // SAFETY: both ranges are below their sizes (as in `read` and `write`),
        // and of two different mappings, or the same one with `copy` semantics.
        unsafe { std::ptr::copy(source.as_ptr(), target.as_ptr(), length as usize) };
        Ok(())
    }
}
