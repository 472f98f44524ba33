//! The usual safe way to run a tenant's calls in one's own process: wasmtime
//! with its pooling allocator, a fresh instance for every call.
//!
//! The module is the tenant's own, without metering or write tracking. The
//! imports are as small as they can be, so that the baseline is at its best.

use wasmtime::{
    Caller, Config, Engine, Extern, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store, TypedFunc,
};

use crate::error::BenchError;

/// One message: what the guest is asked and what it answers.
#[derive(Default)]
struct Message {
    argument: Vec<u8>,
    reply: Vec<u8>,
    replied: bool,
}

/// A module that gets a fresh instance for every call.
pub(crate) struct InProcess {
    engine: Engine,
    pre: InstancePre<Message>,
    export: &'static str,
}

impl InProcess {
    /// Compiles a module in text, to call its `export`.
    pub(crate) fn new(text: &str, export: &'static str) -> Result<Self, BenchError> {
        let fail = BenchError::in_process;
        let mut pool = PoolingAllocationConfig::default();
        // Its default is 1,000 memories; one is in use here.
        pool.total_memories(16)
            .total_core_instances(16)
            .total_tables(16);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .memory_init_cow(true);
        let engine = Engine::new(&config).map_err(fail("engine"))?;
        let module = Module::new(&engine, text).map_err(fail("module"))?;
        let pre = linker(&engine)
            .and_then(|linker| linker.instantiate_pre(&module))
            .map_err(fail("imports"))?;
        Ok(Self {
            engine,
            pre,
            export,
        })
    }

    /// Calls the export in a fresh instance and returns its reply.
    pub(crate) fn call(&self, argument: &[u8]) -> Result<Vec<u8>, BenchError> {
        self.try_call(argument)
            .map_err(BenchError::in_process("call"))
    }

    fn try_call(&self, argument: &[u8]) -> wasmtime::Result<Vec<u8>> {
        let mut store = Store::new(
            &self.engine,
            Message {
                argument: argument.to_vec(),
                ..Message::default()
            },
        );
        let instance = self.pre.instantiate(&mut store)?;
        instance
            .get_typed_func::<(), ()>(&mut store, self.export)?
            .call(&mut store, ())?;
        let message = store.into_data();
        if message.replied {
            Ok(message.reply)
        } else {
            Err(wasmtime::Error::msg("no reply"))
        }
    }
}

/// A module whose one instance is kept: its memory stays resident, and nothing
/// is tracked, put back or written anywhere.
pub(crate) struct Kept {
    store: Store<Message>,
    export: TypedFunc<(), ()>,
}

impl Kept {
    /// Compiles and instantiates a module in text, to call its `export`.
    pub(crate) fn new(text: &str, export: &str) -> Result<Self, BenchError> {
        let fail = BenchError::in_process;
        let engine = Engine::default();
        let module = Module::new(&engine, text).map_err(fail("module"))?;
        let mut store = Store::new(&engine, Message::default());
        let instance = linker(&engine)
            .and_then(|linker| linker.instantiate(&mut store, &module))
            .map_err(fail("imports"))?;
        let export = instance
            .get_typed_func(&mut store, export)
            .map_err(fail("export"))?;
        Ok(Self { store, export })
    }

    /// Calls the export and returns its reply.
    pub(crate) fn call(&mut self, argument: &[u8]) -> Result<Vec<u8>, BenchError> {
        *self.store.data_mut() = Message {
            argument: argument.to_vec(),
            ..Message::default()
        };
        let called = self.export.call(&mut self.store, ());
        called.map_err(BenchError::in_process("call"))?;
        Ok(std::mem::take(&mut self.store.data_mut().reply))
    }
}

/// The four system calls that the measured modules use.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Message>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("ic0", "msg_arg_data_size", |caller: Caller<'_, Message>| {
        caller.data().argument.len() as i32
    })?;
    linker.func_wrap(
        "ic0",
        "msg_arg_data_copy",
        |mut caller: Caller<'_, Message>, to: i32, offset: i32, length: i32| {
            let (memory, message) = memory(&mut caller)?;
            let source = range(offset, length).and_then(|range| message.argument.get(range));
            let target = range(to, length).and_then(|range| memory.get_mut(range));
            let (source, target) = source
                .zip(target)
                .ok_or_else(|| wasmtime::Error::msg("out of bounds"))?;
            target.copy_from_slice(source);
            wasmtime::Result::Ok(())
        },
    )?;
    linker.func_wrap(
        "ic0",
        "msg_reply_data_append",
        |mut caller: Caller<'_, Message>, from: i32, length: i32| {
            let (memory, message) = memory(&mut caller)?;
            let bytes = range(from, length)
                .and_then(|range| memory.get(range))
                .ok_or_else(|| wasmtime::Error::msg("out of bounds"))?;
            message.reply.extend_from_slice(bytes);
            wasmtime::Result::Ok(())
        },
    )?;
    linker.func_wrap("ic0", "msg_reply", |mut caller: Caller<'_, Message>| {
        caller.data_mut().replied = true
    })?;
    Ok(linker)
}

fn memory<'a>(
    caller: &'a mut Caller<'_, Message>,
) -> wasmtime::Result<(&'a mut [u8], &'a mut Message)> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(wasmtime::Error::msg("no memory"));
    };
    Ok(memory.data_and_store_mut(caller))
}

fn range(at: i32, length: i32) -> Option<std::ops::Range<usize>> {
    let at = at.cast_unsigned() as usize;
    Some(at..at.checked_add(length.cast_unsigned() as usize)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_fresh_instance_with_the_whole_interface() {
        let pages = InProcess::new(crate::update::PAGES, "canister_update write").unwrap();
        let argument = crate::update::argument(100, 8192);
        assert_eq!(pages.call(&argument).unwrap(), 100u64.to_le_bytes());
        let sum = InProcess::new(crate::update::PAGES, "canister_query sum").unwrap();
        assert_eq!(sum.call(&argument).unwrap(), 0u64.to_le_bytes());
        assert!(pages.call(b"too short").is_err());
    }
}
