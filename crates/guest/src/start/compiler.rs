//! The set-up of a compiler: a module in descriptor 0, its artefact to
//! descriptor 1, and nothing else.

use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, OwnedFd};

use lazaret_wall::policy::{COMPILER_INPUT, COMPILER_OUTPUT, Kind, Uses};
use lazaret_wire::message::{Artefact, CompileSettings, Failed, Purpose, Refused};

use super::{Prepared, Work, close, failed, place};
use crate::engine;
use crate::exchange::Exchange;

pub(super) fn prepare(descriptors: Vec<OwnedFd>) -> Result<Prepared<()>, Failed> {
    let mut descriptors = descriptors.into_iter();
    let (Some(input), Some(output)) = (descriptors.next(), descriptors.next()) else {
        return Err(failed("a compiler needs a module and an output"));
    };
    // Open until the process ends, under numbers that the filter knows.
    let _open = ManuallyDrop::new((
        place(input, COMPILER_INPUT)?,
        place(output, COMPILER_OUTPUT)?,
    ));
    close(2);
    // The first engine of a process installs signal handlers, which takes
    // system calls that a locked compiler doesn't have.
    let engine = engine::compiling(Purpose::Program)
        .map_err(|error| failed(format!("engine: {error:#}")))?;
    engine::prepare_thread();
    drop(engine);
    Ok(Prepared {
        runs: (),
        heap_at: 0,
        stable_at: 0,
        cards_at: [0; 2],
        kind: Kind::Compiler,
        granted: Vec::new(),
        uses: Uses::NONE,
    })
}

/// Compiles the module.
pub(super) fn run(
    work: &mut impl Work,
    settings: &CompileSettings,
    exchange: &mut Exchange,
) -> Result<Artefact, Refused> {
    // SAFETY: `prepare` put them there, for this process's life.
    let (input, output) = unsafe {
        (
            BorrowedFd::borrow_raw(COMPILER_INPUT),
            BorrowedFd::borrow_raw(COMPILER_OUTPUT),
        )
    };
    crate::compiler::copy(input, output, settings, |wasm| {
        work.compiler(wasm, settings, exchange)
    })
}
