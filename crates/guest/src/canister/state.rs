//! What a running call knows and collects.

use lazaret_wire::layout::MAX_REPLY;
use lazaret_wire::message::{Call, Effects};
use wasmtime::{Caller, Global, ResourceLimiter, Val};

use super::context::Context;
use super::costs;
use super::growth::Allowance;
use super::stop::Stop;
use crate::exchange::Exchange;
use crate::memory::{Lack, Region, StableMemory, TenantMemory};
use std::sync::Arc;

/// The most elements that a tenant's tables may have together. A limit of the
/// tenant's: growing beyond gives -1.
pub const MAX_TABLE_ELEMENTS: usize = 1_000_000;

/// What the guest has answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Answer {
    /// Nothing yet.
    #[default]
    None,
    /// `msg_reply`: the data appended so far is the reply.
    Reply,
    /// `msg_reject`.
    Reject(String),
}

/// The store's data: the present call.
pub(super) struct State {
    pub(super) heap: Arc<Region>,
    pub(super) stable: StableMemory,
    pub(super) limits: Limits,
    /// What it may grow by without asking the host.
    pub(super) allowance: Allowance,
    /// The module's fuel, once it is known.
    pub(super) fuel: Option<Global>,
    pub(super) exchange: Option<Exchange>,
    pub(super) call: Box<Call>,
    pub(super) context: Context,
    /// Fuel at the start of the call, as the module counts it.
    pub(super) fuel_given: i64,
    pub(super) reply: Vec<u8>,
    pub(super) answer: Answer,
    pub(super) effects: Effects,
}

impl State {
    pub(super) fn new(memory: &TenantMemory, budgeted: bool) -> Self {
        let heap = Arc::clone(memory.heap());
        let limits = Limits {
            heap: heap.limit(),
            instantiating: true,
            table_elements: 0,
        };
        Self {
            heap,
            stable: memory.stable().clone(),
            limits,
            allowance: Allowance::new(budgeted),
            fuel: None,
            exchange: None,
            call: Box::default(),
            context: Context::Start,
            fuel_given: 0,
            reply: Vec::new(),
            answer: Answer::None,
            effects: Effects::default(),
        }
    }

    /// Bytes of heap now.
    pub(super) fn heap_size(&self) -> u64 {
        self.heap.size()
    }

    /// Whether the node has the memory for so many bytes more, which the
    /// tenant's limits allow.
    pub(super) fn may_grow(&mut self, bytes: u64) -> Result<(), Stop> {
        self.allowance.take(bytes, self.exchange.as_mut())
    }

    /// Takes up a call and gives the last one back.
    pub(super) fn begin(&mut self, call: Box<Call>, exchange: Exchange) -> Box<Call> {
        self.fuel_given = i64::try_from(call.fuel).unwrap_or(i64::MAX);
        self.allowance.begin();
        self.exchange = Some(exchange);
        self.reply = Vec::new();
        self.answer = Answer::None;
        self.effects = Effects::default();
        std::mem::replace(&mut self.call, call)
    }
}

/// The tenant's limits, which give -1, and what the host lacks, which aborts.
#[derive(Debug)]
pub(super) struct Limits {
    heap: u64,
    /// What a module begins with was checked when it was loaded.
    instantiating: bool,
    table_elements: usize,
}

impl Limits {
    /// From now on it is the tenant that grows its heap.
    pub(super) fn instantiated(&mut self) {
        self.instantiating = false;
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if self.limits.instantiating {
            return Ok(true);
        }
        if desired as u64 > self.limits.heap || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.may_grow(desired.saturating_sub(current) as u64)?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Beyond the module's own maximum it fails too: that is its -1.
        match error.downcast::<Lack>() {
            Ok(lack) => Err(Stop::Lack(lack).into()),
            Err(_) => Ok(()),
        }
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let elements = self
            .limits
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if elements > MAX_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.limits.table_elements = elements;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Everything that is the module's own doing was refused above, but for
        // a size that no address can reach.
        match self.limits.table_elements < MAX_TABLE_ELEMENTS
            && error.to_string().contains("overflow")
        {
            true => Ok(()),
            false => Err(Stop::Table(format!("{error:#}")).into()),
        }
    }
}

/// The guest, in a system call.
pub(super) struct Guest<'a> {
    pub(super) caller: Caller<'a, State>,
    /// The import that was called: its module and name.
    pub(super) import: (&'static str, &'static str),
}

impl Guest<'_> {
    pub(super) fn state(&self) -> &State {
        self.caller.data()
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        self.caller.data_mut()
    }

    /// Fuel left now.
    pub(super) fn fuel(&mut self) -> i64 {
        let Some(fuel) = self.state().fuel else {
            return 0;
        };
        fuel.get(&mut self.caller).i64().unwrap_or(0)
    }

    /// Takes fuel.
    pub(super) fn charge(&mut self, units: u64) -> Result<(), Stop> {
        let left = self.fuel().saturating_sub_unsigned(units);
        if let Some(fuel) = self.state().fuel {
            // It is a mutable i64 (checked when the instance was made).
            let _ = fuel.set(&mut self.caller, Val::I64(left));
        }
        if left < 0 { Err(Stop::Fuel) } else { Ok(()) }
    }

    /// A breach of the interface's contract.
    pub(super) fn contract(&self, why: impl std::fmt::Display) -> Stop {
        let (module, name) = self.import;
        Stop::Contract(format!("{module}.{name}: {why}"))
    }

    /// A range that lies beyond `what`, which has `size` bytes.
    pub(super) fn beyond(&self, what: &'static str, at: u64, length: u64, size: u64) -> Stop {
        let (module, name) = self.import;
        Stop::OutOfBounds {
            module,
            name,
            what,
            at,
            length,
            size,
        }
    }

    /// Reads from the heap, for fuel, at most `most` bytes.
    pub(super) fn read(&mut self, at: u64, length: u64, most: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        self.read_into(at, length, most, &mut bytes)?;
        Ok(bytes)
    }

    fn read_into(
        &mut self,
        at: u64,
        length: u64,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        self.charge(costs::copying(length))?;
        if length > most as u64 {
            return Err(self.contract(format_args!("{length} bytes are over the limit of {most}")));
        }
        let heap = &self.state().heap;
        if !heap.read(at, length, out) {
            return Err(self.beyond("heap", at, length, heap.size()));
        }
        Ok(())
    }

    /// Appends bytes of the heap to the reply.
    pub(super) fn append_reply(&mut self, at: u64, length: u64) -> Result<(), Stop> {
        let mut reply = std::mem::take(&mut self.state_mut().reply);
        let room = MAX_REPLY.saturating_sub(reply.len());
        let done = self.read_into(at, length, room, &mut reply);
        self.state_mut().reply = reply;
        done
    }

    /// Writes a whole value to the heap.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Stop> {
        self.charge(costs::copying(bytes.len() as u64))?;
        let heap = &self.state().heap;
        if !heap.write(at, bytes) {
            return Err(self.beyond("heap", at, bytes.len() as u64, heap.size()));
        }
        Ok(())
    }

    /// Copies `length` bytes from `offset` of what `field` picks to the heap.
    pub(super) fn copy_field(
        &mut self,
        [to, offset, length]: [u64; 3],
        field: fn(&State) -> &[u8],
    ) -> Result<(), Stop> {
        self.charge(costs::copying(length))?;
        let state = self.state();
        let bytes = field(state);
        let part = offset
            .checked_add(length)
            .and_then(|end| bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
        let Some(part) = part else {
            return Err(self.beyond("data", offset, length, bytes.len() as u64));
        };
        if !state.heap.write(to, part) {
            return Err(self.beyond("heap", to, length, state.heap.size()));
        }
        Ok(())
    }
}
