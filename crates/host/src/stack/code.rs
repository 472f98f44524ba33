//! Files of code: the executable, its libraries, a compiled module.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use framehop::ExplicitModuleSectionInfo;
use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

use super::mappings::Mapping;
use super::names::Names;
use super::range;
use crate::compile::Artefact;

/// The largest compiled module whose names are read, in bytes.
const LARGEST_GUEST: u64 = 128 << 20;

/// Why a file has no names.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodeError {
    #[error("{0}")]
    Object(#[from] object::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the code has {0} bytes; names are read of at most {LARGEST_GUEST}")]
    TooLarge(u64),
}

/// What is needed of an executable or library to unwind through it and to name
/// its functions.
#[derive(Debug)]
pub(super) struct Native {
    segments: Vec<Segment>,
    text: Option<Range<u64>>,
    eh_frame: Option<(Range<u64>, Arc<[u8]>)>,
    eh_frame_hdr: Option<(Range<u64>, Arc<[u8]>)>,
    names: Names,
}

/// The bits of a place in a page.
const PAGE_MASK: u64 = lazaret_wire::layout::PAGE as u64 - 1;

/// A part of the file that is loaded.
#[derive(Debug)]
struct Segment {
    file: Range<u64>,
    /// Where it is loaded, before the kernel moves all of it.
    address: u64,
}

impl Native {
    pub(super) fn read(file: File) -> Result<Self, CodeError> {
        Ok(Self::new(&object::File::parse(&ReadCache::new(file))?))
    }

    /// Whether one of the parts that are loaded is mapped just so.
    pub(super) fn is_loaded_as(&self, mapping: &Mapping) -> bool {
        self.segments.iter().any(|Segment { file, .. }| {
            let begin = file.start & !PAGE_MASK;
            let end = file.end.next_multiple_of(PAGE_MASK + 1);
            begin == mapping.offset && end - begin == mapping.range.end - mapping.range.start
        })
    }

    /// Of a file whose bytes are these.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, CodeError> {
        Ok(Self::new(&object::File::parse(bytes)?))
    }

    fn new<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Self {
        let segments = file
            .segments()
            .filter_map(|segment| {
                let (from, length) = segment.file_range();
                Some(Segment {
                    file: range(from, length)?,
                    address: segment.address(),
                })
            })
            .collect();
        let place = |name| {
            let section = file.section_by_name(name)?;
            range(section.address(), section.size())
        };
        let section = |name| {
            let data = file.section_by_name(name)?.data().ok()?;
            Some((place(name)?, Arc::from(data)))
        };
        let mut names = Names::default();
        // An executable that was stripped still names what libraries share.
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            if symbol.kind() == SymbolKind::Text
                && symbol.is_definition()
                && let Ok(name) = symbol.name()
            {
                names.add(symbol.address(), symbol.size(), name);
            }
        }
        names.sort();
        Self {
            text: place(".text"),
            eh_frame: section(".eh_frame"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            segments,
            names,
        }
    }

    fn segment(&self, offset: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| segment.file.contains(&offset))
    }

    /// By how much the kernel moved it, to where it is mapped.
    pub(super) fn bias(&self, mapping: &Mapping) -> Option<u64> {
        // What is mapped begins with the page that the segment begins in, which
        // may hold the end of another one.
        let begins = |segment: &&Segment| segment.file.start & !PAGE_MASK == mapping.offset;
        let unmoved = match self.segments.iter().find(begins) {
            Some(segment) => segment.address & !PAGE_MASK,
            None => {
                let segment = self.segment(mapping.offset)?;
                segment
                    .address
                    .checked_add(mapping.offset - segment.file.start)?
            }
        };
        mapping.range.start.checked_sub(unmoved)
    }

    /// The function at an offset of the file.
    pub(super) fn name(&self, offset: u64) -> Option<&str> {
        let segment = self.segment(offset)?;
        self.names
            .find(segment.address.checked_add(offset - segment.file.start)?)
    }

    /// What an unwinder needs.
    pub(super) fn sections(&self) -> ExplicitModuleSectionInfo<Arc<[u8]>> {
        let part = |of: &Option<(Range<u64>, Arc<[u8]>)>| match of {
            Some((range, data)) => (Some(range.clone()), Some(data.clone())),
            None => (None, None),
        };
        let (eh_frame_svma, eh_frame) = part(&self.eh_frame);
        let (eh_frame_hdr_svma, eh_frame_hdr) = part(&self.eh_frame_hdr);
        ExplicitModuleSectionInfo {
            text_svma: self.text.clone(),
            eh_frame_svma,
            eh_frame,
            eh_frame_hdr_svma,
            eh_frame_hdr,
            ..ExplicitModuleSectionInfo::default()
        }
    }
}

/// The functions of a compiled module, by their offset in its file.
pub(super) fn guest(artefact: &Artefact) -> Result<Names, CodeError> {
    let file = File::from(artefact.file.as_fd().try_clone_to_owned()?);
    // It is hostile, and what is read of it is kept in memory.
    let length = file.metadata()?.len();
    if length > LARGEST_GUEST {
        return Err(CodeError::TooLarge(length));
    }
    let cache = ReadCache::new(file);
    let file = object::File::parse(&cache)?;
    let mut names = Names::default();
    for symbol in file.symbols() {
        let Some((from, _)) = symbol
            .section_index()
            .and_then(|index| file.section_by_index(index).ok())
            .and_then(|section| section.file_range())
        else {
            continue;
        };
        if symbol.kind() == SymbolKind::Text
            && let Ok(name) = symbol.name()
            && let Some(at) = from.checked_add(symbol.address())
        {
            names.add(at, symbol.size(), name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_executable_has_names_and_unwind_tables() {
        let native = Native::read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(native.eh_frame.is_some() && native.eh_frame_hdr.is_some());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = this_executable_has_names_and_unwind_tables as fn() as usize as u64;
        let mapping = maps
            .lines()
            .filter_map(Mapping::parse)
            .find(|mapping| mapping.range.contains(&here))
            .unwrap();
        let name = native.name(mapping.file_offset(here)).unwrap();
        assert!(
            name.contains("this_executable_has_names_and_unwind_tables"),
            "{name}"
        );
        // Where it was moved to, and where it is in the file, come to the same.
        let bias = native.bias(&mapping).unwrap();
        assert_eq!(native.names.find(here - bias), Some(name));
        // By that a copy of it is known.
        assert!(native.is_loaded_as(&mapping));
        let longer = Mapping {
            range: mapping.range.start..mapping.range.end + 4096,
            ..mapping.clone()
        };
        assert!(!native.is_loaded_as(&longer));
    }

    #[test]
    fn the_workers_executable_has_names_and_unwind_tables() {
        let Some(image) = lazaret_worker_executable::IMAGE else {
            return;
        };
        let native = Native::of(image.file).unwrap();
        assert!(native.eh_frame.is_some() && native.eh_frame_hdr.is_some());
        let elf = object::File::parse(image.file).unwrap();
        let waits = elf
            .symbols()
            .find(|symbol| {
                symbol
                    .name()
                    .is_ok_and(|name| name.contains("wait_forever"))
            })
            .expect("what every worker does");
        let segment = native
            .segments
            .iter()
            .find(|segment| {
                (segment.address..segment.address + (segment.file.end - segment.file.start))
                    .contains(&waits.address())
            })
            .unwrap();
        let offset = waits.address() - segment.address + segment.file.start;
        assert_eq!(native.name(offset), waits.name().ok());
    }

    #[test]
    fn what_is_no_code_is_an_error() {
        assert!(Native::read(File::open("/proc/self/maps").unwrap()).is_err());
        assert!(Native::read(File::open("/dev/null").unwrap()).is_err());
    }
}
