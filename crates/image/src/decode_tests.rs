use proptest::prelude::*;

use super::*;
use crate::encode::{SegmentEncoder, encode_manifest, encode_shard_header};
use crate::format::{Origin, SealedLog, ShardEntry};
use crate::page::{PageId, Region, Sizes};

fn id() -> impl Strategy<Value = PageId> {
    (0..2u32, prop_oneof![0..64u64, 0..MAX_PAGES])
        .prop_map(|(region, page)| PageId::new(Region::from_number(region).unwrap(), page).unwrap())
}

fn sizes() -> Sizes {
    Sizes {
        heap: crate::page::MAX_SIZE,
        stable: crate::page::MAX_SIZE,
    }
}

prop_compose! {
    fn segment()(
        pages in proptest::collection::btree_map(id(), proptest::option::of(any::<u64>()), 0..300),
        meta in proptest::collection::vec(any::<u8>(), 0..5000),
        tenant: [u8; 16],
        version: u64,
        durable_upto: u64,
        previous: [u8; 16],
    ) -> SegmentHeader {
        let data: Vec<_> = pages.iter().filter_map(|(id, sum)| Some((*id, (*sum)?))).collect();
        let zeros: Vec<_> = pages.iter().filter(|(_, sum)| sum.is_none()).map(|(id, _)| *id).collect();
        let fields = SegmentFields {
            tenant: TenantId(tenant),
            version: Version(version),
            durable_upto,
            sizes: sizes(),
            data_pages: data.len() as u64,
            zero_pages: zeros.len() as u64,
            meta_len: meta.len() as u64,
            previous,
        };
        let header_len = fields.header_len().unwrap();
        SegmentHeader { fields, header_len, data, zeros, meta, checksum: [0; 16] }
    }
}

fn encode(header: &SegmentHeader) -> Vec<u8> {
    let mut encoder = SegmentEncoder::default();
    encoder.begin();
    header
        .data
        .iter()
        .for_each(|(page, checksum)| encoder.data_page(*page, *checksum));
    encoder
        .finish(&header.fields, &header.zeros, &header.meta)
        .unwrap()
        .to_vec()
}

prop_compose! {
    fn shard()(
        gaps in proptest::collection::vec((1..100u64, 1..20u64), 0..40),
        seed: u64,
        tenant: [u8; 16],
    ) -> ShardHeader {
        let mut next = 0;
        let runs: Vec<_> = gaps.into_iter().map(|(gap, pages)| {
            let first = next + gap;
            next = first + pages;
            (first, pages)
        }).collect();
        let pages: u64 = runs.iter().map(|(_, pages)| pages).sum();
        let checksums = (0..pages).map(|page| page.wrapping_mul(seed)).collect();
        ShardHeader { tenant: TenantId(tenant), file: FileId(seed), region: Region::Stable, runs, checksums }
    }
}

fn manifest() -> Manifest {
    let shard = |file, region, first_page, last_page| ShardEntry {
        file: FileId(file),
        origin: Origin {
            tenant: TenantId([file as u8; 16]),
            file: FileId(file + 30),
        },
        region,
        first_page,
        last_page,
        pages: 2,
        header_len: 4096,
        checksum: [file as u8; 16],
    };
    let sealed = |file, length| SealedLog {
        file: FileId(file),
        origin: Origin {
            tenant: TenantId([file as u8; 16]),
            file: FileId(u64::MAX),
        },
        seed: [file as u8; 16],
        begin: Version(400),
        length,
        checksum: [2; 16],
    };
    Manifest {
        tenant: TenantId([7; 16]),
        version: Version(11),
        sizes: sizes(),
        next_file: FileId(9),
        shards: vec![
            shard(1, Region::Heap, 0, 5),
            shard(4, Region::Heap, 6, 7),
            shard(2, Region::Stable, 0, 9),
        ],
        sealed: vec![sealed(3, 4096), sealed(6, 1 << 30)],
        log: LogEntry {
            file: FileId(8),
            seed: [3; 16],
            durable_len: 8192,
        },
        meta: b"globals".to_vec(),
    }
}

fn reseal(bytes: &mut [u8]) {
    let length = bytes.len() - CHECKSUM_SIZE;
    let checksum = header_checksum(&bytes[..length]);
    bytes[length..].copy_from_slice(&checksum);
}

proptest! {
    #[test]
    fn segments_round_trip(header in segment(), behind in 0..200usize) {
        let mut bytes = encode(&header);
        prop_assert_eq!(bytes.len() as u64, header.header_len);
        bytes.resize(bytes.len() + behind, 0xaa);
        let decoded = decode_segment_header(&bytes).unwrap();
        prop_assert_eq!(SegmentHeader { checksum: [0; 16], ..decoded }, header);
    }

    #[test]
    fn shards_round_trip(header in shard()) {
        let bytes = encode_shard_header(&header).unwrap();
        prop_assert_eq!(decode_shard_header(&bytes).unwrap().0, header);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, magic in 0..4usize, format in 1..3u8) {
        let magics = [MANIFEST_MAGIC, SHARD_MAGIC, SEGMENT_MAGIC];
        if let (Some(magic), true) = (magics.get(magic), bytes.len() >= 32) {
            bytes[..8].copy_from_slice(magic);
            bytes[8..16].copy_from_slice(&[format, 0, 0, 0, 0, 0, 0, 0]);
            reseal(&mut bytes);
        }
        let _ = decode_manifest(&bytes);
        let _ = decode_shard_header(&bytes);
        let _ = decode_segment_fields(&bytes);
        let _ = decode_segment_header(&bytes);
    }

    /// Whatever decodes is canonical: it encodes to the same bytes. So no two headers mean the same.
    #[test]
    fn resealed_segments_are_refused_or_canonical(header in segment(), at: prop::sample::Index, value: u8) {
        let mut bytes = encode(&header);
        let at = at.index(bytes.len() - CHECKSUM_SIZE);
        bytes[at] = value;
        reseal(&mut bytes);
        if let Ok(decoded) = decode_segment_header(&bytes) {
            prop_assert_eq!(encode(&decoded), bytes);
        }
    }

    #[test]
    fn resealed_manifests_are_refused_or_canonical(at: prop::sample::Index, value: u8) {
        let mut bytes = encode_manifest(&manifest());
        let at = at.index(bytes.len() - CHECKSUM_SIZE);
        bytes[at] = value;
        reseal(&mut bytes);
        if let Ok(decoded) = decode_manifest(&bytes) {
            prop_assert_eq!(encode_manifest(&decoded), bytes);
        }
    }
}

#[test]
fn manifests_round_trip() {
    assert_eq!(
        decode_manifest(&encode_manifest(&manifest())),
        Ok(manifest())
    );
}

#[test]
fn impossible_manifests_are_refused() {
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        decode_manifest(&encode_manifest(&manifest)).unwrap_err()
    };
    let field = |field, value| DecodeError::Field { field, value };
    assert_eq!(
        refused(|manifest| manifest.shards[1].first_page = 5),
        field("first page", 5)
    );
    assert_eq!(
        refused(|manifest| manifest.shards.swap(0, 2)),
        field("first page", 6)
    );
    assert_eq!(
        refused(|manifest| manifest.shards[0].pages = 7),
        field("pages stored", 7)
    );
    assert_eq!(
        refused(|manifest| manifest.shards[0].pages = 0),
        field("pages stored", 0)
    );
    assert_eq!(
        refused(|manifest| manifest.shards[0].file = FileId(9)),
        field("file number", 9)
    );
    assert_eq!(
        refused(|manifest| manifest.log.file = FileId(9)),
        field("file number", 9)
    );
    for file in [1, 3, 8] {
        let mut twice = manifest();
        twice.sealed[1].file = FileId(file);
        assert_eq!(
            decode_manifest(&encode_manifest(&twice)),
            Err(field("file number", file))
        );
    }
    for length in [0, 1, 4097] {
        let mut odd = manifest();
        odd.sealed[0].length = length;
        assert_eq!(
            decode_manifest(&encode_manifest(&odd)),
            Err(field("length of a sealed log", length))
        );
    }
    assert_eq!(
        refused(|manifest| manifest.sizes.stable = 9 * 4096),
        field("last page", 9)
    );
    assert_eq!(
        refused(|manifest| manifest.sizes.heap = u64::MAX),
        field("size of the heap", u64::MAX)
    );
    assert_eq!(
        refused(|manifest| manifest.meta = vec![0; MAX_META + 1]),
        field("length of meta", 1 + (1 << 20))
    );
}

#[test]
fn counts_that_promise_more_than_there_is_allocate_nothing() {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8] = 1;
    let pages = crate::format::MAX_SEGMENT_PAGES;
    bytes[64..72].copy_from_slice(&pages.to_le_bytes());
    let length = crate::format::segment_header_len(pages, 0).unwrap();
    bytes[88..96].copy_from_slice(&length.to_le_bytes());
    reseal(&mut bytes);
    assert_eq!(
        decode_segment_header(&bytes),
        Err(DecodeError::Length {
            expected: length,
            found: 4096
        })
    );
}

#[test]
fn newer_formats_are_their_own_error() {
    let mut bytes = encode_manifest(&manifest());
    bytes[8] = 3;
    assert_eq!(
        decode_manifest(&bytes),
        Err(DecodeError::NewerFormat { found: 3 })
    );
    let shard = ShardHeader {
        tenant: TenantId([0; 16]),
        file: FileId(1),
        region: Region::Heap,
        runs: vec![(0, 1)],
        checksums: vec![5],
    };
    let mut bytes = encode_shard_header(&shard).unwrap();
    bytes[8] = 2;
    assert_eq!(
        decode_shard_header(&bytes),
        Err(DecodeError::NewerFormat { found: 2 })
    );
}
