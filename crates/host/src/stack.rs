//! The stack of a worker that was stopped, with names: what called what, down
//! to the forbidden call.
//!
//! Native frames are unwound by the call frame information of the executable
//! (`.eh_frame`), compiled guest code by its frame pointers, which the engine
//! keeps. Names come from symbol tables: those of the executable and its
//! libraries, and the one that the compiler wrote beside a module's code.
//!
//! All that is read here may be a lie: the stack is the worker's, the guest
//! code's symbols are a compiler's that hostile code may have taken over. It
//! is evidence for somebody to read, bounded, and nothing is decided by it.

mod code;
mod mappings;
mod names;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use framehop::{CacheNative, ExplicitModuleSectionInfo, MayAllocateDuringUnwind, Module};
use framehop::{UnwindRegsNative, Unwinder, UnwinderNative};
use lazaret_wall::executable::{Executable, Executables};
use lazaret_wall::supervisor::{Registers, Stopped};

use crate::compile::Artefact;
use crate::incident::Frame;
use code::{CodeError, Native};
use mappings::{Identity, Mapping};

/// The most frames of a stack.
const FRAMES: usize = 128;

/// Where names are looked up: files that were read once.
#[derive(Debug)]
pub(crate) struct Symbols {
    executables: Executables,
    known: Mutex<HashMap<Identity, Option<Arc<Native>>>>,
}

impl Symbols {
    /// Of workers that are made of these.
    pub(crate) fn new(executables: Executables) -> Self {
        Self {
            executables,
            known: Mutex::default(),
        }
    }

    /// The frames of what was seen of a stopped worker, innermost first;
    /// `guest` is the code of its module.
    pub(crate) fn frames(&self, seen: &Stopped, guest: Option<&Artefact>) -> Vec<Frame> {
        let Some(registers) = &seen.registers else {
            return Vec::new();
        };
        let mappings: Vec<Mapping> = seen
            .mappings
            .iter()
            .filter_map(|line| Mapping::parse(line))
            .filter(|mapping| mapping.executable)
            .collect();
        let mut natives = Vec::new();
        for mapping in &mappings {
            natives.push(self.native(mapping));
        }
        let loaded: Vec<(&Mapping, &Native)> = mappings
            .iter()
            .zip(&natives)
            .filter_map(|(mapping, native)| Some((mapping, native.as_deref()?)))
            .collect();
        let guest = guest.and_then(|artefact| {
            Some((Identity::of(&artefact.file)?, code::guest(artefact).ok()?))
        });
        walk(registers, &seen.stack, &loaded)
            .into_iter()
            .map(|(address, lookup)| {
                let Some(mapping) = mappings
                    .iter()
                    .find(|mapping| mapping.range.contains(&lookup))
                else {
                    return Frame {
                        address,
                        mapping: None,
                        function: None,
                        source: None,
                    };
                };
                let at = mapping.file_offset(lookup);
                let name = match loaded.iter().find(|(other, _)| *other == mapping) {
                    Some((_, native)) => native.name(at),
                    None => guest
                        .as_ref()
                        .filter(|(identity, _)| *identity == mapping.identity)
                        .and_then(|(_, names)| names.find(at)),
                };
                Frame {
                    address,
                    mapping: Some(format!(
                        "{}+{:#x}",
                        mapping.name,
                        mapping.file_offset(address)
                    )),
                    function: name.map(names::readable),
                    source: None,
                }
            })
            .collect()
    }

    /// The file behind a mapping, read, if this host has it too.
    fn native(&self, mapping: &Mapping) -> Option<Arc<Native>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(native) = known.get(&mapping.identity) {
            return native.clone();
        }
        let read = match self.is_image(mapping) {
            true => Some(Native::of(lazaret_worker_executable::IMAGE?.file)),
            false if mapping.is_copied_executable() => self.copied(mapping),
            false => self.file(mapping).map(Native::read),
        };
        let native = match read? {
            Ok(native) => Some(Arc::new(native)),
            Err(error) => {
                tracing::debug!(name = mapping.name, %error, "no names for this file");
                None
            }
        };
        known.insert(mapping.identity, native.clone());
        native
    }

    /// Whether it is of the executable that is carried along, of which only a part is
    /// in the file that is executed.
    fn is_image(&self, mapping: &Mapping) -> bool {
        let image = &self.executables.worker;
        matches!(image, Executable::Image(_))
            && image
                .open()
                .is_ok_and(|file| Identity::of(&file) == Some(mapping.identity))
    }

    /// Of a copy in memory: the executable of which this is just one part that is loaded.
    fn copied(&self, mapping: &Mapping) -> Option<Result<Native, CodeError>> {
        let Executables { worker, compiler } = &self.executables;
        let candidates = [worker, compiler].into_iter().filter_map(|executable| {
            Some(match executable {
                Executable::Image(_) => Native::of(lazaret_worker_executable::IMAGE?.file),
                Executable::Own | Executable::File(_) => {
                    Native::read(File::from(executable.open().ok()?))
                }
            })
        });
        let mut fitting = candidates.filter(|native| {
            let native = native.as_ref();
            native.map_or(true, |native| native.is_loaded_as(mapping))
        });
        fitting.next()
    }

    /// The worker's own path leads nowhere here: its root is another one. So
    /// it is an executable, or a library that this process has mapped too.
    fn file(&self, mapping: &Mapping) -> Option<File> {
        let Executables { worker, compiler } = &self.executables;
        let files = [worker, compiler]
            .into_iter()
            .filter(|executable| !matches!(executable, Executable::Image(_)));
        for executable in files {
            let Ok(file) = executable.open().map(File::from) else {
                continue;
            };
            if Identity::of(&file) == Some(mapping.identity) {
                return Some(file);
            }
        }
        let own = std::fs::read_to_string("/proc/self/maps").ok()?;
        let own = own
            .lines()
            .filter_map(Mapping::parse)
            .find(|own| own.identity == mapping.identity && own.name.starts_with('/'))?;
        let file = File::open(&own.name).ok()?;
        (Identity::of(&file) == Some(mapping.identity)).then_some(file)
    }
}

/// The addresses of a stack, each with the one to look up: of a return address
/// the call before it.
fn walk(registers: &Registers, stack: &[u8], loaded: &[(&Mapping, &Native)]) -> Vec<(u64, u64)> {
    let Some([pc, sp, fp]) = registers.frame() else {
        return Vec::new();
    };
    let mut unwinder = UnwinderNative::<Arc<[u8]>, MayAllocateDuringUnwind>::new();
    for (mapping, native) in loaded {
        let Some(bias) = native.bias(mapping) else {
            continue;
        };
        let sections: ExplicitModuleSectionInfo<Arc<[u8]>> = native.sections();
        unwinder.add_module(Module::new(
            mapping.name.clone(),
            mapping.range.clone(),
            bias,
            sections,
        ));
    }
    let mut word = |at: u64| -> Result<u64, ()> {
        let from = usize::try_from(at.checked_sub(sp).ok_or(())?).map_err(|_| ())?;
        let bytes = stack.get(from..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(())
    };
    let mut cache = CacheNative::<MayAllocateDuringUnwind>::new();
    let mut frames = unwinder.iter_frames(pc, start(registers, pc, sp, fp), &mut cache, &mut word);
    let mut found = Vec::new();
    while found.len() < FRAMES
        && let Ok(Some(frame)) = frames.next()
    {
        found.push((frame.address(), frame.address_for_lookup()));
    }
    found
}

#[cfg(target_arch = "x86_64")]
fn start(_: &Registers, pc: u64, sp: u64, fp: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(pc, sp, fp)
}

#[cfg(target_arch = "aarch64")]
fn start(registers: &Registers, _: u64, sp: u64, fp: u64) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.get("x30").unwrap_or(0), sp, fp)
}

/// A range that begins at `from` and has `length`, if there is such a one.
fn range(from: u64, length: u64) -> Option<Range<u64>> {
    Some(from..from.checked_add(length)?)
}
