//! All that is in a process's memory, searched from outside through
//! `/proc/PID/mem`.
// Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;
/// Pages that are read at once.
const BATCH: u64 = 256;

/// What was looked at, and where the bytes were found.
#[derive(Debug, Default)]
pub struct Found {
    /// Bytes that were read.
    pub bytes: u64,
    /// Mappings of which anything was read.
    pub mappings: usize,
    /// Mappings that are shared, and may be written by somebody else.
    pub shared: usize,
    /// The names of mappings in which the needle is, with its addresses.
    pub places: Vec<(String, u64)>,
}

/// A mapping that can be read.
#[derive(Debug)]
pub struct Mapping {
    pub from: u64,
    pub to: u64,
    pub flags: String,
    /// Device and inode; nothing for anonymous memory.
    pub file: Option<(String, u64)>,
    pub name: String,
}

/// What `/proc/PID/maps` lists, but for what the kernel shows of itself.
pub fn mappings(pid: i32) -> Vec<Mapping> {
    let maps = fs::read(format!("/proc/{pid}/maps")).expect("its mappings");
    String::from_utf8_lossy(&maps)
        .lines()
        .filter(|line| !line.contains("[vsyscall]"))
        .map(|line| {
            let mut words = line.splitn(6, ' ').map(str::trim);
            let mut next = || words.next().expect("a field");
            let (range, flags, _offset, device, inode) = (next(), next(), next(), next(), next());
            let (from, to) = range.split_once('-').expect("a range");
            let address = |text: &str| u64::from_str_radix(text, 16).expect("an address");
            let inode: u64 = inode.parse().expect("an inode");
            Mapping {
                from: address(from),
                to: address(to),
                flags: flags.to_owned(),
                file: (inode != 0).then(|| (device.to_owned(), inode)),
                name: words.next().unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

/// Reads every page of every mapping that holds anything, and looks for `needle`
/// at every byte. The process should stand still meanwhile.
pub fn search(pid: i32, needle: &[u8]) -> Found {
    assert!(needle.len() >= 8, "a needle that can't be there by chance");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).expect("its page map");
    let mut found = Found::default();
    for mapping in mappings(pid) {
        // What can't be read through the page tables can be read here: write-only
        // and closed pages keep what they hold.
        if mapping.name == "[vvar]" || mapping.name.starts_with("[vvar_") {
            continue;
        }
        found.shared += usize::from(mapping.flags.contains('s'));
        let before = found.bytes;
        search_mapping(&memory, &pagemap, &mapping, needle, &mut found);
        found.mappings += usize::from(found.bytes > before);
    }
    found
}

fn search_mapping(memory: &File, pagemap: &File, mapping: &Mapping, needle: &[u8], to: &mut Found) {
    // The end of what was read before, as a needle may lie across.
    let mut tail: Vec<u8> = Vec::new();
    let mut at = mapping.from;
    while at < mapping.to {
        let pages = ((mapping.to - at) / PAGE).min(BATCH);
        let mut entries = vec![0; 8 * pages as usize];
        pagemap
            .read_exact_at(&mut entries, at / PAGE * 8)
            .expect("entries of the page map");
        for (page, entry) in entries.chunks_exact(8).enumerate() {
            let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
            let address = at + page as u64 * PAGE;
            // Present, or swapped out (kernel:
            // Documentation/admin-guide/mm/pagemap.rst). Pages of files that this
            // process has not touched are what is in the file.
            if entry >> 62 == 0 {
                tail.clear();
                continue;
            }
            let mut bytes = vec![0; PAGE as usize];
            if memory.read_exact_at(&mut bytes, address).is_err() {
                tail.clear();
                continue;
            }
            to.bytes += PAGE;
            let begin = address - tail.len() as u64;
            tail.extend_from_slice(&bytes);
            let hits = tail
                .windows(needle.len())
                .enumerate()
                .filter(|(_, window)| *window == needle)
                .map(|(offset, _)| (mapping.name.clone(), begin + offset as u64));
            to.places.extend(hits);
            tail.drain(..tail.len() - (needle.len() - 1));
        }
        at += pages * PAGE;
    }
}
