//! An archive, as `lazaret import` reads it. Its checksums are put right first: they would keep the fuzzer out.
#![no_main]

use lazaret_image::{ArchiveLimits, ArchiveReader, header_checksum};
use libfuzzer_sys::fuzz_target;

const LIMITS: ArchiveLimits = ArchiveLimits {
    heap: 1 << 32,
    stable: 1 << 32,
    pages: 1 << 21,
    meta: 1 << 20,
    module: 1 << 20,
};

/// Puts the checksums where `docs/archive.md` has them, as far as the archive goes.
fn seal(bytes: &mut [u8]) -> Option<()> {
    let (header, mut rest) = bytes.split_at_mut_checked(128)?;
    let checksum = header_checksum(header.get(..112)?);
    header.get_mut(112..)?.copy_from_slice(&checksum);
    let mut behind = 128;
    while rest.first()? != &0 {
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
        let (frame, next) =
            rest.split_at_mut_checked(usize::try_from(length).ok()?.checked_add(32)?)?;
        let covered = [frame.get(..16)?, frame.get(32..)?].concat();
        frame
            .get_mut(16..32)?
            .copy_from_slice(&header_checksum(&covered));
        behind += frame.len();
        rest = next;
    }
    let (covered, hash) = bytes.split_at_mut_checked(behind + 32)?;
    hash.get_mut(..32)?
        .copy_from_slice(blake3::hash(covered).as_bytes());
    Some(())
}

fn read(bytes: &[u8]) {
    let Ok(mut reader) = ArchiveReader::open(bytes, &LIMITS) else {
        return;
    };
    let header = reader.header().clone();
    assert_eq!(reader.meta().len() as u64, header.meta_len);
    assert_eq!(reader.module().len() as u64, header.module_len);
    let (mut pages, mut last) = (0, None);
    while let Ok(Some((ids, contents))) = reader.next_pages() {
        assert_eq!(ids.len() * 4096, contents.len());
        for id in ids {
            assert!(last < Some(*id) && header.sizes.contain(*id));
            last = Some(*id);
        }
        pages += ids.len() as u64;
        assert!(pages <= header.pages);
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut sealed = bytes.to_vec();
    let _ = seal(&mut sealed);
    read(&sealed);
});
