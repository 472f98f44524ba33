//! The set-up of a tenant's worker: its code, its memories, and no descriptor.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use lazaret_wall::policy::{Kind, Uses};
use lazaret_wire::Shared;
use lazaret_wire::message::{Failed, TenantSetup};
use lazaret_wire::socket::Channel;
use wasmtime::Engine;

use super::{Prepared, close, failed};
use crate::canister::Canister;

pub(super) fn prepare(
    engine: Option<&Engine>,
    setup: &TenantSetup,
    descriptors: Vec<OwnedFd>,
    channel: &Channel,
    shared: &'static Shared,
) -> Result<Prepared<Canister>, Failed> {
    let mut descriptors = descriptors.into_iter();
    let artefact = File::from(
        descriptors
            .next()
            .ok_or_else(|| failed("no artefact was handed over"))?,
    );
    let engine = engine.ok_or_else(|| failed("no engine was set up"))?;
    let (canister, tracked) =
        Canister::load(engine, &artefact, setup, descriptors.collect(), shared)?;
    if let Some(tracked) = tracked {
        channel
            .send(b"userfaultfd", &[tracked.as_fd()])
            .map_err(|error| failed(error.to_string()))?;
    }
    for number in 0..3 {
        close(number);
    }
    let memory = canister.memory();
    Ok(Prepared {
        heap_at: memory.heap().base() as u64,
        stable_at: memory.stable().region().base() as u64,
        cards_at: memory.cards().map_or([0; 2], |cards| {
            [0, 1].map(|of: usize| cards[of].region().base() as u64)
        }),
        runs: canister,
        kind: Kind::Tenant,
        granted: Vec::new(),
        uses: Uses::NONE,
    })
}
