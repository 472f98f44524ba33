//! The two checksums of the format, and the test for a page of zeros.

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::page::PAGE_SIZE;

/// A 128-bit checksum as it stands in the files.
pub type Checksum = [u8; CHECKSUM_SIZE];

/// Bytes of a [`Checksum`].
pub const CHECKSUM_SIZE: usize = 16;

/// The checksum of a page: XXH3-64, seed 0.
#[inline]
pub fn page_checksum(page: &[u8]) -> u64 {
    // Finds out at run time which vector instructions there are: twice as fast as what every processor has.
    XxHash3_64::oneshot(page)
}

/// The checksum of a header or manifest: XXH3-128, seed 0, little endian.
pub fn header_checksum(bytes: &[u8]) -> Checksum {
    XxHash3_128::oneshot(bytes).to_le_bytes()
}

/// Whether all bytes of `page` are zero.
#[inline]
pub(crate) fn is_zero(page: &[u8]) -> bool {
    // Pages that hold anything mostly show it in their first bytes, so the test is nearly free for them.
    let (blocks, rest) = page.as_chunks::<64>();
    blocks.iter().all(|block| *block == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

/// The pages of a buffer whose length is a multiple of the page size.
pub(crate) fn pages_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks_exact(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_makes_a_page_nonzero() {
        let mut page = [0; PAGE_SIZE];
        assert!(is_zero(&page));
        for byte in 0..PAGE_SIZE {
            page[byte] = 1 << (byte % 8);
            assert!(!is_zero(&page), "byte {byte}");
            page[byte] = 0;
        }
    }

    /// The vectors of an empty input in the XXH3 specification's reference implementation.
    #[test]
    fn the_checksums_are_xxh3_with_seed_zero() {
        assert_eq!(page_checksum(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(
            u128::from_le_bytes(header_checksum(b"")),
            0x99aa_06d3_0147_98d8_6001_c324_468d_497f
        );
    }
}
