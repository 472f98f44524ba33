//! Persistent mode: what a host has to keep is exported, and instantiation writes nothing.

use crate::run::{Outcome, Run, engine, rewrite};
use lazaret_instrument::{InstrumentError, Options, ValType, instrument, names};
use wasmtime::{OptLevel, Trap, Val};

fn persistent() -> Options {
    Options {
        persistent: true,
        ..Options::default()
    }
}

fn parse(module: &str) -> Vec<u8> {
    wat::parse_str(module).unwrap()
}

fn run(module: &str) -> Run {
    Run::new(
        &engine(OptLevel::Speed),
        &rewrite(&parse(module), &persistent()).wasm,
    )
    .unwrap()
}

#[test]
fn data_is_written_by_init_and_not_by_instantiation() {
    let mut run = run(r#"(module (memory 1)
            (data (i32.const 0) "first") (data "passive") (data (i32.const 2) "second"))"#);
    assert!(run.memory(names::MEMORY).iter().all(|byte| *byte == 0));
    assert_eq!(run.call(names::INIT, &[]), Outcome::Results(vec![]));
    assert_eq!(&run.memory(names::MEMORY)[..9], b"fisecond\0");
}

#[test]
fn init_traps_where_instantiation_would() {
    for data in [
        r#"(data (i32.const 65530) "1234567")"#,
        r#"(data (i32.const 65537) "")"#,
    ] {
        let module = format!(r#"(module (memory 1) (data (i32.const 1) "x") {data})"#);
        assert!(Run::new(&engine(OptLevel::Speed), &parse(&module)).is_err());
        let mut run = run(&module);
        assert_eq!(
            run.call(names::INIT, &[]),
            Outcome::Trap(Trap::MemoryOutOfBounds)
        );
        assert_eq!(
            run.memory(names::MEMORY)[1],
            b'x',
            "earlier segments are written"
        );
    }
}

#[test]
fn an_active_segment_is_dropped_for_the_module_itself() {
    let module = r#"(module (memory 1) (data (i32.const 0) "active") (data "passive")
        (func (export "again") (memory.init 0 (i32.const 8) (i32.const 0) (i32.const 1)))
        (func (export "nothing")
            (memory.init 0 (i32.const 8) (i32.const 0) (i32.const 0)) (data.drop 0))
        (func (export "other") (memory.init 1 (i32.const 8) (i32.const 0) (i32.const 7))))"#;
    // Also in an instance in which `lazaret:init` has not been called.
    let mut run = run(module);
    assert_eq!(
        run.call("again", &[]),
        Outcome::Trap(Trap::MemoryOutOfBounds)
    );
    assert_eq!(run.call("nothing", &[]), Outcome::Results(vec![]));
    assert_eq!(run.call("other", &[]), Outcome::Results(vec![]));
    assert_eq!(&run.memory(names::MEMORY)[8..15], b"passive");
    run.call(names::INIT, &[]);
    assert_eq!(&run.memory(names::MEMORY)[..6], b"active");
}

#[test]
fn offsets_may_be_any_constant_expression() {
    let module = r#"(module (import "env" "base" (global $base i64)) (memory i64 1)
        (data (offset (i64.add (global.get $base) (i64.mul (i64.const 3) (i64.const 4)))) "x"))"#;
    // The imported global is 0 here.
    let mut run = run(module);
    run.call(names::INIT, &[]);
    assert_eq!(run.memory(names::MEMORY)[12], b'x');
}

#[test]
fn mutable_globals_are_exported_in_order() {
    let module = parse(
        r#"(module (memory 1)
            (global i32 (i32.const 1)) (global (mut i64) (i64.const 2))
            (global (mut f32) (f32.const 3)) (global f64 (f64.const 4))
            (global (mut v128) (v128.const i64x2 5 6)) (global (mut f64) (f64.const 7))
            (global (mut i32) (i32.const 8)))"#,
    );
    let instrumented = rewrite(
        &module,
        &Options {
            metering: true,
            ..persistent()
        },
    );
    assert_eq!(
        instrumented.report.globals,
        [
            ValType::I64,
            ValType::F32,
            ValType::V128,
            ValType::F64,
            ValType::I32
        ]
    );
    let mut run = Run::new(&engine(OptLevel::Speed), &instrumented.wasm).unwrap();
    assert_eq!(run.get(&names::global_export(0)), 2);
    assert_eq!(run.get(&names::global_export(4)), 8);
    assert!(run.global(&names::global_export(5)).is_none());
}

#[test]
fn a_mutable_reference_is_refused() {
    let module = parse(
        r#"(module (memory 1) (global (mut i32) (i32.const 0))
            (global (mut funcref) (ref.null func)))"#,
    );
    let error = instrument(&module, &persistent()).unwrap_err();
    assert!(
        matches!(error, InstrumentError::ReferenceGlobal { index: 1, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("global 1 is mutable and of type funcref"),
        "{error}"
    );
}

#[test]
fn the_memory_must_be_the_modules_own_and_only_one() {
    for (module, defined, imported) in [
        ("(module)", 0, 0),
        (r#"(module (import "a" "b" (memory 1)))"#, 0, 1),
        ("(module (memory 1) (memory 1))", 2, 0),
        (r#"(module (import "a" "b" (memory 1)) (memory 1))"#, 1, 1),
    ] {
        let error = instrument(&parse(module), &persistent()).unwrap_err();
        let InstrumentError::MemoryCount {
            defined: d,
            imported: i,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((d, i), (defined, imported));
    }
}

#[test]
fn the_start_function_waits_to_be_called() {
    let module = r#"(module (memory 1) (data (i32.const 0) "\05")
        (func $s (i32.store8 (i32.const 0) (i32.add (i32.const 1) (i32.load8_u (i32.const 0)))))
        (start $s))"#;
    let mut run = run(module);
    assert_eq!(run.memory(names::MEMORY)[0], 0);
    run.call(names::INIT, &[]);
    run.call(names::START, &[]);
    assert_eq!(run.memory(names::MEMORY)[0], 6);
}

#[test]
fn a_state_moves_to_another_instance() {
    let module = r#"(module (memory 1 4) (global $g (mut i32) (i32.const 0))
        (data (i32.const 4) "\0a")
        (func (export "step") (result i32)
            (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (i32.store8 (i32.const 4)
                (i32.add (i32.load8_u (i32.const 4)) (global.get $g)))
            (i32.load8_u (i32.const 4))))"#;
    let mut first = run(module);
    first.call(names::INIT, &[]);
    assert_eq!(
        first.call("step", &[]),
        Outcome::Results(vec!["i32 11".into()])
    );
    let mut second = run(module);
    let state = first.memory(names::MEMORY);
    let memory = second
        .instance
        .get_memory(&mut second.store, names::MEMORY)
        .unwrap();
    memory.write(&mut second.store, 0, &state).unwrap();
    let value = first.get(&names::global_export(0)) as i32;
    let global = second.global(&names::global_export(0)).unwrap();
    global.set(&mut second.store, Val::I32(value)).unwrap();
    assert_eq!(
        second.call("step", &[]),
        Outcome::Results(vec!["i32 13".into()])
    );
}

#[test]
fn an_instance_is_reusable_only_if_nothing_else_can_change() {
    let with = |body: &str| {
        let module = format!(
            r#"(module (memory 1) (table $t (export "t") 4 funcref) (elem $e func $f)
                (elem (i32.const 0) $f) (data $active (i32.const 0) "a") (data $passive "p")
                (func $f) (func (export "g") {body}))"#
        );
        rewrite(&parse(&module), &persistent())
            .report
            .reusable_instance
    };
    let copy = "(i32.const 0) (i32.const 0) (i32.const 0)";
    for fine in [
        "(drop (memory.grow (i32.const 1)))".to_string(),
        "(call_indirect (i32.const 0))".to_string(),
        "(drop (table.get $t (i32.const 0)))".to_string(),
        format!("(memory.init $passive {copy})"),
        format!("(memory.copy {copy})"),
        "(data.drop $active)".to_string(),
    ] {
        assert!(with(&fine), "{fine}");
    }
    for changing in [
        "(table.set $t (i32.const 0) (ref.null func))".to_string(),
        "(drop (table.grow $t (ref.null func) (i32.const 0)))".to_string(),
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 0))".to_string(),
        format!("(table.copy $t $t {copy})"),
        format!("(table.init $t $e {copy})"),
        "(elem.drop $e)".to_string(),
        "(data.drop $passive)".to_string(),
    ] {
        assert!(!with(&changing), "{changing}");
    }
    for module in [
        r#"(module (import "a" "t" (table 1 funcref)) (memory 1))"#,
        r#"(module (import "a" "g" (global (mut i32))) (memory 1))"#,
    ] {
        assert!(
            !rewrite(&parse(module), &persistent())
                .report
                .reusable_instance,
            "{module}"
        );
    }
}

#[test]
fn the_report_describes_the_memory() {
    let report = rewrite(&parse("(module (memory i64 2 9))"), &persistent()).report;
    let memory = report.memory.unwrap();
    assert_eq!(
        (memory.minimum, memory.maximum, memory.memory64),
        (2, Some(9), true)
    );
    let report = rewrite(&parse("(module (memory 3))"), &persistent()).report;
    let memory = report.memory.unwrap();
    assert_eq!(
        (memory.minimum, memory.maximum, memory.memory64),
        (3, None, false)
    );
}
