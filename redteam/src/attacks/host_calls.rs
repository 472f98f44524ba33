//! Calls of the embedder's functions that the embedder doesn't offer, or with
//! more than it takes.

use lazaret_wire::message::host_call::MAX_HOST_BYTES;
use lazaret_wire::message::{FromWorker, HostCall, HostReturn, ToWorker};

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The bounds of what is offered.
pub const STOPPED_BY: Guard = Guard::HostFunctions;

/// The attacks. `host_function NUMBER` calls that function with no argument.
pub const ATTACKS: &[Attack] = &[
    Attack::native("host_function", STOPPED_BY, Expected::Reply(""), |inside| {
        let number = inside.number() as u16;
        call(inside, number, Vec::new())
    }),
    Attack::native(
        "host_function_unknown",
        STOPPED_BY,
        Expected::Reply("there is no host function number 65535"),
        |inside| call(inside, u16::MAX, Vec::new()),
    ),
    Attack::native(
        "host_function_oversized",
        STOPPED_BY,
        Expected::Reply("host.note: the argument has 1048576 bytes"),
        |inside| call(inside, 0, vec![1; MAX_HOST_BYTES]),
    ),
    Attack::native(
        "host_function_over_the_wire_s_bound",
        Guard::Wire,
        Expected::Malformed,
        over_the_bound,
    ),
    Attack::native(
        "host_function_without_end",
        STOPPED_BY,
        Expected::Reply("a thousand"),
        without_end,
    ),
];

pub(super) fn call(inside: &mut Inside<'_>, function: u16, argument: Vec<u8>) -> String {
    inside.answer(&FromWorker::HostCall(HostCall { function, argument }));
    match inside.exchange.next() {
        ToWorker::HostReturn(HostReturn { result: Ok(bytes) }) => {
            String::from_utf8_lossy(&bytes).into_owned()
        }
        ToWorker::HostReturn(HostReturn { result: Err(text) }) => text,
        _ => "something else".into(),
    }
}

/// An argument one byte over what the wire carries.
fn over_the_bound(inside: &mut Inside<'_>) -> String {
    let length = MAX_HOST_BYTES as u32 + 1;
    let mut bytes = vec![3, 0, 0];
    bytes.extend(length.to_le_bytes());
    bytes.resize(bytes.len() + length as usize, 0);
    inside.answer_raw(&bytes);
    inside.wait_for_the_end()
}

fn without_end(inside: &mut Inside<'_>) -> String {
    for _ in 0..1000 {
        let _ = call(inside, 7, vec![0; 64]);
    }
    "a thousand".into()
}
