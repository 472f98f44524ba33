//! Cards: every page that was written has its card set, and few others.

use crate::run::{OPT_LEVELS, Outcome, Run, engine, rewrite};
use crate::semantics::corpus;
use lazaret_instrument::{
    CARD_BYTES_LOG2, CardOptions, InstrumentError, Options, instrument, names,
};
use wasmtime::{OptLevel, Trap, Val};

fn carded() -> Options {
    Options {
        cards: Some(CardOptions::default()),
        ..Options::default()
    }
}

fn set_cards(run: &mut Run) -> Vec<usize> {
    let cards = run.memory(names::CARDS);
    cards
        .iter()
        .enumerate()
        .filter(|(_, card)| **card != 0)
        .map(|(page, _)| page)
        .collect()
}

#[test]
fn every_page_that_changed_has_its_card_set() {
    let mut changed = 0;
    for opt_level in OPT_LEVELS {
        let engine = engine(opt_level);
        for case in corpus() {
            let wasm = rewrite(&case.wasm, &carded());
            if wasm.report.memory.is_none() {
                continue;
            }
            let mut run = Run::new(&engine, &wasm.wasm).unwrap();
            let before = run.memory(names::MEMORY);
            for (name, values) in &case.calls {
                run.call(name, values);
            }
            let after = run.memory(names::MEMORY);
            let cards = run.memory(names::CARDS);
            let page_bytes = 1 << CARD_BYTES_LOG2;
            for (page, bytes) in after.chunks(page_bytes).enumerate() {
                let old = before.get(page * page_bytes..(page + 1) * page_bytes);
                if old.map_or(bytes.iter().any(|byte| *byte != 0), |old| old != bytes) {
                    changed += 1;
                    assert_eq!(cards[page], 1, "{}: page {page}", case.name);
                }
            }
        }
    }
    assert!(changed > 20, "the corpus hardly writes: {changed} pages");
}

/// Each store instruction with its size and a value.
const STORES: [(&str, i32, &str); 14] = [
    ("i32.store8", 1, "(i32.const 1)"),
    ("i32.store16", 2, "(i32.const 1)"),
    ("i32.store", 4, "(i32.const 1)"),
    ("i64.store8", 1, "(i64.const 1)"),
    ("i64.store16", 2, "(i64.const 1)"),
    ("i64.store32", 4, "(i64.const 1)"),
    ("i64.store", 8, "(i64.const 1)"),
    ("f32.store", 4, "(f32.const 1)"),
    ("f64.store", 8, "(f64.const 1)"),
    ("v128.store", 16, "(v128.const i64x2 1 1)"),
    ("v128.store8_lane", 1, "(v128.const i64x2 1 1)"),
    ("v128.store16_lane", 2, "(v128.const i64x2 1 1)"),
    ("v128.store32_lane", 4, "(v128.const i64x2 1 1)"),
    ("v128.store64_lane", 8, "(v128.const i64x2 1 1)"),
];

#[test]
fn a_store_sets_the_cards_of_its_first_and_last_byte_and_no_other() {
    let engine = engine(OptLevel::Speed);
    for (memory, address) in [("", "i32"), ("i64", "i64")] {
        for (store, size, value) in STORES {
            let lane = if store.ends_with("lane") { "0" } else { "" };
            let module = format!(
                r#"(module (memory {memory} 1) (func (export "f") (param {address})
                    ({store} offset=100 {lane} (local.get 0) {value})))"#
            );
            let wasm = rewrite(&wat::parse_str(module).unwrap(), &carded()).wasm;
            let cases = [
                (4096 - size, vec![0]),
                (4096 - size + 1, if size > 1 { vec![0, 1] } else { vec![1] }),
                (4095, if size > 1 { vec![0, 1] } else { vec![0] }),
                (4096, vec![1]),
                (65536 - size, vec![15]),
            ];
            for (first, expected) in cases {
                let mut run = Run::new(&engine, &wasm).unwrap();
                let at = first - 100;
                let at = if memory.is_empty() {
                    Val::I32(at)
                } else {
                    Val::I64(at.into())
                };
                assert_eq!(run.call("f", &[at]), Outcome::Results(vec![]));
                assert_eq!(set_cards(&mut run), expected, "{store} at {first}");
            }
        }
    }
}

#[test]
fn bulk_instructions_set_the_cards_of_their_range_and_no_other() {
    let module = r#"(module (memory 4) (memory $other 4) (data $d "0123456789")
        (func (export "fill") (param i32 i32)
            (memory.fill (local.get 0) (i32.const 1) (local.get 1)))
        (func (export "copy") (param i32 i32)
            (memory.copy (local.get 0) (i32.const 9) (local.get 1)))
        (func (export "init") (param i32 i32)
            (memory.init $d (local.get 0) (i32.const 0) (local.get 1)))
        (func (export "elsewhere") (param i32 i32)
            (memory.fill $other (local.get 0) (i32.const 1) (local.get 1))
            (i32.store $other (local.get 0) (i32.const 1))))"#;
    let wasm = rewrite(&wat::parse_str(module).unwrap(), &carded()).wasm;
    for (name, at, length, expected) in [
        ("fill", 0, 0, vec![]),
        ("fill", 4096, 4096, vec![1]),
        ("fill", 4095, 4098, vec![0, 1, 2]),
        ("fill", 0, 65536 * 4, (0..64).collect()),
        ("copy", 8191, 2, vec![1, 2]),
        ("copy", 8191, 0, vec![]),
        ("init", 4090, 6, vec![0]),
        ("init", 4090, 7, vec![0, 1]),
        ("elsewhere", 4095, 2, vec![]),
    ] {
        let mut run = Run::new(&engine(OptLevel::Speed), &wasm).unwrap();
        let outcome = run.call(name, &[Val::I32(at), Val::I32(length)]);
        assert_eq!(outcome, Outcome::Results(vec![]), "{name}");
        assert_eq!(set_cards(&mut run), expected, "{name} {at} {length}");
    }
}

#[test]
fn stores_out_of_bounds_still_trap_as_such() {
    for (memory, address) in [("", "i32"), ("i64", "i64")] {
        let module = format!(
            r#"(module (memory {memory} 1)
                (func (export "store") (param {address})
                    (i64.store offset=4294967295 (local.get 0) (i64.const 1)))
                (func (export "fill") (param {address})
                    (memory.fill (local.get 0) (i32.const 1) (local.get 0))))"#
        );
        let wasm = rewrite(&wat::parse_str(module).unwrap(), &carded()).wasm;
        for opt_level in OPT_LEVELS {
            let mut run = Run::new(&engine(opt_level), &wasm).unwrap();
            for at in [-1_i64, i64::MIN, i64::MAX, 1 << 34, 65_529, 1 << 31] {
                let at = if memory.is_empty() {
                    Val::I32(at as i32)
                } else {
                    Val::I64(at)
                };
                let expected = Outcome::Trap(Trap::MemoryOutOfBounds);
                assert_eq!(run.call("store", &[at]), expected, "{at:?}");
                if !matches!(at, Val::I32(0)) {
                    assert_eq!(run.call("fill", &[at]), expected, "{at:?}");
                }
            }
        }
    }
}

#[test]
fn a_64_bit_memory_can_not_outgrow_its_cards() {
    let options = Options {
        cards: Some(CardOptions {
            memory_limit: 3 << 16,
        }),
        ..Options::default()
    };
    let module = r#"(module (memory i64 1) (func (export "grow") (param i64) (result i64)
        (memory.grow (local.get 0))))"#;
    let instrumented = rewrite(&wat::parse_str(module).unwrap(), &options);
    assert_eq!(instrumented.report.memory.unwrap().maximum, Some(3));
    let mut run = Run::new(&engine(OptLevel::Speed), &instrumented.wasm).unwrap();
    assert_eq!(
        run.call("grow", &[Val::I64(3)]),
        Outcome::Results(vec!["i64 -1".into()])
    );
    assert_eq!(
        run.call("grow", &[Val::I64(2)]),
        Outcome::Results(vec!["i64 1".into()])
    );
    let module = wat::parse_str("(module (memory i64 4))").unwrap();
    let error = instrument(&module, &options).unwrap_err();
    assert!(
        matches!(
            error,
            InstrumentError::CardLimit {
                minimum: 4,
                limit: 3
            }
        ),
        "{error}"
    );
}

#[test]
fn there_must_be_a_memory_to_track() {
    for module in ["(module)", r#"(module (import "a" "b" (memory 1)))"#] {
        let error = instrument(&wat::parse_str(module).unwrap(), &carded()).unwrap_err();
        assert!(
            matches!(error, InstrumentError::NoMemoryToTrack { .. }),
            "{error}"
        );
    }
}
