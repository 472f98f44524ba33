//! What is refused, and how it is said.

use lazaret_instrument::{InstrumentError, Limits, Options, instrument};

fn refuse(wasm: &[u8], options: &Options) -> InstrumentError {
    instrument(wasm, options)
        .map(|instrumented| instrumented.report)
        .unwrap_err()
}

fn refuse_text(module: &str) -> InstrumentError {
    refuse(&wat::parse_str(module).unwrap(), &Options::default())
}

#[test]
fn not_a_module() {
    let error = refuse(b"#!/bin/sh\n", &Options::default());
    assert_eq!(
        error.to_string(),
        "not a WebAssembly module: it starts with [23, 21, 2f, 62] instead of [00, 61, 73, 6d]"
    );
    assert!(matches!(
        refuse(b"", &Options::default()),
        InstrumentError::NotWasm { .. }
    ));
}

#[test]
fn a_component() {
    let error = refuse(b"\0asm\x0d\0\x01\0", &Options::default());
    assert!(matches!(error, InstrumentError::Component), "{error}");
}

#[test]
fn every_truncation_of_a_module() {
    let module = wat::parse_str(
        r#"(module (memory 1) (data (i32.const 0) "abc")
            (func (export "f") (param i32) (result i32) (local i64) (local.get 0)))"#,
    )
    .unwrap();
    let mut refused = 0;
    for length in 0..module.len() {
        // A cut between two sections may leave a smaller module.
        if instrument(&module[..length], &Options::default()).is_err() {
            refused += 1;
        }
    }
    assert!(
        refused > module.len() * 9 / 10,
        "{refused} of {}",
        module.len()
    );
}

#[test]
fn features_that_are_not_supported() {
    for (what, module) in [
        ("threads", "(module (memory 1 1 shared))"),
        (
            "atomics",
            "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
        ),
        (
            "relaxed SIMD",
            "(module (func (param v128) (drop
                (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
        ),
        ("gc", "(module (type (struct (field i32))))"),
        ("exceptions", "(module (tag))"),
        (
            "function references",
            "(module (type $t (func)) (func (param (ref $t))))",
        ),
        ("custom page sizes", "(module (memory 1 (pagesize 1)))"),
        (
            "wide arithmetic",
            "(module (func (param i64) (result i64 i64)
            (i64.mul_wide_u (local.get 0) (local.get 0))))",
        ),
    ] {
        let error = refuse_text(module);
        assert!(
            matches!(error, InstrumentError::Invalid { .. }),
            "{what}: {error}"
        );
    }
}

#[test]
fn an_invalid_function() {
    let error = refuse_text("(module (func (result i32)))");
    assert!(error.to_string().contains("at byte 0x"), "{error}");
}

#[test]
fn reserved_names() {
    for (module, kind, name) in [
        (
            r#"(module (func (export "lazaret:fuel")))"#,
            "export",
            "lazaret:fuel",
        ),
        (
            r#"(module (import "lazaret:x" "f" (func)))"#,
            "import",
            "lazaret:x",
        ),
        (
            r#"(module (import "env" "lazaret:" (func)))"#,
            "import",
            "lazaret:",
        ),
    ] {
        let error = refuse_text(module);
        let InstrumentError::ReservedName { kind: k, name: n } = error else {
            panic!("{error}")
        };
        assert_eq!((k, n.as_str()), (kind, name));
    }
    let fine = wat::parse_str(r#"(module (func (export "lazaret")))"#).unwrap();
    assert!(instrument(&fine, &Options::default()).is_ok());
}

#[test]
fn each_limit_names_the_value() {
    let few = Limits {
        module_bytes: 200,
        functions: 2,
        types: 3,
        globals: 1,
        exports: 1,
        imports: 1,
        locals: 10,
        nesting: 5,
    };
    let long = format!("(module (func {}))", "nop ".repeat(300));
    let deep = format!(
        "(module (func {} {}))",
        "block ".repeat(6),
        "end ".repeat(6)
    );
    let many_types = "(module (type (func)) (type (func)) (type (func)) (type (func)))";
    for (module, value, what) in [
        (long.as_str(), None, "bytes"),
        ("(module (func) (func) (func))", Some(3), "functions"),
        (many_types, Some(4), "types"),
        (
            "(module (global i32 (i32.const 0)) (global i32 (i32.const 0)))",
            Some(2),
            "globals",
        ),
        (
            r#"(module (func (export "a") (export "b")))"#,
            Some(2),
            "exports",
        ),
        (
            r#"(module (import "a" "b" (func)) (import "a" "c" (func)))"#,
            Some(2),
            "imports",
        ),
        (
            "(module (func (param i32 i32 i32) (local i64 i64 i64 i64 i64 i64 i64 i64)))",
            Some(11),
            "locals in a function",
        ),
        (deep.as_str(), Some(6), "nested blocks"),
    ] {
        let options = Options {
            limits: few.clone(),
            ..Options::default()
        };
        let error = refuse(&wat::parse_str(module).unwrap(), &options);
        let InstrumentError::LimitExceeded {
            what: found,
            value: size,
            ..
        } = error
        else {
            panic!("{what}: {error}")
        };
        assert_eq!(found, what);
        if let Some(value) = value {
            assert_eq!(size, value, "{what}");
        }
    }
}

#[test]
fn a_function_that_outgrows_what_engines_accept() {
    // Each `br_if` starts a block of its own, which is charged.
    let module = format!(
        "(module (func (param i32) {}))",
        "local.get 0 br_if 0 ".repeat(900_000)
    );
    let module = wat::parse_str(module).unwrap();
    assert!(instrument(&module, &Options::default()).is_ok());
    let error = refuse(
        &module,
        &Options {
            metering: true,
            ..Options::default()
        },
    );
    let InstrumentError::FunctionTooLarge {
        function: 0,
        size,
        limit,
    } = error
    else {
        panic!("{error}")
    };
    assert!(size > limit);
}

#[test]
fn deep_nesting_is_no_recursion() {
    let depth = 200_000;
    let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    let body: Vec<u8> = std::iter::once(0)
        .chain([0x02, 0x40].repeat(depth))
        .chain([0x0b].repeat(depth + 1))
        .collect();
    let mut section = vec![1];
    leb(body.len(), &mut section);
    section.extend(body);
    wasm.push(10);
    leb(section.len(), &mut wasm);
    wasm.extend(section);
    let mut limits = Limits::tenant();
    limits.nesting = 1_000_000;
    let options = Options {
        metering: true,
        recursion_limit: Some(10),
        limits,
        ..Options::default()
    };
    assert!(instrument(&wasm, &options).is_ok());
}

fn leb(mut value: usize, bytes: &mut Vec<u8>) {
    while value > 0x7f {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
}
