//! An instance of the tenant's module and what is needed of it for each call.

use lazaret_wire::message::{Call, Entry, Global as Value, Outcome};
use wasmtime::{
    Engine, Extern, Global, Instance, InstancePre, ModuleExport, Store, TypedFunc, Val,
};

use super::error::LoadError;
use super::exports::{Exports, Number};
use super::state::{Answer, State};
use super::stop;
use crate::abort::{self, Reason};
use crate::exchange::Exchange;
use crate::global::val;
use crate::memory::{TenantMemory, linear};

/// An instance over the tenant's memory.
pub(super) struct Live {
    store: Store<State>,
    instance: Instance,
    fuel: Global,
    stop: Global,
    depth: Global,
    globals: Vec<Global>,
    /// Their values now: known, as only calls change them and each is followed
    /// by a look.
    values: Vec<Value>,
    /// Resolved at their first call.
    functions: Vec<Option<TypedFunc<(), ()>>>,
    /// Bytes of heap that the instance knows of.
    heap_size: u64,
    /// Whether the last call was stopped, so that it left its mark in `stop` and
    /// `depth`. One that returns leaves both 0.
    stopped: bool,
}

/// What a call leaves behind.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) fuel_left: u64,
    pub(super) effects: lazaret_wire::message::Effects,
    pub(super) exchange: Option<Exchange>,
    /// The call before.
    pub(super) previous: Box<Call>,
}

impl Live {
    /// Makes an instance. Nothing of the module runs: its start function and
    /// its data segments wait for their entry point.
    pub(super) fn new(
        engine: &Engine,
        pre: &InstancePre<State>,
        exports: &Exports,
        memory: &TenantMemory,
        budgeted: bool,
    ) -> Result<Self, LoadError> {
        let mut store = Store::new(engine, State::new(memory, budgeted));
        store.limiter(|state| state);
        linear::provide(memory);
        let instance = pre
            .instantiate(&mut store)
            .map_err(|error| LoadError::Instance(crate::trap::message(&error)))?;
        store.data_mut().limits.instantiated();
        let mut global = |export: &ModuleExport| {
            let found = instance
                .get_module_export(&mut store, export)
                .and_then(Extern::into_global);
            found.ok_or_else(|| LoadError::NotTenant {
                export: "global of that name".to_owned(),
            })
        };
        let (fuel, stop, depth) = (
            global(&exports.fuel)?,
            global(&exports.stop)?,
            global(&exports.depth)?,
        );
        let globals = exports
            .globals
            .iter()
            .map(global)
            .collect::<Result<Vec<_>, _>>()?;
        store.data_mut().fuel = Some(fuel);
        let functions = vec![None; exports.functions.len()];
        let values = globals
            .iter()
            .map(|global| value(&global.get(&mut store)))
            .collect();
        Ok(Self {
            store,
            instance,
            fuel,
            stop,
            depth,
            globals,
            values,
            functions,
            heap_size: memory.heap().size(),
            stopped: false,
        })
    }

    /// Bytes of heap that the instance knows of.
    pub(super) fn heap_size(&self) -> u64 {
        self.heap_size
    }

    /// The mutable globals now.
    pub(super) fn globals(&self) -> &[Value] {
        &self.values
    }

    fn look_at_globals(&mut self) {
        for (known, global) in self.values.iter_mut().zip(&self.globals) {
            *known = value(&global.get(&mut self.store));
        }
    }

    /// Gives the mutable globals these values.
    fn set_globals(&mut self, values: &[Value]) {
        if values.len() != self.globals.len() {
            abort::now(
                Reason::Wire,
                &format!(
                    "{} globals for a module with {}",
                    values.len(),
                    self.globals.len()
                ),
            );
        }
        for ((global, value), known) in self.globals.iter().zip(values).zip(&self.values) {
            if value == known {
                continue;
            }
            if let Err(error) = global.set(&mut self.store, val(value)) {
                abort::now(Reason::Wire, &format!("a global: {error}"));
            }
        }
    }

    /// Runs a call, whose memories are as they must be. `initial` are the
    /// globals of a fresh instance.
    pub(super) fn run(
        &mut self,
        call: Box<Call>,
        exchange: Exchange,
        exports: &Exports,
        initial: &[Value],
    ) -> Ended {
        if call.globals.is_empty() {
            self.set_globals(initial);
        } else {
            self.set_globals(&call.globals);
        }
        let (steps, lifecycle) = (
            exports.steps(&call),
            !matches!(call.entry, Entry::Update | Entry::Query),
        );
        let given = call.fuel;
        let previous = self.store.data_mut().begin(call, exchange);
        let fuel = self.store.data().fuel_given;
        self.put(self.fuel, Val::I64(fuel));
        if std::mem::take(&mut self.stopped) {
            self.put(self.stop, Val::I32(0));
            self.put(self.depth, Val::I32(0));
        }
        let outcome = match steps {
            None => Outcome::NoMethod,
            Some(steps) => match self.run_steps(steps, exports) {
                Err(error) => {
                    self.stopped = true;
                    let stopped = self.stop.get(&mut self.store).i32().unwrap_or(0);
                    stop::outcome(&error, stopped)
                }
                Ok(()) if lifecycle => Outcome::Reply(Vec::new()),
                Ok(()) => self.answer(),
            },
        };
        self.look_at_globals();
        self.heap_size = self.store.data().heap_size();
        let kept = matches!(
            outcome,
            Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply
        );
        let left = self.fuel.get(&mut self.store).i64().unwrap_or(0);
        let spent = fuel.saturating_sub(left.max(0)).max(0).cast_unsigned();
        let state = self.store.data_mut();
        let effects = std::mem::take(&mut state.effects);
        Ended {
            outcome,
            fuel_left: given.saturating_sub(spent),
            effects: if kept { effects } else { Default::default() },
            exchange: state.exchange.take(),
            previous,
        }
    }

    fn run_steps(
        &mut self,
        steps: super::exports::Steps,
        exports: &Exports,
    ) -> wasmtime::Result<()> {
        for (context, number) in steps.into_iter().flatten() {
            self.store.data_mut().context = context;
            self.resolve(number, exports)?;
            match self.functions.get(number) {
                // Borrowed: a clone counts references in the engine's list of
                // types.
                Some(Some(function)) => function.call(&mut self.store, ())?,
                _ => return Err(wasmtime::Error::msg("the export is gone")),
            }
        }
        Ok(())
    }

    /// Finds an exported function when it is first called.
    fn resolve(&mut self, number: Number, exports: &Exports) -> wasmtime::Result<()> {
        let Some(place @ None) = self.functions.get_mut(number) else {
            return Ok(());
        };
        let export = exports.functions.get(number);
        let found =
            export.and_then(|export| self.instance.get_module_export(&mut self.store, export));
        let function = found
            .and_then(Extern::into_func)
            .ok_or_else(|| wasmtime::Error::msg("the export is gone"))?;
        *place = Some(function.typed::<(), ()>(&self.store)?);
        Ok(())
    }

    fn put(&mut self, global: Global, value: Val) {
        if let Err(error) = global.set(&mut self.store, value) {
            abort::now(Reason::Wire, &format!("the artefact's globals: {error}"));
        }
    }

    fn answer(&mut self) -> Outcome {
        let state = self.store.data_mut();
        match std::mem::take(&mut state.answer) {
            Answer::None => Outcome::NoReply,
            Answer::Reply => Outcome::Reply(std::mem::take(&mut state.reply)),
            Answer::Reject(text) => Outcome::Reject(text),
        }
    }
}

fn value(val: &Val) -> Value {
    match crate::global::value(val) {
        Some(value) => value,
        // Instrumented modules export numbers and vectors only.
        None => abort::now(Reason::Wire, "a mutable global is a reference"),
    }
}
