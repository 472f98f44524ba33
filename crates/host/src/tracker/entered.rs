//! Which chunks of a worker's memories were entered: bits in shared memory,
//! which the worker can set as it likes.

use std::sync::atomic::Ordering;

use lazaret_wire::layout::{ENTERED, HEAP_CHUNKS, STABLE_CHUNKS};
use lazaret_wire::message::Region;
use lazaret_wire::{Shared, layout};

/// The first set bit at or after `from`.
pub(super) fn next_set(words: &[u64], from: u64) -> Option<u64> {
    let (at, shift) = ((from / 64) as usize, from % 64);
    let rest = words.get(at..)?;
    rest.iter().enumerate().find_map(|(i, &word)| {
        let word = if i == 0 { word >> shift << shift } else { word };
        (word != 0).then(|| (at + i) as u64 * 64 + u64::from(word.trailing_zeros()))
    })
}

/// The entered chunks, of `chunk` bytes each, of a memory of `size` bytes, a bit
/// each.
pub(super) fn entered(shared: &Shared, region: Region, size: u64, chunk: u64) -> Vec<u64> {
    // Nothing was ever written.
    if shared.u32(ENTERED).load(Ordering::Relaxed) == 0 {
        return Vec::new();
    }
    let at = match region {
        Region::Heap => HEAP_CHUNKS,
        Region::Stable => STABLE_CHUNKS,
    };
    let chunks = size.div_ceil(chunk).min(layout::CHUNKS_SIZE as u64 * 8);
    let mut words: Vec<u64> = (0..chunks.div_ceil(64) as usize)
        .map(|word| shared.u64(at + word * 8).load(Ordering::Relaxed))
        .collect();
    // A bit beyond the size is a lie.
    if let Some(last) = words.last_mut().filter(|_| !chunks.is_multiple_of(64)) {
        *last &= (1 << (chunks % 64)) - 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = layout::CHUNK as u64;

    #[test]
    fn set_bits_are_found_in_order() {
        let words = [1 << 3 | 1 << 63, 0, 1];
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(next) = next_set(&words, from) {
            found.push(next);
            from = next + 1;
        }
        assert_eq!(found, [3, 63, 128]);
        assert_eq!(next_set(&words, 192), None);
    }

    #[test]
    fn a_chunk_beyond_the_size_is_not_entered() {
        use std::os::fd::AsFd;
        let file = lazaret_wire::shared::create().unwrap();
        let shared = Shared::map(file.as_fd()).unwrap();
        shared.u32(ENTERED).store(1, Ordering::Relaxed);
        for word in 0..8 {
            shared
                .u64(HEAP_CHUNKS + word * 8)
                .store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(
            entered(&shared, Region::Heap, 65 * CHUNK + 1, CHUNK),
            [u64::MAX, 0b11]
        );
        assert_eq!(
            entered(&shared, Region::Heap, 64 * CHUNK, CHUNK),
            [u64::MAX]
        );
        assert_eq!(entered(&shared, Region::Stable, CHUNK, CHUNK), [0]);
        assert!(entered(&shared, Region::Heap, 0, CHUNK).is_empty());
    }
}
