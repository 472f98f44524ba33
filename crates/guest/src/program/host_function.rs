//! Functions of the embedder: `host.<name>`.
//!
//! `(func (param $ptr i32) (param $len i32) (param $out_ptr i32) (param $out_cap
//! i32) (result i32))`: the argument is `$len` bytes at `$ptr`; the result's
//! first `$out_cap` bytes go to `$out_ptr`, and its whole length is returned.
//! An error of the embedder's function is a trap.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use lazaret_instrument::names;
use lazaret_wire::message::host_call::MAX_HOST_BYTES;
use lazaret_wire::message::{HostCall, HostReturn, ProvidedFunction};
use wasmtime::{Caller, Extern, Linker, Val};

use super::imports::{HOST, memory, slice};
use super::state::State;

/// Between the guest, which runs in a future, and the loop that drives it and
/// holds the wire: the call that waits, then its return.
#[derive(Debug, Default)]
pub(super) struct Line {
    call: Mutex<Option<HostCall>>,
    answer: Mutex<Option<HostReturn>>,
}

impl Line {
    /// The call that waits, if one does.
    pub(super) fn take_call(&self) -> Option<HostCall> {
        self.call
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Gives the call that waits its return.
    pub(super) fn put_answer(&self, answer: HostReturn) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Calls, and is pending until there is a return.
    async fn call(&self, call: HostCall) -> HostReturn {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
        poll_fn(|_| {
            match self
                .answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
            {
                Some(answer) => Poll::Ready(answer),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Takes what a call costs from a metered program's fuel. If there isn't so much,
/// it ends as the program's own code would have ended it.
fn charge(caller: &mut Caller<'_, State>, fuel: u64) -> wasmtime::Result<()> {
    if fuel == 0 {
        return Ok(());
    }
    let Some(Extern::Global(left)) = caller.get_export(names::FUEL) else {
        return Ok(());
    };
    let after = left
        .get(&mut *caller)
        .i64()
        .unwrap_or(0)
        .saturating_sub_unsigned(fuel);
    left.set(&mut *caller, Val::I64(after))?;
    if after >= 0 {
        return Ok(());
    }
    if let Some(Extern::Global(stop)) = caller.get_export(names::STOP) {
        stop.set(&mut *caller, Val::I32(names::STOP_FUEL))?;
    }
    Err(wasmtime::Trap::UnreachableCodeReached.into())
}

/// Adds host function number `number`.
pub(super) fn add_to_linker(
    linker: &mut Linker<State>,
    number: usize,
    provided: &ProvidedFunction,
) -> wasmtime::Result<()> {
    let number = u16::try_from(number)?;
    let fuel = provided.fuel;
    linker.func_wrap_async(
        HOST,
        &provided.name,
        move |mut caller: Caller<'_, State>, (at, length, out, capacity): (i32, i32, i32, i32)| {
            Box::new(async move {
                charge(&mut caller, fuel)?;
                let memory = memory(&mut caller)?;
                let argument = slice(memory.data_mut(&mut caller), at.cast_unsigned(), length.cast_unsigned())
                    .ok_or(wasmtime::Trap::MemoryOutOfBounds)?;
                if argument.len() > MAX_HOST_BYTES {
                    return Err(wasmtime::Error::msg(format!(
                        "an argument of {} bytes for a host function; at most {MAX_HOST_BYTES} may be passed",
                        argument.len(),
                    )));
                }
                let call = HostCall { function: number, argument: argument.to_vec() };
                let line = Arc::clone(&caller.data().line);
                let result = line.call(call).await.result.map_err(wasmtime::Error::msg)?;
                let out = slice(memory.data_mut(&mut caller), out.cast_unsigned(), capacity.cast_unsigned())
                    .ok_or(wasmtime::Trap::MemoryOutOfBounds)?;
                for (to, from) in out.iter_mut().zip(&result) {
                    *to = *from;
                }
                Ok(i32::try_from(result.len())?)
            })
        },
    )?;
    Ok(())
}
