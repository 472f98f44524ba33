//! What a worker may claim at the end of a call: any answer that decodes, held
//! against any request. What passes must be within every bound, and stay so in
//! numbers of another width; a truth must pass.
#![no_main]

use arbitrary::Unstructured;
use lazaret_wire::codec::Message;
use lazaret_wire::message::possible::WASM_PAGE;
use lazaret_wire::message::{
    Bounds, Call, Done, Effects, Entry, FromWorker, Global, Outcome, Sizes,
};
use libfuzzer_sys::fuzz_target;

const ENTRIES: [Entry; 6] = [
    Entry::Install,
    Entry::PreUpgrade,
    Entry::PostUpgrade,
    Entry::PostUpgradeKeepingHeap,
    Entry::Update,
    Entry::Query,
];

/// A number near a bound as often as anywhere.
fn number(u: &mut Unstructured<'_>, near: &[u64]) -> arbitrary::Result<u64> {
    if near.is_empty() || u.arbitrary()? {
        return u.arbitrary();
    }
    let near = *u.choose(near)?;
    let by = u64::from(u.arbitrary::<u8>()?);
    Ok(match u.int_in_range(0..=3)? {
        0 => near,
        1 => near.saturating_add(by),
        2 => near.saturating_sub(by),
        _ => near.saturating_add(by * WASM_PAGE),
    })
}

fn globals(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Global>> {
    let count = u.int_in_range(0..=5)?;
    (0..count)
        .map(|_| {
            Ok(match u.int_in_range(0..=4)? {
                0 => Global::I32(u.arbitrary()?),
                1 => Global::I64(u.arbitrary()?),
                2 => Global::F32(u.arbitrary()?),
                3 => Global::F64(u.arbitrary()?),
                _ => Global::V128(u.arbitrary()?),
            })
        })
        .collect()
}

fn run(bytes: &[u8]) -> arbitrary::Result<()> {
    let mut u = Unstructured::new(bytes);
    let call = Call {
        entry: *u.choose(&ENTRIES)?,
        fuel: u.arbitrary()?,
        cycles: u.arbitrary()?,
        sizes: Sizes {
            heap: u.arbitrary::<u64>()? / WASM_PAGE * WASM_PAGE,
            stable: u.arbitrary::<u64>()? / WASM_PAGE * WASM_PAGE,
        },
        ..Call::default()
    };
    let types = globals(&mut u)?;
    let bounds = Bounds {
        spent: u.arbitrary()?,
        sizes: Sizes {
            heap: number(&mut u, &[call.sizes.heap])?,
            stable: number(&mut u, &[call.sizes.stable])?,
        },
        granted: match u.arbitrary()? {
            true => Some(number(&mut u, &[call.sizes.heap, call.sizes.stable])?),
            false => None,
        },
        globals: &types,
    };
    let near = [
        call.sizes.heap,
        call.sizes.stable,
        bounds.sizes.heap,
        bounds.sizes.stable,
        bounds.granted.unwrap_or(u64::MAX),
    ];
    let done = match u.arbitrary()? {
        // As it comes off the wire.
        true => match FromWorker::from_bytes(u.take_rest()) {
            Ok(FromWorker::Done(done)) => done,
            _ => return Ok(()),
        },
        false => Done {
            outcome: match u.int_in_range(0..=4)? {
                0 => Outcome::Reply(u.arbitrary()?),
                1 => Outcome::Reject(u.arbitrary()?),
                2 => Outcome::NoReply,
                3 => Outcome::NoMethod,
                _ => Outcome::Aborted(u.arbitrary()?),
            },
            fuel_left: number(&mut u, &[call.fuel, call.fuel.saturating_sub(bounds.spent)])?,
            sizes: Sizes {
                heap: number(&mut u, &near)?,
                stable: number(&mut u, &near)?,
            },
            globals: match u.arbitrary()? {
                true => types.clone(),
                false => globals(&mut u)?,
            },
            effects: Effects {
                certified_data: u.arbitrary()?,
                global_timer: u.arbitrary()?,
                cycles_burned: match u.arbitrary()? {
                    true => call.cycles.saturating_add(u.arbitrary::<i8>()?.unsigned_abs().into()),
                    false => u.arbitrary()?,
                },
            },
        },
    };
    let wide = |number: u64| i128::from(number);
    if done.check(&call, &bounds).is_ok() {
        assert!(wide(done.fuel_left) <= (wide(call.fuel) - wide(bounds.spent)).max(0));
        for (now, before, limit) in [
            (done.sizes.heap, call.sizes.heap, bounds.sizes.heap),
            (done.sizes.stable, call.sizes.stable, bounds.sizes.stable),
        ] {
            assert!(now >= before && now % 65_536 == 0);
            assert!(now == before || now <= limit);
        }
        if let Some(granted) = bounds.granted {
            assert!(wide(done.sizes.heap) + wide(done.sizes.stable) <= wide(granted));
        }
        assert!(done.effects.cycles_burned <= call.cycles);
        assert_eq!(done.globals.len(), types.len());
        // What it would be kept as can be sent to the next worker.
        let next = Call {
            sizes: done.sizes,
            globals: done.globals.clone(),
            ..Call::default()
        };
        let mut again = Vec::new();
        next.to_bytes(&mut again).expect("globals of the module's number");
        if done.effects != Effects::default() {
            assert!(call.entry != Entry::Query);
            assert!(matches!(
                done.outcome,
                Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply
            ));
        }
    }
    // An honest worker that did nothing is always believed, where the node
    // grants what the tenant has.
    let honest = Done {
        outcome: Outcome::NoMethod,
        fuel_left: call.fuel.saturating_sub(bounds.spent),
        sizes: call.sizes,
        globals: types.clone(),
        effects: Effects::default(),
    };
    let has = wide(call.sizes.heap) + wide(call.sizes.stable);
    if bounds.granted.is_none_or(|granted| wide(granted) >= has) {
        honest.check(&call, &bounds).expect("the truth");
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(bytes);
});
