//! Archives put together byte by byte from `docs/archive.md`, so that their checksums can be right and all else wrong.

use lazaret_image::{Sizes, header_checksum};

#[derive(Clone)]
pub struct Frame {
    pub kind: u32,
    pub pages: u32,
    /// What the frame says that it decompresses to.
    pub uncompressed: u32,
    pub compressed: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u32, pages: u32, contents: &[u8]) -> Frame {
        Frame {
            kind,
            pages,
            uncompressed: contents.len() as u32,
            compressed: zstd::bulk::compress(contents, 1).unwrap(),
        }
    }

    /// A frame of pages, each filled with one byte, at these addresses.
    pub fn of_pages(pages: &[(u64, u8)]) -> Frame {
        let mut contents: Vec<u8> = pages
            .iter()
            .flat_map(|(address, _)| address.to_le_bytes())
            .collect();
        for (_, fill) in pages {
            contents.extend([*fill; 4096]);
        }
        Frame::new(3, pages.len() as u32, &contents)
    }
}

#[derive(Clone)]
pub struct Archive {
    pub version: u32,
    pub sizes: Sizes,
    pub pages: u64,
    pub module_len: u64,
    pub meta_len: u64,
    pub module_hash: [u8; 32],
    pub frames: Vec<Frame>,
    /// Frames, pages, bytes.
    pub totals: [u64; 3],
}

impl Archive {
    /// With `meta` and a module, and `pages` in one frame.
    pub fn new(sizes: Sizes, pages: &[(u64, u8)]) -> Archive {
        let (meta, module) = (b"meta", b"\0asm");
        Archive {
            version: 1,
            sizes,
            pages: pages.len() as u64,
            module_len: 4,
            meta_len: 4,
            module_hash: *blake3::hash(module).as_bytes(),
            frames: vec![
                Frame::new(1, 0, meta),
                Frame::new(2, 0, module),
                Frame::of_pages(pages),
            ],
            totals: [3, pages.len() as u64, 8 + 4104 * pages.len() as u64],
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"LZRTARC\0".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend([0; 4]);
        out.extend([9; 16]);
        for field in [
            3,
            self.sizes.heap,
            self.sizes.stable,
            self.pages,
            self.module_len,
            self.meta_len,
        ] {
            out.extend(field.to_le_bytes());
        }
        out.extend(self.module_hash);
        out.extend(header_checksum(&out));
        for frame in &self.frames {
            let mut fields = Vec::new();
            for field in [
                frame.kind,
                frame.compressed.len() as u32,
                frame.uncompressed,
                frame.pages,
            ] {
                fields.extend(field.to_le_bytes());
            }
            let checksum = header_checksum(&[&fields[..], &frame.compressed].concat());
            out.extend(fields);
            out.extend(checksum);
            out.extend(&frame.compressed);
        }
        out.extend([0; 8]);
        self.totals
            .iter()
            .for_each(|total| out.extend(total.to_le_bytes()));
        let hash = blake3::hash(&out);
        out.extend(hash.as_bytes());
        out
    }
}
