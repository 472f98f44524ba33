//! Fuel: what it costs, and what happens when there is none.

use crate::run::{OPT_LEVELS, Outcome, Run, engine, rewrite};
use crate::semantics::corpus;
use lazaret_instrument::{CardOptions, Options, costs, names};
use wasmtime::{OptLevel, Val};

fn metered() -> Options {
    Options {
        metering: true,
        ..Options::default()
    }
}

#[test]
fn fuel_does_not_depend_on_the_compiler_or_the_other_options() {
    for case in corpus() {
        let mut expected: Option<Vec<i64>> = None;
        for opt_level in OPT_LEVELS {
            let engine = engine(opt_level);
            for other in 0..8_u32 {
                let options = Options {
                    recursion_limit: (other & 1 != 0).then_some(1_000),
                    persistent: other & 2 != 0,
                    cards: (other & 4 != 0).then(CardOptions::default),
                    ..metered()
                };
                let instrumented = rewrite(&case.wasm, &options);
                let mut run = Run::new(&engine, &instrumented.wasm).unwrap();
                if options.persistent {
                    run.call(names::INIT, &[]);
                }
                if instrumented.report.has_start {
                    run.call(names::START, &[]);
                }
                let used: Vec<i64> = case
                    .calls
                    .iter()
                    .map(|(name, values)| {
                        run.call(name, values);
                        run.used()
                    })
                    .collect();
                assert!(
                    used.iter().all(|used| *used >= 0),
                    "{}: {used:?}",
                    case.name
                );
                match &expected {
                    None => expected = Some(used),
                    Some(expected) => assert_eq!(&used, expected, "{}", case.name),
                }
            }
        }
    }
}

/// Runs `f` of a module and gives the fuel it used.
fn fuel(module: &str, arguments: &[Val]) -> i64 {
    let instrumented = rewrite(&wat::parse_str(module).unwrap(), &metered());
    let mut run = Run::new(&engine(OptLevel::Speed), &instrumented.wasm).unwrap();
    run.call("f", arguments);
    run.used()
}

#[test]
fn a_straight_line_costs_the_sum_of_its_prices() {
    // Two constants, an addition and a division at 10.
    let module = r#"(module (func (export "f") (result i32)
        i32.const 1 i32.const 2 i32.add i32.const 3 i32.div_u))"#;
    assert_eq!(fuel(module, &[]), 1 + 1 + 1 + 1 + 10);
}

#[test]
fn only_the_branch_that_is_taken_costs() {
    let module = r#"(module (func (export "f") (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.div_u (i32.const 8) (i32.const 2)))
            (else (i32.const 1)))))"#;
    // `local.get` 1 and `if` 2.
    assert_eq!(fuel(module, &[Val::I32(1)]), 3 + 1 + 1 + 10);
    assert_eq!(fuel(module, &[Val::I32(0)]), 3 + 1);
}

#[test]
fn a_loop_costs_each_time_around() {
    let module = r#"(module (func (export "f") (param i32)
        (loop $again
            (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (br_if $again (local.get 0)))))"#;
    // loop 1, local.get, i32.const, i32.sub, local.set, local.get 5, br_if 2.
    assert_eq!(fuel(module, &[Val::I32(1)]), 8);
    assert_eq!(fuel(module, &[Val::I32(1_000)]), 8_000);
}

#[test]
fn code_after_a_block_that_is_left_early_costs_only_if_reached() {
    let module = r#"(module (func (export "f") (param i32)
        (block $out
            (br_if $out (local.get 0))
            (drop (i32.div_u (i32.const 1) (i32.const 1))))
        (drop (i32.const 1))))"#;
    assert_eq!(fuel(module, &[Val::I32(1)]), 3 + 1);
    assert_eq!(fuel(module, &[Val::I32(0)]), 3 + 12 + 1);
}

#[test]
fn bulk_instructions_cost_by_their_length() {
    for (is64, address) in [("", "i32"), ("i64", "i64")] {
        let module = format!(
            r#"(module (memory {is64} 2) (func (export "f") (param {address})
                (memory.fill ({address}.const 0) (i32.const 1) (local.get 0))))"#
        );
        let length = |n: i32| {
            if is64.is_empty() {
                Val::I32(n)
            } else {
                Val::I64(n.into())
            }
        };
        assert_eq!(fuel(&module, &[length(0)]), 3 + 20);
        assert_eq!(fuel(&module, &[length(80_000)]), 3 + 20 + 80_000 / 8);
    }
}

#[test]
fn growing_costs_by_page_up_to_a_cap() {
    let module = r#"(module (memory i64 1 10) (func (export "f") (param i64)
        (drop (memory.grow (local.get 0)))))"#;
    let fixed = 301;
    assert_eq!(fuel(module, &[Val::I64(3)]), fixed + 3 * 16);
    let cap = (costs::MEMORY_PAGES_MAX * costs::MEMORY_PAGE) as i64;
    assert_eq!(fuel(module, &[Val::I64(-1)]), fixed + cap);
    let table = r#"(module (table i64 1 10 funcref) (func (export "f") (param i64)
        (drop (table.grow (ref.null func) (local.get 0)))))"#;
    let cap = (costs::TABLE_ELEMENTS_MAX * costs::TABLE_ELEMENT) as i64;
    assert_eq!(fuel(table, &[Val::I64(-1)]), fixed + 1 + cap);
}

#[test]
fn absurd_lengths_neither_wrap_nor_run() {
    for length in [-1_i64, i64::MIN, i64::MAX] {
        let module = wat::parse_str(
            r#"(module (memory i64 1) (func (export "f") (param i64)
                (memory.fill (i64.const 0) (i32.const 1) (local.get 0))))"#,
        )
        .unwrap();
        let mut run =
            Run::new(&engine(OptLevel::Speed), &rewrite(&module, &metered()).wasm).unwrap();
        run.fuel = 1_000;
        assert_eq!(
            run.call("f", &[Val::I64(length)]),
            Outcome::Stopped(names::STOP_FUEL)
        );
        assert!(run.get(names::FUEL) < 0);
    }
}

#[test]
fn endless_programs_run_out_of_fuel() {
    let module = wat::parse_str(
        r#"(module
            (func (export "loop") (loop (br 0)))
            (func (export "table") (param i32) (loop (br_table 0 0 (local.get 0))))
            (func $ping (export "tail") (return_call $pong))
            (func $pong (return_call $ping))
            (func $down (export "call") (call $down)))"#,
    )
    .unwrap();
    let options = Options {
        recursion_limit: Some(u32::MAX >> 1),
        ..metered()
    };
    let wasm = rewrite(&module, &options).wasm;
    let mut run = Run::new(&engine(OptLevel::Speed), &wasm).unwrap();
    run.fuel = 10_000;
    for (name, values) in [
        ("loop", vec![]),
        ("table", vec![Val::I32(0)]),
        ("tail", vec![]),
        ("call", vec![]),
    ] {
        assert_eq!(
            run.call(name, &values),
            Outcome::Stopped(names::STOP_FUEL),
            "{name}"
        );
        assert!(run.used() < 11_000, "{name} overran to {}", run.used());
    }
}

#[test]
fn a_start_function_waits_for_fuel() {
    let module = wat::parse_str(r#"(module (func $s (loop (br 0))) (start $s))"#).unwrap();
    let instrumented = rewrite(&module, &metered());
    assert!(instrumented.report.has_start);
    let mut run = Run::new(&engine(OptLevel::Speed), &instrumented.wasm).unwrap();
    run.fuel = 1_000;
    assert_eq!(
        run.call(names::START, &[]),
        Outcome::Stopped(names::STOP_FUEL)
    );
}

#[test]
fn the_fuel_that_is_used_is_exactly_enough() {
    for case in corpus() {
        let wasm = rewrite(&case.wasm, &metered()).wasm;
        let engine = engine(OptLevel::Speed);
        let Some((name, values)) = case.calls.first() else {
            continue;
        };
        let mut first = Run::new(&engine, &wasm).unwrap();
        let expected = first.call(name, values);
        let used = first.used();
        let mut exact = Run::new(&engine, &wasm).unwrap();
        exact.fuel = used;
        assert_eq!(exact.call(name, values), expected, "{}", case.name);
        assert_eq!(exact.get(names::FUEL), 0);
    }
}

#[test]
fn the_prices_are_those_of_the_version() {
    let mut table = format!("version {}\n", costs::METERING_VERSION);
    table += &format!(
        "bulk 1 per {} bytes\nelement {} up to {}\npage {} up to {}\nuntested up to {}\n",
        1 << costs::BULK_BYTES_PER_UNIT_LOG2,
        costs::TABLE_ELEMENT,
        costs::TABLE_ELEMENTS_MAX,
        costs::MEMORY_PAGE,
        costs::MEMORY_PAGES_MAX,
        costs::UNTESTED_MAX,
    );
    for (operator, price) in costs::PRICES {
        table += &format!("{operator} {price}\n");
    }
    crate::golden::compare("prices.txt", &table);
}
