//! Compilation: a module in, an artefact out. Runs in a locked worker.

use std::os::fd::BorrowedFd;

use lazaret_instrument::{
    CardOptions, InstrumentError, Instrumented, Limits, Options, RECURSION_LIMIT, instrument,
};
use lazaret_wire::layout;
use lazaret_wire::message::setup::MAX_TEXT;
use lazaret_wire::message::{Artefact, CompileSettings, Global, Purpose, Refused};
use rustix::io::Errno;
use thiserror::Error;
use wasmparser::ValType;

/// Why a module can't be compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
enum CompileError {
    /// The module was refused before the compiler saw it.
    #[error(transparent)]
    Module(#[from] InstrumentError),
    /// The engine can't be set up on this machine.
    #[error("the compiler can't be set up on this machine: {0:#}")]
    Engine(wasmtime::Error),
    /// The compiler refused the module.
    #[error("the module can't be compiled: {0:#}")]
    Compiler(wasmtime::Error),
    /// The module can't be read.
    #[error("the module can't be read: {0}")]
    Read(Errno),
    /// The artefact can't be written.
    #[error("the artefact can't be written: {0}; is there room for it?")]
    Write(Errno),
    /// A module whose instances can differ in what no snapshot holds.
    #[error(
        "no snapshot can be made of this module: it contains `{instruction}`, and a snapshot holds memory 0 and the mutable globals, but no tables and no dropped segments; run it without --snapshot-after"
    )]
    Snapshot {
        /// What it contains.
        instruction: &'static str,
    },
    /// A global that can't be kept.
    #[error(
        "mutable global {position} is of type {ty}, which can't be kept between calls: only numbers and vectors can"
    )]
    Global {
        /// Which of the mutable globals.
        position: usize,
        /// Its type.
        ty: ValType,
    },
}

impl From<CompileError> for Refused {
    fn from(error: CompileError) -> Self {
        Self {
            reason: one_line(&error.to_string()),
            of_module: match error {
                // The compiler asks nothing of the system but memory, and a lack of that
                // ends the process.
                CompileError::Module(_)
                | CompileError::Compiler(_)
                | CompileError::Snapshot { .. }
                | CompileError::Global { .. } => true,
                CompileError::Engine(_) | CompileError::Read(_) | CompileError::Write(_) => false,
            },
        }
    }
}

/// Reads a module from `input`, has it compiled, and writes the artefact to
/// `output`. Nothing but `read` and `write` is asked of them.
///
/// # Errors
/// In words: those of `compile`, or that either can't be read or written.
pub fn copy(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    settings: &CompileSettings,
    compile: impl FnOnce(&[u8]) -> Result<(Vec<u8>, Artefact), Refused>,
) -> Result<Artefact, Refused> {
    let wasm = read(input, options(settings).limits.module_bytes)?;
    let (code, artefact) = compile(&wasm)?;
    write(output, &code)?;
    Ok(artefact)
}

fn write(output: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), CompileError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(output, rest) {
            Ok(0) => return Err(CompileError::Write(Errno::NOSPC)),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CompileError::Write(errno)),
        }
    }
    Ok(())
}

/// All of `input`, but no more than shows that it is over `limit` bytes.
fn read(input: BorrowedFd<'_>, limit: u64) -> Result<Vec<u8>, CompileError> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 256 << 10];
    while bytes.len() as u64 <= limit {
        match rustix::io::read(input, &mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CompileError::Read(errno)),
        }
    }
    Ok(bytes)
}

/// Instruments and compiles `wasm` (in the binary format).
///
/// A tenant's module is always metered and gets the exports of persistent mode;
/// a program's is metered, or gets them, if `settings` say so. Both get the
/// recursion limit.
///
/// # Errors
/// One line that says what is wrong, with the module as a rule, and where if that is
/// known.
pub fn compile(wasm: &[u8], settings: &CompileSettings) -> Result<(Vec<u8>, Artefact), Refused> {
    Ok(try_compile(wasm, settings)?)
}

fn try_compile(
    wasm: &[u8],
    settings: &CompileSettings,
) -> Result<(Vec<u8>, Artefact), CompileError> {
    let Instrumented { wasm, report, .. } = instrument(wasm, &options(settings))?;
    if settings.snapshot && !report.reusable_instance {
        return Err(CompileError::Snapshot {
            instruction: report
                .changes_instance
                .unwrap_or("an import that it can change"),
        });
    }
    let globals = report
        .globals
        .iter()
        .enumerate()
        .map(zero)
        .collect::<Result<Vec<_>, _>>()?;
    let engine = crate::engine::compiling(settings.purpose).map_err(CompileError::Engine)?;
    let artefact = engine
        .precompile_module(&wasm)
        .map_err(CompileError::Compiler)?;
    let length = artefact.len() as u64;
    Ok((
        artefact,
        Artefact {
            length,
            globals,
            reusable: report.reusable_instance,
        },
    ))
}

fn options(settings: &CompileSettings) -> Options {
    let tenant = settings.purpose == Purpose::Tenant;
    Options {
        metering: tenant || settings.metered,
        recursion_limit: Some(RECURSION_LIMIT),
        persistent: tenant || settings.snapshot,
        cards: (tenant && settings.cards).then_some(CardOptions {
            memory_limit: layout::MAX_MEMORY,
        }),
        limits: if tenant {
            Limits::tenant()
        } else {
            Limits {
                // They cross the wire.
                globals: if settings.snapshot {
                    layout::MAX_GLOBALS as u64
                } else {
                    Limits::program().globals
                },
                ..Limits::program()
            }
        },
    }
}

fn zero((position, ty): (usize, &ValType)) -> Result<Global, CompileError> {
    Ok(match ty {
        ValType::I32 => Global::I32(0),
        ValType::I64 => Global::I64(0),
        ValType::F32 => Global::F32(0),
        ValType::F64 => Global::F64(0),
        ValType::V128 => Global::V128(0),
        ValType::Ref(_) => return Err(CompileError::Global { position, ty: *ty }),
    })
}

/// The text on one line, cut to what a message can carry.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.truncate(line.floor_char_boundary(MAX_TEXT));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: CompileSettings = CompileSettings {
        purpose: Purpose::Tenant,
        metered: true,
        cards: false,
        snapshot: false,
    };
    const PROGRAM: CompileSettings = CompileSettings {
        purpose: Purpose::Program,
        metered: false,
        cards: false,
        snapshot: false,
    };

    fn wasm(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn globals_are_reported_in_order_and_immutable_ones_are_not() {
        let module = wasm(
            "(module (memory 1) (global i32 (i32.const 1)) (global (mut f64) (f64.const 2)) (global (mut v128) (v128.const i64x2 1 2)))",
        );
        let (bytes, artefact) = compile(&module, &TENANT).unwrap();
        assert_eq!(artefact.globals, [Global::F64(0), Global::V128(0)]);
        assert_eq!(artefact.length, bytes.len() as u64);
        assert!(artefact.reusable);
    }

    #[test]
    fn an_artefact_loads_only_for_its_purpose() {
        let module = wasm("(module (memory 1))");
        let (tenant, _) = compile(&module, &TENANT).unwrap();
        let (program, _) = compile(&module, &PROGRAM).unwrap();
        let engine = crate::engine::running(Purpose::Program).unwrap();
        // SAFETY: both were just made by this process's compiler.
        unsafe {
            assert!(wasmtime::Module::deserialize(&engine, &program).is_ok());
            assert!(wasmtime::Module::deserialize(&engine, &tenant).is_err());
        }
    }

    #[test]
    fn what_no_snapshot_holds_is_named() {
        let settings = CompileSettings {
            snapshot: true,
            ..PROGRAM
        };
        let module = |body: &str| {
            wasm(&format!(
                "(module (memory 1) (table 1 funcref) (elem $e func $f) (data $d \"x\")
                 (func $f {body}) (global (mut i32) (i32.const 1)))"
            ))
        };
        let (_, artefact) = compile(&module("nop"), &settings).unwrap();
        assert_eq!(artefact.globals, [Global::I32(0)]);
        for (body, instruction) in [
            ("(table.set (i32.const 0) (ref.null func))", "`table.set`"),
            ("(elem.drop $e)", "`elem.drop`"),
            ("(data.drop $d)", "`data.drop`"),
        ] {
            let module = module(body);
            let refused = compile(&module, &settings).unwrap_err();
            assert!(refused.reason.contains(instruction), "{refused:?}");
            assert!(refused.of_module);
            assert!(compile(&module, &PROGRAM).is_ok());
        }
    }

    #[test]
    fn a_module_goes_from_descriptor_to_descriptor() {
        use std::io::{Read, Seek, Write};
        use std::os::fd::AsFd;
        let (mut input, mut output) =
            (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        input
            .write_all(&wasm(
                "(module (memory 1) (global (mut i32) (i32.const 1)))",
            ))
            .unwrap();
        input.rewind().unwrap();
        let artefact = copy(input.as_fd(), output.as_fd(), &TENANT, |wasm| {
            compile(wasm, &TENANT)
        })
        .unwrap();
        output.rewind().unwrap();
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, artefact.length);
        assert_eq!(
            wasmtime::Engine::detect_precompiled(&bytes),
            Some(wasmtime::Precompiled::Module)
        );
        input.rewind().unwrap();
        assert_eq!(
            read(input.as_fd(), 10).unwrap().len() as u64,
            input.metadata().unwrap().len()
        );
    }

    #[test]
    fn errors_are_one_line_and_say_what_is_wrong() {
        for (bytes, part) in [
            (&b"\x7fELF"[..], "not a WebAssembly module"),
            (&wasm("(module (func))")[..20], "at byte 0x"),
            (&wat::parse_str("(component)").unwrap(), "component"),
        ] {
            let Refused { reason, of_module } = compile(bytes, &PROGRAM).unwrap_err();
            assert!(reason.contains(part) && !reason.contains('\n'), "{reason}");
            assert!(of_module);
        }
    }
}
