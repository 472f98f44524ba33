//! What a tenant's module may import: one table of system calls, from which
//! the linker, the check at install and the documentation come.
//!
//! The functions are those of the Internet Computer's interface specification
//! ("Overview of imports"). Each exists for 32- and 64-bit memory: the type
//! `I` of pointers and sizes is that of the module's memory.

mod calls;
mod cycles;
mod host;
mod message;
mod stable;
mod system;

use std::mem::MaybeUninit;

use lazaret_wire::message::ProvidedFunction;
use wasmtime::{Engine, ExternType, FuncType, Linker, Module, ValRaw, ValType};

use super::context::Contexts;
use super::costs;
use super::error::LoadError;
use super::state::{Guest, State};
use super::stop::Stop;

/// The module name of system calls.
pub const IC0: &str = "ic0";
/// The module name of the embedder's functions.
pub const HOST: &str = "host";

/// The most parameters of a system call.
const MOST_PARAMETERS: usize = 8;

/// A system call's parameters, pointers and 32-bit numbers zero-extended.
type Arguments = [u64; MOST_PARAMETERS];

/// The type of a parameter or result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// A pointer or a size: as wide as the memory's addresses.
    I,
    I32,
    I64,
}

impl Type {
    fn wasm(self, memory64: bool) -> ValType {
        match (self, memory64) {
            (Self::I32, _) | (Self::I, false) => ValType::I32,
            (Self::I64, _) | (Self::I, true) => ValType::I64,
        }
    }
}

/// One system call.
struct Import {
    name: &'static str,
    parameters: &'static [Type],
    result: Option<Type>,
    /// Where it may be called.
    allowed: Contexts,
    run: fn(&mut Guest<'_>, &Arguments) -> Result<u64, Stop>,
}

/// All of them, a list for each subject.
const TABLES: [&[Import]; 5] = [
    message::TABLE,
    system::TABLE,
    stable::TABLE,
    cycles::TABLE,
    calls::TABLE,
];

fn table() -> impl Iterator<Item = &'static Import> {
    TABLES.into_iter().flatten()
}

/// Whether every tenant may import this function. The embedder's functions
/// (module [`HOST`]) are not among these: they are provided by name.
pub fn provided(module: &str, name: &str) -> bool {
    module == IC0 && table().any(|import| import.name == name)
}

/// The names of all system calls.
pub fn names() -> impl Iterator<Item = &'static str> {
    table().map(|import| import.name)
}

/// A linker with all that `module` imports. Its memory has 64-bit addresses if
/// `memory64`.
pub(super) fn linker(
    engine: &Engine,
    module: &Module,
    memory64: bool,
    host_functions: &[ProvidedFunction],
) -> Result<Linker<State>, LoadError> {
    let mut linker = Linker::new(engine);
    // A module may import the same function twice.
    linker.allow_shadowing(true);
    let mut unknown = Vec::new();
    for import in module.imports() {
        let full = || format!("{}.{}", import.module(), import.name());
        let ExternType::Func(found) = import.ty() else {
            unknown.push(full());
            continue;
        };
        let provided = || {
            host_functions
                .iter()
                .enumerate()
                .find(|(_, function)| function.name == import.name())
        };
        let expected = match import.module() {
            IC0 => table()
                .find(|known| known.name == import.name())
                .map(|known| add(&mut linker, engine, known, memory64)),
            HOST => provided().map(|(number, function)| {
                host::add(&mut linker, engine, number, function, memory64)
            }),
            _ => None,
        };
        match expected {
            None => unknown.push(full()),
            Some(expected) => {
                let expected = expected.map_err(LoadError::Engine)?;
                if !FuncType::eq(&found, &expected) {
                    return Err(LoadError::ImportType {
                        name: full(),
                        found: found.to_string(),
                        expected: expected.to_string(),
                    });
                }
            }
        }
    }
    if unknown.is_empty() {
        Ok(linker)
    } else {
        Err(LoadError::Imports {
            names: unknown.join(", "),
        })
    }
}

fn add(
    linker: &mut Linker<State>,
    engine: &Engine,
    import: &'static Import,
    memory64: bool,
) -> wasmtime::Result<FuncType> {
    let wasm = |ty: &Type| ty.wasm(memory64);
    define(
        linker,
        engine,
        (IC0, import.name),
        import.parameters.iter().map(wasm),
        import.result.as_ref().map(wasm),
        {
            move |caller, arguments| {
                let mut guest = Guest {
                    caller,
                    import: (IC0, import.name),
                };
                let context = guest.state().context;
                if !import.allowed.contains(context) {
                    return Err(guest.contract(format_args!("can't be called in {context}")));
                }
                guest.charge(costs::SYSTEM_CALL)?;
                (import.run)(&mut guest, arguments)
            }
        },
    )
}

/// Defines a function over integers of 32 and 64 bits.
fn define(
    linker: &mut Linker<State>,
    engine: &Engine,
    (module, name): (&str, &str),
    parameters: impl Iterator<Item = ValType>,
    result: Option<ValType>,
    run: impl Fn(wasmtime::Caller<'_, State>, &Arguments) -> Result<u64, Stop> + Send + Sync + 'static,
) -> wasmtime::Result<FuncType> {
    let parameters: Vec<ValType> = parameters.take(MOST_PARAMETERS).collect();
    let wide: Vec<bool> = parameters.iter().map(ValType::is_i64).collect();
    let result_wide = result.as_ref().map(ValType::is_i64);
    let ty = FuncType::new(engine, parameters, result);
    let call = move |caller: wasmtime::Caller<'_, State>, values: &mut [MaybeUninit<ValRaw>]| {
        let mut arguments: Arguments = [0; MOST_PARAMETERS];
        for ((argument, value), wide) in arguments.iter_mut().zip(values.iter()).zip(&wide) {
            // SAFETY: the engine initialises as many values as the type has
            // parameters, and `wide` has one for each.
            let value = unsafe { value.assume_init() };
            *argument = if *wide {
                value.get_u64()
            } else {
                value.get_u32().into()
            };
        }
        let returned = run(caller, &arguments)?;
        if let (Some(wide), Some(value)) = (result_wide, values.first_mut()) {
            value.write(if wide {
                ValRaw::u64(returned)
            } else {
                ValRaw::u32(returned as u32)
            });
        }
        Ok(())
    };
    // SAFETY: the values are read and written as the type says: integers of
    // the widths in `wide` and `result_wide`, which come from it.
    unsafe { linker.func_new_unchecked(module, name, ty.clone(), call)? };
    Ok(ty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parameters_fit() {
        let mut names: Vec<_> = names().collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(table().all(|import| import.parameters.len() <= MOST_PARAMETERS));
    }

    #[test]
    fn only_system_calls_are_provided() {
        assert!(provided("ic0", "msg_reply") && provided("ic0", "stable64_write"));
        assert!(
            !provided("ic0", "msg_repl")
                && !provided("env", "msg_reply")
                && !provided("host", "msg_reply")
        );
    }
}
