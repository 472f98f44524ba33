//! Ends of a call that decode well and can't be true: `impossible NUMBER`.

use lazaret_wire::message::{Call, Done, FromWorker, Global, Outcome};

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The host's check against what is possible.
pub const STOPPED_BY: Guard = Guard::Possible;

/// The attacks.
pub const ATTACKS: &[Attack] = &[Attack::native(
    "impossible",
    STOPPED_BY,
    Expected::Malformed,
    impossible,
)];

/// A change that makes the truth impossible.
type Lie = fn(&mut Done, &Call);

/// The lies, in the order of their numbers.
pub const LIES: &[(&str, Lie)] = &[
    ("more fuel than was given", |done, call| {
        done.fuel_left = call.fuel + 1
    }),
    ("all fuel there is", |done, _| done.fuel_left = u64::MAX),
    ("a heap over its limit", |done, _| done.sizes.heap = 1 << 40),
    ("a heap as large as numbers go", |done, _| {
        done.sizes.heap = !0xffff
    }),
    ("a page of heap that was not granted", |done, _| {
        done.sizes.heap += 65_536
    }),
    ("a page of stable memory that was not granted", |done, _| {
        done.sizes.stable += 65_536
    }),
    ("half a page of heap", |done, _| done.sizes.heap += 4096),
    ("a heap that shrank", |done, _| done.sizes.heap = 0),
    ("a stable memory over its limit", |done, _| {
        done.sizes.stable = 1 << 40
    }),
    ("half a page of stable memory", |done, _| {
        done.sizes.stable += 1
    }),
    ("no globals", |done, _| done.globals.clear()),
    ("a global too many", |done, _| {
        done.globals.push(Global::I32(0))
    }),
    ("a global of another type", |done, _| {
        done.globals
            .iter_mut()
            .for_each(|global| *global = Global::V128(1))
    }),
    ("more cycles burned than there are", |done, call| {
        done.effects.cycles_burned = call.cycles + 1
    }),
    ("all cycles there are", |done, _| {
        done.effects.cycles_burned = u128::MAX
    }),
    ("effects of a call that failed", |done, _| {
        done.outcome = Outcome::NoMethod;
        done.effects.certified_data = Some(b"forged".to_vec());
    }),
];

fn impossible(inside: &mut Inside<'_>) -> String {
    let (Some((_, lie)), Some((call, _))) = (LIES.get(inside.number() as usize), inside.tenant)
    else {
        return "no such lie".into();
    };
    let mut done = inside.honest("a lie");
    lie(&mut done, call);
    inside.answer(&FromWorker::Done(done));
    inside.wait_for_the_end()
}
