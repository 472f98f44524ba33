//! The recursion limit.

use crate::run::{OPT_LEVELS, Outcome, Run, engine, on_large_stack, rewrite};
use lazaret_instrument::{Options, RECURSION_LIMIT, frame_units, names};
use wasmtime::{OptLevel, Val};

fn limited(limit: u32) -> Options {
    Options {
        recursion_limit: Some(limit),
        ..Options::default()
    }
}

const DOWN: &str = r#"(module (func $down (export "down") (param i32)
    (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1)))))))"#;

#[test]
fn recursion_stops_at_exactly_the_limit() {
    let wasm = rewrite(&wat::parse_str(DOWN).unwrap(), &limited(100)).wasm;
    for opt_level in OPT_LEVELS {
        let mut run = Run::new(&engine(opt_level), &wasm).unwrap();
        // `down n` has n + 1 active calls at its deepest.
        assert_eq!(run.call("down", &[Val::I32(99)]), Outcome::Results(vec![]));
        assert_eq!(
            run.call("down", &[Val::I32(100)]),
            Outcome::Stopped(names::STOP_RECURSION)
        );
    }
}

#[test]
fn every_way_out_takes_the_units_off() {
    let module = wat::parse_str(
        r#"(module
            (func $leave (export "leave") (param i32) (result i32 i64)
                (call $nothing)
                (block $c
                    (block $b
                        (block $a (br_table $a $b $c (local.get 0)))
                        (return (i32.const 1) (i64.const 1)))
                    (br 1 (i32.const 2) (i64.const 2)))
                (if (i32.eq (local.get 0) (i32.const 2)) (then (return_call $tail)))
                (call $tail))
            (func $tail (result i32 i64) (call $nothing) (i32.const 3) (i64.const 3))
            (func $nothing))"#,
    )
    .unwrap();
    let mut run = Run::new(
        &engine(OptLevel::Speed),
        &rewrite(&module, &limited(3)).wasm,
    )
    .unwrap();
    for (way, expected) in [(0, 1), (1, 2), (2, 3), (3, 3)] {
        // `Run::call` checks that the depth is 0 again.
        let results = vec![format!("i32 {expected}"), format!("i64 {expected}")];
        assert_eq!(
            run.call("leave", &[Val::I32(way)]),
            Outcome::Results(results)
        );
    }
}

#[test]
fn tail_calls_do_not_add_up() {
    let module = wat::parse_str(
        r#"(module
            (type $t (func (param i32) (result i32)))
            (table funcref (elem $odd))
            (func $even (export "even") (type $t)
                (call $nothing)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 1))))
                (return_call_indirect (type $t)
                    (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))
            (func $odd (type $t)
                (call $nothing)
                (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
                (return_call $even (i32.sub (local.get 0) (i32.const 1))))
            (func $nothing))"#,
    )
    .unwrap();
    let mut run = Run::new(
        &engine(OptLevel::Speed),
        &rewrite(&module, &limited(2)).wasm,
    )
    .unwrap();
    let results = Outcome::Results(vec!["i32 1".to_string()]);
    assert_eq!(run.call("even", &[Val::I32(1_000_000)]), results);
}

#[test]
fn large_frames_take_more_units() {
    assert_eq!(frame_units(0, 0), 1);
    assert_eq!(frame_units(64, 4_095), 1);
    assert_eq!(frame_units(65, 0), 2);
    assert_eq!(frame_units(0, 4_096), 2);
    assert_eq!(frame_units(u64::MAX, u64::MAX / 4_096), i32::MAX as u32);
    // 640 locals and 2 operands, 11 units, leave room for 9 calls below a limit of 100.
    let module = format!(
        r#"(module (func $down (export "down") (param i32) (local {})
            (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1)))))))"#,
        "i64 ".repeat(639)
    );
    let wasm = rewrite(&wat::parse_str(module).unwrap(), &limited(100)).wasm;
    let mut run = Run::new(&engine(OptLevel::Speed), &wasm).unwrap();
    assert_eq!(run.call("down", &[Val::I32(8)]), Outcome::Results(vec![]));
    assert_eq!(
        run.call("down", &[Val::I32(9)]),
        Outcome::Stopped(names::STOP_RECURSION)
    );
}

/// Functions that call themselves and keep as much as they can on the native stack.
fn hungry_functions() -> Vec<(&'static str, String)> {
    let mut functions = vec![("small", DOWN.replace("down", "f"))];
    let n = 2_000;
    // Results of calls, held as operands across the recursive call.
    let held = "(call $id (local.get 0))".repeat(n);
    let body = |inner: &str, locals: &str| {
        format!(
            r#"(module
                (global $g (mut i32) (i32.const 7))
                (func $id (param i32) (result i32) (i32.add (local.get 0) (global.get $g)))
                (func $f (export "f") (param i32) (result i32) {locals} {inner}))"#
        )
    };
    let adds = "i32.add ".repeat(n);
    functions.push((
        "operands",
        body(&format!("{held} (call $f (local.get 0)) {adds}"), ""),
    ));
    let fill: String = (0..n)
        .map(|i| format!("(local.set {} (call $id (local.get 0)))", i + 1))
        .collect();
    let sum: String = (0..n)
        .map(|i| format!("(local.get {}) i32.add ", i + 1))
        .collect();
    let locals = format!("(local {})", "i32 ".repeat(n));
    functions.push((
        "locals",
        body(&format!("{fill} (call $f (local.get 0)) {sum}"), &locals),
    ));
    // Values that don't change in the loop, which a compiler may compute before it.
    let invariant: String = (0..n)
        .map(|i| {
            format!(
                "(i32.xor (i32.mul (local.get 0) (i32.const {})) (local.get 1)) ",
                2 * i + 3
            )
        })
        .map(|value| format!("{value} i32.add "))
        .collect();
    functions.push((
        "invariants",
        body(
            &format!(
                "(local.set 1 (call $id (i32.const 3)))
                (loop $l (local.set 2 (call $f (local.get 0)) {invariant})
                    (br_if $l (local.get 2))) (local.get 2)"
            ),
            "(local i32 i32)",
        ),
    ));
    functions
}

#[test]
fn the_limit_is_met_before_the_native_stack_ends() {
    on_large_stack(|| {
        for opt_level in OPT_LEVELS {
            let engine = engine(opt_level);
            for (name, module) in hungry_functions() {
                let module = wat::parse_str(&module).unwrap_or_else(|e| panic!("{name}: {e}"));
                let wasm = rewrite(&module, &limited(RECURSION_LIMIT)).wasm;
                let mut run = Run::new(&engine, &wasm).unwrap();
                assert_eq!(
                    run.call("f", &[Val::I32(i32::MAX)]),
                    Outcome::Stopped(names::STOP_RECURSION),
                    "{name} at {opt_level:?}"
                );
            }
        }
    });
}
