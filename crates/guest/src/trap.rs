//! What the engine calls an error, as a trap of the wire.
//!
//! The engine reports one error type for everything that ends a call: traps of
//! the code, errors of host functions, and the reasons of the metering, which
//! the code itself raises as `unreachable` after it has written down why.

use lazaret_instrument::names;
use lazaret_wire::message::setup::MAX_TEXT;
use lazaret_wire::message::{Trap, TrapKind};
use wasmtime::WasmBacktrace;

/// The first line of [`WasmBacktrace`]'s own text, and so of an error that has
/// one as its context.
const BACKTRACE_TITLE: &str = "error while executing at wasm backtrace:";

/// The trap that `error` is. `stop` is the module's `lazaret:stop` global after
/// the call ([`names::STOP`]), or [`names::STOP_NONE`] if it has none.
///
/// An error that isn't one of the engine's traps comes from a host function: it
/// becomes [`TrapKind::Other`] with the error's own words.
pub fn trap(error: &wasmtime::Error, stop: i32) -> Trap {
    let (kind, message) = match (stop, error.downcast_ref::<wasmtime::Trap>()) {
        (names::STOP_FUEL, _) => (TrapKind::Fuel, "the fuel is used up".to_owned()),
        (names::STOP_RECURSION, _) => (
            TrapKind::Recursion,
            "the recursion limit is reached".to_owned(),
        ),
        (_, Some(trap)) => (kind(*trap), words(*trap)),
        (_, None) => (TrapKind::Other, message(error)),
    };
    Trap {
        kind,
        message: cut(message),
        backtrace: backtrace(error),
    }
}

/// The Wasm frames of `error`, innermost first, a line each, with the names of
/// functions, where the module has them. Empty if the error has no frames.
pub fn backtrace(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let mut text = String::new();
    // Its own text demangles names, which its accessors don't. The title and
    // the advice at its end are for users of the engine.
    for line in trace
        .to_string()
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with("note: "))
    {
        let line = line.trim();
        if !text.is_empty() {
            // The source line of the frame above stays on its line.
            text.push_str(if line.starts_with("at ") { "  " } else { "\n" });
        }
        // A module without a name has nothing to say there.
        text.push_str(&without_offset(line).replace("<unknown>!", ""));
    }
    cut(text)
}

/// A line of a backtrace without the offset in the code: that is the rewritten
/// module's, which nobody has, and differs with how writes are tracked.
fn without_offset(line: &str) -> String {
    match line.split_once(": ") {
        Some((index, rest)) if rest.trim_start().starts_with("0x") => {
            match rest.split_once(" - ") {
                Some((_, name)) => format!("{index}: {name}"),
                None => line.to_owned(),
            }
        }
        _ => line.to_owned(),
    }
}

/// What `error` says, outermost first, without frames.
pub fn message(error: &wasmtime::Error) -> String {
    let parts: Vec<String> = error
        .chain()
        .map(ToString::to_string)
        .filter(|part| !part.starts_with(BACKTRACE_TITLE))
        .collect();
    cut(parts.join(": "))
}

fn kind(trap: wasmtime::Trap) -> TrapKind {
    use wasmtime::Trap as T;
    match trap {
        T::UnreachableCodeReached => TrapKind::Unreachable,
        T::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        T::TableOutOfBounds | T::IndirectCallToNull | T::BadSignature => TrapKind::BadTable,
        T::IntegerOverflow | T::IntegerDivisionByZero | T::BadConversionToInteger => {
            TrapKind::Arithmetic
        }
        T::OutOfFuel => TrapKind::Fuel,
        T::StackOverflow => TrapKind::Recursion,
        _ => TrapKind::Other,
    }
}

fn words(trap: wasmtime::Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}

/// At most [`MAX_TEXT`] bytes, which is what the wire carries, at the end of a
/// character.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Config, Engine, Instance, Module, Store};

    /// Calls `f` of a module and gives its error.
    fn error(wat: &str) -> wasmtime::Error {
        let engine = Engine::new(Config::new().memory_reservation(0)).expect("engine");
        let module = Module::new(&engine, wat).expect("module");
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).expect("instance");
        let f = instance
            .get_typed_func::<(), ()>(&mut store, "f")
            .expect("f");
        f.call(&mut store, ()).expect_err("it traps")
    }

    #[test]
    fn kinds_and_words() {
        let body = |body: &str| {
            format!(
                "(module (memory 1) (table 1 funcref) (type $t (func)) (func $inner {body}) (func (export \"f\") call $inner))"
            )
        };
        let cases = [
            (
                "unreachable",
                TrapKind::Unreachable,
                "wasm `unreachable` instruction executed",
            ),
            (
                "(drop (i32.load (i32.const -1)))",
                TrapKind::MemoryOutOfBounds,
                "out of bounds memory access",
            ),
            (
                "(call_indirect (type $t) (i32.const 0))",
                TrapKind::BadTable,
                "uninitialized element",
            ),
            (
                "(call_indirect (type $t) (i32.const 7))",
                TrapKind::BadTable,
                "undefined element: out of bounds table access",
            ),
            (
                "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
                TrapKind::Arithmetic,
                "integer divide by zero",
            ),
            (
                "(drop (i32.trunc_f32_s (f32.const nan)))",
                TrapKind::Arithmetic,
                "invalid conversion to integer",
            ),
            ("call $inner", TrapKind::Recursion, "call stack exhausted"),
        ];
        for (code, kind, words) in cases {
            let found = trap(&error(&body(code)), names::STOP_NONE);
            assert_eq!(
                (found.kind, found.message.as_str()),
                (kind, words),
                "{code}"
            );
            assert!(found.backtrace.starts_with("0: "), "{}", found.backtrace);
            assert!(
                found
                    .backtrace
                    .lines()
                    .next()
                    .is_some_and(|line| line.ends_with("inner")),
                "{}",
                found.backtrace
            );
        }
    }

    #[test]
    fn the_stop_global_decides() {
        let error = error("(module (func (export \"f\") unreachable))");
        assert_eq!(trap(&error, names::STOP_FUEL).kind, TrapKind::Fuel);
        assert_eq!(
            trap(&error, names::STOP_RECURSION).kind,
            TrapKind::Recursion
        );
        assert_eq!(trap(&error, names::STOP_NONE).kind, TrapKind::Unreachable);
    }

    #[test]
    fn errors_of_host_functions_keep_their_words() {
        let error = wasmtime::Error::msg("inside").context("outside");
        let found = trap(&error, names::STOP_NONE);
        assert_eq!(
            (found.kind, found.message.as_str(), found.backtrace.as_str()),
            (TrapKind::Other, "outside: inside", "")
        );
    }

    #[test]
    fn text_is_cut_between_characters() {
        let cut = cut("a".repeat(MAX_TEXT - 1) + "é");
        assert_eq!(cut, "a".repeat(MAX_TEXT - 1));
    }
}
