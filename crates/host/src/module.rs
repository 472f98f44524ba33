//! What the host learns of a module before anything compiles it: from the
//! original bytes, by a parser that only reads.

use lazaret_wall::policy::Uses;
use lazaret_wire::message::Purpose;
use thiserror::Error;
use wasmparser::{Encoding, Parser, Payload};

/// The largest module, in bytes.
pub const MAX_MODULE: usize = 100 << 20;

/// Why something is not a module that can run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Neither binary nor text.
    #[error(
        "not a WebAssembly module: it begins with {0}; expected the bytes 00 61 73 6d (binary) or text that begins with `(module`"
    )]
    NotWasm(String),
    /// A component.
    #[error(
        "this is a WebAssembly component; only core modules run yet. Compile for wasm32-wasip1 (preview 1) instead of wasm32-wasip2"
    )]
    Component,
    /// Text that doesn't parse.
    #[error("the text does not parse: {0}")]
    Text(String),
    /// Broken.
    #[error("the module is malformed at offset {offset:#x}: {message}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What.
        message: String,
    },
    /// Too large.
    #[error("the module has {size} bytes; the limit is {MAX_MODULE}")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// It wants what nobody gives.
    #[error("the module imports what Lazaret does not provide: {}", .names.join(", "))]
    UnknownImports {
        /// `module.name` of each.
        names: Vec<String>,
    },
    /// No entry point.
    #[error("{0}")]
    NoEntry(&'static str),
    /// A reserved name.
    #[error("the module exports `{0}`; names that begin with `lazaret:` are reserved")]
    Reserved(String),
    /// More memory at once than it may have.
    #[error(
        "the module wants at least {minimum} bytes of memory, and its limit is {limit}; raise the limit (--memory)"
    )]
    Memory {
        /// What it declares.
        minimum: u64,
        /// What it may have.
        limit: u64,
    },
}

/// A module's outside: imports, exports, custom sections.
#[derive(Debug, Clone, Default)]
pub struct ModuleInfo {
    /// `(module, name)` of every import.
    pub imports: Vec<(String, String)>,
    /// Exported names.
    pub exports: Vec<String>,
    /// Custom sections whose names begin with `icp:`, by name.
    pub custom: Vec<(String, Vec<u8>)>,
    /// Bytes of memory that it declares at least.
    pub memory_minimum: u64,
}

impl ModuleInfo {
    /// The contents of the `icp:public` or `icp:private` section `name`.
    pub fn icp_section(&self, name: &str) -> Option<&[u8]> {
        self.custom
            .iter()
            .find(|(section, _)| {
                section
                    .strip_prefix("icp:public ")
                    .or(section.strip_prefix("icp:private "))
                    == Some(name)
            })
            .map(|(_, contents)| contents.as_slice())
    }

    /// What a program with these imports can need system calls for.
    pub fn uses(&self) -> Uses {
        Uses::of_imports(
            self.imports
                .iter()
                .map(|(module, name)| (module.as_str(), name.as_str())),
        )
    }

    /// Whether the module asks to keep its heap over an upgrade.
    pub fn keeps_heap(&self) -> bool {
        self.icp_section("enhanced-orthogonal-persistence")
            .is_some()
    }
}

/// Turns text into binary, and refuses what is neither or too large.
pub fn binary(bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    if bytes.len() > MAX_MODULE {
        return Err(ModuleError::TooLarge { size: bytes.len() });
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(bytes);
    }
    let looks_like_text =
        bytes.trim_ascii_start().starts_with(b"(") || bytes.trim_ascii_start().starts_with(b";;");
    if !looks_like_text {
        let head: Vec<String> = bytes
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Err(ModuleError::NotWasm(if head.is_empty() {
            "nothing: it is empty".into()
        } else {
            head.join(" ")
        }));
    }
    wat::parse_bytes(&bytes)
        .map(|found| found.into_owned())
        .map_err(|error| {
            ModuleError::Text(
                error
                    .to_string()
                    .lines()
                    .map(str::trim)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        })
}

/// Reads the outside of a module and checks that it can be run for `purpose`.
pub fn inspect(
    wasm: &[u8],
    purpose: Purpose,
    host_functions: &[String],
) -> Result<ModuleInfo, ModuleError> {
    let mut info = ModuleInfo::default();
    let mut memories = Vec::new();
    let malformed = |error: wasmparser::BinaryReaderError| ModuleError::Malformed {
        offset: error.offset(),
        message: error.message().to_owned(),
    };
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            } => return Err(ModuleError::Component),
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    info.imports
                        .push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    info.exports
                        .push(export.map_err(malformed)?.name.to_owned());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    memories.push(memory.map_err(malformed)?);
                }
            }
            Payload::CustomSection(section) if section.name().starts_with("icp:") => {
                info.custom
                    .push((section.name().to_owned(), section.data().to_vec()));
            }
            _ => {}
        }
    }
    info.memory_minimum = memories.iter().fold(0u64, |sum, memory| {
        sum.saturating_add(memory.initial.saturating_mul(65_536))
    });
    if let Some(name) = info
        .exports
        .iter()
        .find(|name| name.starts_with("lazaret:"))
    {
        return Err(ModuleError::Reserved(name.clone()));
    }
    let exports = |name: &str| info.exports.iter().any(|export| export == name);
    match purpose {
        Purpose::Program if !exports("_start") && exports("_initialize") => {
            Err(ModuleError::NoEntry(
                "the module is a WASI reactor (it exports _initialize, not _start): it has no main program to run",
            ))
        }
        Purpose::Program if !exports("_start") => Err(ModuleError::NoEntry(
            "the module exports no `_start` function: it is not a WASI command (a canister is installed with `lazaret install`)",
        )),
        Purpose::Tenant
            if !info
                .exports
                .iter()
                .any(|name| name.starts_with("canister_")) =>
        {
            Err(ModuleError::NoEntry(
                "the module exports nothing that begins with `canister_`: it is not a canister (a WASI program is run with `lazaret run`)",
            ))
        }
        _ => Ok(()),
    }?;
    let unknown: Vec<String> = info
        .imports
        .iter()
        .filter(|(module, name)| match module.as_str() {
            "host" => !host_functions.contains(name),
            _ => match purpose {
                Purpose::Program => !lazaret_guest::program::provided(module, name),
                Purpose::Tenant => !lazaret_guest::canister::provided(module, name),
            },
        })
        .map(|(module, name)| format!("{module}.{name}"))
        .collect();
    if !unknown.is_empty() {
        return Err(ModuleError::UnknownImports { names: unknown });
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_module_is_told_what_it_is() {
        assert!(
            matches!(binary(b"\x7fELF".to_vec()), Err(ModuleError::NotWasm(head)) if head.starts_with("7f 45"))
        );
        assert!(
            matches!(binary(Vec::new()), Err(ModuleError::NotWasm(head)) if head.contains("empty"))
        );
        assert!(matches!(
            binary(b"(module (func $x".to_vec()),
            Err(ModuleError::Text(_))
        ));
        let component = wat::parse_str("(component)").unwrap();
        assert!(matches!(
            inspect(&component, Purpose::Program, &[]),
            Err(ModuleError::Component)
        ));
    }

    #[test]
    fn a_truncated_module_names_its_offset() {
        let wasm = wat::parse_str(r#"(module (func (export "_start") nop nop nop))"#).unwrap();
        for cut in 9..wasm.len() - 20 {
            match inspect(&wasm[..cut], Purpose::Program, &[]) {
                Err(ModuleError::Malformed { offset, .. }) => assert!(offset <= cut),
                // Cut between two sections: a module, but without its export.
                Err(ModuleError::NoEntry(_)) => {}
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn all_unknown_imports_are_listed() {
        let wasm = wat::parse_str(r#"(module (import "env" "foo" (func)) (import "host" "bar" (func)) (import "host" "baz" (func)) (func (export "_start")))"#).unwrap();
        match inspect(&wasm, Purpose::Program, &["bar".into()]) {
            Err(ModuleError::UnknownImports { names }) => {
                assert_eq!(names, ["env.foo", "host.baz"])
            }
            other => panic!("{other:?}"),
        }
    }
}
