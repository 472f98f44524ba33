//! The set-up of a program's worker: its code, its streams, its directories.

use std::fs::File;
use std::os::fd::OwnedFd;

use lazaret_wall::policy::{Kind, ProgramRights, Uses};
use lazaret_wire::message::{Beginning, Failed, ProgramSetup};
use wasmtime::Engine;

use super::{Prepared, failed, place};
use crate::program::Program;

pub(super) fn prepare(
    engine: Option<&Engine>,
    setup: &ProgramSetup,
    descriptors: Vec<OwnedFd>,
) -> Result<Prepared<Program>, Failed> {
    let count = descriptors.len();
    let snapshot = matches!(setup.beginning, Beginning::Snapshot(_));
    if count != 4 + usize::from(snapshot) + setup.preopens.len() {
        return Err(failed(format!(
            "{count} descriptors for a program with {} directories",
            setup.preopens.len()
        )));
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = || {
        descriptors
            .next()
            .ok_or_else(|| failed("a descriptor is missing"))
    };
    let artefact = File::from(next()?);
    let streams = [place(next()?, 0)?, place(next()?, 1)?, place(next()?, 2)?];
    let pages = snapshot.then(&mut next).transpose()?;
    let preopens: Vec<OwnedFd> = descriptors.collect();
    let granted = preopens
        .iter()
        .zip(&setup.preopens)
        .map(|(directory, preopen)| {
            Ok((
                directory
                    .try_clone()
                    .map_err(|error| failed(format!("duplicate a directory: {error}")))?,
                preopen.writable,
            ))
        })
        .collect::<Result<Vec<_>, Failed>>()?;
    let rights = ProgramRights {
        directories: !setup.preopens.is_empty(),
        writable: setup.preopens.iter().any(|preopen| preopen.writable),
        uses: Uses::from_bits(setup.uses),
    };
    let engine = engine.ok_or_else(|| failed("no engine was set up"))?;
    let program = Program::load(engine, &artefact, setup, streams, pages, preopens)?;
    Ok(Prepared {
        runs: program,
        heap_at: 0,
        stable_at: 0,
        cards_at: [0; 2],
        kind: Kind::Program(ProgramRights {
            uses: match setup.learn {
                true => Uses::NONE,
                false => rights.uses,
            },
            ..rights
        }),
        granted,
        uses: rights.uses,
    })
}
