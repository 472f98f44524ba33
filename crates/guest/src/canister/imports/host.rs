//! Functions of the embedder: `host.<name>`.
//!
//! `(func (param $ptr I) (param $len I) (param $out_ptr I) (param $out_cap I)
//! (result I))`: the argument is `$len` bytes at `$ptr`; the result's first
//! `$out_cap` bytes go to `$out_ptr`, and its whole length is returned. An
//! error of the embedder's function is a trap with its message.

use lazaret_wire::message::host_call::MAX_HOST_BYTES;
use lazaret_wire::message::{HostCall, ProvidedFunction};
use wasmtime::{Engine, FuncType, Linker};

use super::super::costs;
use super::super::state::{Guest, State};
use super::super::stop::Stop;
use super::{Arguments, HOST, Type, define};

/// Adds host function number `number`.
pub(super) fn add(
    linker: &mut Linker<State>,
    engine: &Engine,
    number: usize,
    provided: &ProvidedFunction,
    memory64: bool,
) -> wasmtime::Result<FuncType> {
    let number = u16::try_from(number)?;
    // At most 256 of at most 256 bytes, once in a worker's life.
    let name: &'static str = provided.name.clone().leak();
    let price = costs::HOST_FUNCTION.saturating_add(provided.fuel);
    let pointer = Type::I.wasm(memory64);
    let parameters = std::iter::repeat_n(pointer.clone(), 4);
    define(
        linker,
        engine,
        (HOST, name),
        parameters,
        Some(pointer),
        move |caller, arguments| {
            call(
                &mut Guest {
                    caller,
                    import: (HOST, name),
                },
                number,
                price,
                arguments,
            )
        },
    )
}

fn call(
    guest: &mut Guest<'_>,
    function: u16,
    price: u64,
    &[at, length, out, capacity, ..]: &Arguments,
) -> Result<u64, Stop> {
    let (_, name) = guest.import;
    let failed = |message: String| Stop::HostFunction { name, message };
    guest.charge(price)?;
    if length > MAX_HOST_BYTES as u64 {
        return Err(guest.contract(format_args!(
            "an argument of {length} bytes; at most {MAX_HOST_BYTES} may be passed"
        )));
    }
    let argument = guest.read(at, length, MAX_HOST_BYTES)?;
    let size = guest.state().heap.size();
    if out.checked_add(capacity).is_none_or(|end| end > size) {
        return Err(guest.beyond("heap", out, capacity, size));
    }
    let Some(exchange) = &mut guest.state_mut().exchange else {
        return Err(failed("there is no host to call".to_owned()));
    };
    let result = exchange
        .host_call(HostCall { function, argument })
        .result
        .map_err(failed)?;
    let room = usize::try_from(capacity)
        .unwrap_or(usize::MAX)
        .min(result.len());
    guest.write(out, result.get(..room).unwrap_or_default())?;
    Ok(result.len() as u64)
}
