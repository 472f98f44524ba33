//! Saying nothing.

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The host's time limit.
pub const STOPPED_BY: Guard = Guard::Deadline;

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::native("sleep_for_ever", STOPPED_BY, Expected::Silence, |inside| {
        inside.wait_for_the_end()
    }),
    Attack::native("spin_for_ever", STOPPED_BY, Expected::Silence, spin),
    Attack::native(
        "say_that_the_host_is_awake",
        STOPPED_BY,
        Expected::Reply("awake"),
        awake,
    ),
];

fn spin(_: &mut Inside<'_>) -> String {
    loop {
        std::hint::spin_loop();
    }
}

/// Clears the flag by which the host says that it sleeps, so that nobody wakes
/// it: it wakes by itself.
fn awake(inside: &mut Inside<'_>) -> String {
    use std::sync::atomic::Ordering::SeqCst;

    use lazaret_wire::codec::Message;
    use lazaret_wire::layout::{ANSWER_BELL, HOST_SLEEPS};
    use lazaret_wire::message::FromWorker;

    let shared = inside.shared();
    // Until the host is really asleep.
    while shared.u32(HOST_SLEEPS).load(SeqCst) == 0 {
        std::hint::spin_loop();
    }
    shared.u32(HOST_SLEEPS).store(0, SeqCst);
    let mut bytes = Vec::new();
    let done = FromWorker::Done(inside.honest("awake"));
    if done.to_bytes(&mut bytes).is_err() || shared.put_answer(&bytes).is_err() {
        return "the answer does not fit".into();
    }
    // Rung, and nobody woken.
    let bell = shared.u32(ANSWER_BELL);
    bell.store(bell.load(SeqCst).wrapping_add(1), SeqCst);
    inside.wait_for_the_end()
}
