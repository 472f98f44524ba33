//! What rewritten modules look like, instruction by instruction.
//!
//! After an intended change, run the tests with `UPDATE_GOLDEN=1` and read the difference.

use crate::run::rewrite;
use lazaret_instrument::{CardOptions, Options};
use std::path::Path;

/// Compares text with a file in `tests/golden`.
pub fn compare(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path:?}: {error}; run with UPDATE_GOLDEN=1 to write it"));
    assert_eq!(
        text, expected,
        "{path:?} differs; if that is intended, set UPDATE_GOLDEN=1"
    );
}

fn compare_module(file: &str, module: &str, options: &Options) {
    let module = wat::parse_str(module).unwrap();
    compare(
        file,
        &wasmprinter::print_bytes(rewrite(&module, options).wasm).unwrap(),
    );
}

const CONTROL: &str = r#"(module $control
    (func $leaf (param $a i32) (result i32) (i32.add (local.get $a) (i32.const 1)))
    (func $main (export "main") (param $n i32) (result i32 i32)
        (block $merged (drop (i32.const 1)))
        (loop $again
            (local.set $n (call $leaf (local.get $n)))
            (br_if $again (i32.lt_s (local.get $n) (i32.const 10))))
        (if (local.get $n) (then (return (i32.const 1) (i32.const 2))))
        (i32.const 3) (i32.const 4))
    (func $tail (result i32 i32) (drop (call $leaf (i32.const 0))) (return_call $main (i32.const 5))))"#;

#[test]
fn metering_looks_like_this() {
    let options = Options {
        metering: true,
        ..Options::default()
    };
    compare_module("metering.wat", CONTROL, &options);
}

#[test]
fn a_recursion_limit_looks_like_this() {
    let options = Options {
        recursion_limit: Some(1_000),
        ..Options::default()
    };
    compare_module("recursion.wat", CONTROL, &options);
}

#[test]
fn both_together_look_like_this() {
    let options = Options {
        metering: true,
        recursion_limit: Some(1_000),
        ..Options::default()
    };
    compare_module("metering_recursion.wat", CONTROL, &options);
}

const STATE: &str = r#"(module
    (memory i64 1 2)
    (global $immutable i32 (i32.const 1))
    (global $count (mut i64) (i64.const 0))
    (table 1 funcref)
    (elem (i32.const 0) $start)
    (data $a (i64.const 8) "active")
    (data $p "passive")
    (func $start
        (memory.init $a (i64.const 0) (i32.const 0) (i32.const 0))
        (memory.fill (i64.const 0) (i32.const 7) (i64.const 3))
        (i64.store offset=16 (i64.const 1) (global.get $count)))
    (start $start))"#;

#[test]
fn persistent_mode_looks_like_this() {
    let options = Options {
        persistent: true,
        ..Options::default()
    };
    compare_module("persistent.wat", STATE, &options);
}

#[test]
fn everything_together_looks_like_this() {
    let options = Options {
        metering: true,
        recursion_limit: Some(1_000),
        persistent: true,
        cards: Some(CardOptions::default()),
        ..Options::default()
    };
    compare_module("everything.wat", STATE, &options);
}

#[test]
fn nothing_is_added_unless_asked_for() {
    compare_module("nothing.wat", CONTROL, &Options::default());
}

#[test]
fn names_are_kept_and_other_custom_sections_are_not() {
    let module = r#"(module $m (@custom "secret" "x") (func $named) (func))"#;
    let wasm = rewrite(&wat::parse_str(module).unwrap(), &Options::default()).wasm;
    let text = wasmprinter::print_bytes(&wasm).unwrap();
    assert!(
        text.contains("$named") && text.contains("(module $m"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}
