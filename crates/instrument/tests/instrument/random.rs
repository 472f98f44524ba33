//! Random modules: the rewritten one is valid, ends, and computes the same.

use crate::run::{Outcome, Run, engine};
use arbitrary::Unstructured;
use lazaret_instrument::{CardOptions, FEATURES, InstrumentError, Options, instrument, names};
use proptest::prelude::*;
use wasm_smith::{Config, Module};
use wasmparser::Validator;
use wasmtime::{OptLevel, Trap};

fn config() -> Config {
    Config {
        allow_start_export: true,
        bulk_memory_enabled: true,
        canonicalize_nans: false,
        exceptions_enabled: false,
        export_everything: true,
        gc_enabled: false,
        max_imports: 3,
        max_instructions: 300,
        max_memories: 2,
        max_memory32_bytes: 4 << 16,
        max_memory64_bytes: 4 << 16,
        max_table_elements: 100,
        max_tables: 2,
        memory64_enabled: true,
        memory_max_size_required: true,
        table_max_size_required: true,
        min_funcs: 1,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: false,
        simd_enabled: true,
        tail_call_enabled: true,
        threads_enabled: false,
        ..Config::default()
    }
}

fn options(bits: u8) -> Options {
    Options {
        metering: bits & 1 != 0,
        recursion_limit: (bits & 2 != 0).then_some(200),
        persistent: bits & 4 != 0,
        cards: (bits & 8 != 0).then(CardOptions::default),
        ..Options::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn rewritten_random_modules_are_valid(
        seed in proptest::collection::vec(any::<u8>(), 100..6_000),
        bits in 0_u8..16,
    ) {
        let Ok(module) = Module::new(config(), &mut Unstructured::new(&seed)) else {
            return Ok(());
        };
        match instrument(&module.to_bytes(), &options(bits)) {
            Ok(instrumented) => {
                let mut validator = Validator::new_with_features(FEATURES);
                validator.validate_all(&instrumented.wasm).map_err(|error| {
                    TestCaseError::fail(format!("{error}"))
                })?;
            }
            Err(
                InstrumentError::MemoryCount { .. }
                | InstrumentError::ReferenceGlobal { .. }
                | InstrumentError::NoMemoryToTrack { .. },
            ) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{error}"))),
        }
    }

    #[test]
    fn rewritten_random_modules_end_and_compute_the_same(
        seed in proptest::collection::vec(any::<u8>(), 100..6_000),
        cards in any::<bool>(),
    ) {
        let Ok(module) = Module::new(config(), &mut Unstructured::new(&seed)) else {
            return Ok(());
        };
        let metered = Options {
            metering: true,
            recursion_limit: Some(200),
            cards: cards.then(CardOptions::default),
            ..Options::default()
        };
        let Ok(instrumented) = instrument(&module.to_bytes(), &metered) else { return Ok(()) };
        let engine = engine(OptLevel::Speed);
        // Instantiation may trap: out of bounds, or an import that has no default.
        let Ok(mut run) = Run::new(&engine, &instrumented.wasm) else { return Ok(()) };
        run.fuel = 100_000;
        let start = instrumented.report.has_start.then(|| run.call(names::START, &[]));
        if start.is_some_and(|outcome| !matches!(outcome, Outcome::Results(_))) {
            return Ok(());
        }
        // As each call ended by itself, the original ends, too.
        let original = Run::new(&engine, &module.to_bytes());
        let Ok(mut original) = original else {
            return Err(TestCaseError::fail("only the rewritten module instantiates"));
        };
        for (name, values) in run.functions() {
            let outcome = run.call(&name, &values);
            // A call that was stopped may have been charged for a bulk instruction that it couldn't
            // pay and didn't run. One that ended has only gone forward since the last test.
            if let Outcome::Results(_) = outcome {
                prop_assert!(run.used() < 1_000_000, "overran to {}", run.used());
            }
            if let Outcome::Stopped(_) = outcome {
                break;
            }
            let expected = original.call(&name, &values);
            prop_assert!(expected != Outcome::Trap(Trap::StackOverflow));
            prop_assert_eq!(outcome, expected);
            prop_assert_eq!(run.globals(), original.globals());
        }
    }
}
