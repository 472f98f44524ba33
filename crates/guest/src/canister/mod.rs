//! Running a tenant: a module with the canister interface (`ic0` imports), on
//! memory that outlives every instance.
//!
//! [`Canister::load`] does all that needs system calls which the lock forbids;
//! after the lock, [`Canister::serve`] answers one call after another. If the
//! module allows it, one instance serves them all, with its memory and mutable
//! globals put back before each; else each call gets a fresh instance on the
//! same memory. Nobody can tell the difference.

pub mod context;
pub mod costs;
pub mod error;
mod exports;
mod growth;
pub mod imports;
mod instance;
mod state;
mod stop;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use lazaret_wire::Shared;
use lazaret_wire::message::{
    Call, Done, Effects, Failed, FromWorker, Global, Outcome, Sizes, TenantSetup, ToWorker,
    Tracking,
};
use wasmtime::{Engine, InstancePre};

pub use imports::provided;
pub use state::MAX_TABLE_ELEMENTS;

use crate::abort::{self, Reason};
use crate::exchange::{self, Exchange};
use crate::memory::TenantMemory;
use error::LoadError;
use exports::Exports;
use instance::Live;
use state::State;

/// A tenant, ready to be called.
pub struct Canister {
    engine: Engine,
    pre: InstancePre<State>,
    exports: Exports,
    memory: TenantMemory,
    /// The globals of a fresh instance.
    initial: Vec<Global>,
    /// The instance, if one serves all calls.
    kept: Option<Box<Live>>,
    reusable: bool,
    budgeted: bool,
}

impl Canister {
    /// Loads the tenant of an artefact over the memory that `setup` describes,
    /// and gives the userfaultfd for the host if it tracks writes.
    ///
    /// `engine` must be one for tenants ([`crate::engine::running`]). Call this
    /// before the lock, on the thread that will serve.
    ///
    /// # Errors
    /// One line that says what is wrong with the module, the image or the host.
    pub fn load(
        engine: &Engine,
        artefact: &File,
        setup: &TenantSetup,
        files: Vec<OwnedFd>,
        shared: &'static Shared,
    ) -> Result<(Self, Option<OwnedFd>), Failed> {
        Ok(Self::try_load(engine, artefact, setup, &files, shared)?)
    }

    fn try_load(
        engine: &Engine,
        artefact: &File,
        setup: &TenantSetup,
        files: &[OwnedFd],
        shared: &'static Shared,
    ) -> Result<(Self, Option<OwnedFd>), LoadError> {
        crate::engine::prepare_thread();
        // SAFETY: an artefact comes from our compiler, and its descriptor is of
        // a file that is sealed or of the host's cache, whose contents the host has
        // checked, so nobody changes it while it is mapped.
        let module =
            unsafe { crate::engine::load(engine, artefact.as_fd()) }.map_err(LoadError::Engine)?;
        let exports = Exports::of(&module)?;
        let linker = imports::linker(engine, &module, exports.memory64, &setup.host_functions)?;
        let pre = linker.instantiate_pre(&module).map_err(LoadError::Engine)?;
        if exports.minimum > setup.heap_limit {
            return Err(LoadError::MinimumOverLimit {
                minimum: exports.minimum,
                limit: setup.heap_limit,
            });
        }
        if exports.cards.is_some() != (setup.tracking == Tracking::Cards) {
            return Err(LoadError::Tracking {
                with: exports.cards.map_or("without", |_| "with"),
                tracking: setup.tracking,
            });
        }
        let (memory, tracker) =
            TenantMemory::new(setup, exports.cards.unwrap_or(0), files, shared)?;
        if memory.heap().size() < exports.minimum {
            memory.heap().grow(exports.minimum)?;
        }
        let budgeted = setup.budgeted;
        let live = Live::new(engine, &pre, &exports, &memory, budgeted)?;
        let initial = live.globals().to_vec();
        let reusable = setup.reusable;
        let canister = Self {
            engine: engine.clone(),
            pre,
            exports,
            memory,
            initial,
            kept: reusable.then(|| Box::new(live)),
            reusable,
            budgeted,
        };
        Ok((canister, tracker))
    }

    /// The tenant's memory.
    pub fn memory(&self) -> &TenantMemory {
        &self.memory
    }

    /// Answers calls for ever.
    pub fn serve(mut self, exchange: &mut Exchange) -> ! {
        loop {
            match exchange.next() {
                ToWorker::Call(call) => {
                    let done = self.call(call, exchange);
                    exchange.answer(&FromWorker::Done(done));
                }
                ToWorker::Prepare(prepare) => {
                    self.memory.prepare(&prepare);
                    exchange.answer(&FromWorker::Prepared);
                }
                ToWorker::Transfer(transfer) => {
                    self.memory.transfer(&transfer, exchange.shared());
                    exchange.answer(&FromWorker::Transferred);
                }
                other => abort::now(
                    Reason::Wire,
                    &format!(
                        "expected Call, Prepare or Transfer, got {}",
                        exchange::name(&other)
                    ),
                ),
            }
        }
    }

    /// Runs one call.
    pub fn call(&mut self, call: Box<Call>, exchange: &mut Exchange) -> Done {
        let fuel = call.fuel;
        self.memory.begin();
        // A module may need more than the state it is put on: a fresh one has
        // nothing, and an upgraded one keeps the heap of the old.
        let sizes = Sizes {
            heap: call.sizes.heap.max(self.exports.minimum),
            stable: call.sizes.stable,
        };
        if let Err(lack) = self.memory.restore_sizes(sizes) {
            return self.aborted(fuel, &call.globals, lack.to_string());
        }
        self.memory.heap().close(&call.close_heap);
        self.memory.stable().region().close(&call.close_stable);
        // An instance knows its memory's size from its own growing of it. If it
        // was given another one since, only a fresh one knows.
        let size = self.memory.heap().size();
        let live = match self.kept.take().filter(|live| live.heap_size() == size) {
            Some(live) => Ok(live),
            None => self.instance().map(Box::new),
        };
        // It succeeded when the tenant was loaded, so it is not the module.
        let mut live = match live {
            Ok(live) => live,
            Err(error) => return self.aborted(fuel, &call.globals, error.to_string()),
        };
        let spare = Exchange::new(exchange.shared());
        let ended = live.run(
            call,
            std::mem::replace(exchange, spare),
            &self.exports,
            &self.initial,
        );
        if let Some(back) = ended.exchange {
            *exchange = back;
        }
        exchange.reuse(ended.previous);
        let globals = live.globals().to_vec();
        self.kept = self.reusable.then_some(live);
        Done {
            outcome: ended.outcome,
            fuel_left: ended.fuel_left,
            sizes: self.memory.sizes(),
            globals,
            effects: ended.effects,
        }
    }

    fn instance(&self) -> Result<Live, LoadError> {
        let (pre, exports) = (&self.pre, &self.exports);
        Live::new(&self.engine, pre, exports, &self.memory, self.budgeted)
    }

    fn aborted(&self, fuel_left: u64, globals: &[Global], reason: String) -> Done {
        let globals = if globals.is_empty() {
            &self.initial
        } else {
            globals
        };
        Done {
            outcome: Outcome::Aborted(crate::trap::cut(reason)),
            fuel_left,
            sizes: self.memory.sizes(),
            globals: globals.to_vec(),
            effects: Effects::default(),
        }
    }
}

impl std::fmt::Debug for Canister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canister")
            .field("memory", &self.memory)
            .field("reusable", &self.reusable)
            .finish_non_exhaustive()
    }
}
