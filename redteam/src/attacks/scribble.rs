//! Random bytes over all shared memory, while the host reads: `scribble SEED`.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use lazaret_wire::bell;
use lazaret_wire::codec::Message;
use lazaret_wire::layout::{
    ANSWER_BELL, ANSWER_LEN, LAST_WORDS, PAGE, REQUEST, REQUEST_BELL, SIZE,
};
use lazaret_wire::message::FromWorker;

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The wire.
pub const STOPPED_BY: Guard = Guard::Wire;

/// The attacks. `scribble` may end in a reply as well: it tries to be believed.
pub const ATTACKS: &[Attack] = &[
    Attack::native("scribble", STOPPED_BY, Expected::Malformed, scribble),
    Attack::native(
        "scribble_everything",
        STOPPED_BY,
        Expected::Malformed,
        everything,
    ),
    Attack::native(
        "past_the_end",
        Guard::Ending,
        Expected::Aborted("canary page touched"),
        past_the_end,
    ),
];

/// Runs past an end of the shared memory.
fn past_the_end(inside: &mut Inside<'_>) -> String {
    let at = match inside.argument {
        "below" => inside.shared().address() - 8,
        _ => inside.shared().address() + SIZE,
    };
    // SAFETY: none is wanted: nothing is there.
    format!("read {}", unsafe {
        std::ptr::read_volatile(at as *const u8)
    })
}

/// xorshift64* (Marsaglia, "Xorshift RNGs"; Vigna's multiplier).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Writes random words to a window of the shared file.
fn window(inside: &Inside<'_>, random: &mut Random, from: usize, to: usize) {
    let words = (to - from) / 8;
    let length = (random.next() as usize % 4096).min(words);
    let start = from / 8 + random.next() as usize % (words - length + 1);
    for word in start..start + length {
        inside.shared().u64(word * 8).store(random.next(), Relaxed);
    }
}

/// Scribbles, gives a good answer so that the host goes on reading, and
/// scribbles on while it does, call after call. One call in sixteen spares
/// nothing, the bells included.
fn scribble(inside: &mut Inside<'_>) -> String {
    let mut random = Random(inside.number().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let shared = inside.shared();
    let mut bytes = Vec::new();
    let done = FromWorker::Done(inside.honest("scribbled"));
    if done.to_bytes(&mut bytes).is_err() {
        return "the answer does not fit".into();
    }
    loop {
        if random.next() >> 60 == 0 {
            return everything(inside);
        }
        for _ in 0..4 {
            window(inside, &mut random, LAST_WORDS, SIZE);
        }
        // One answer in four is overwritten while it is read.
        let spared = if random.next() >> 62 == 0 {
            SIZE
        } else {
            REQUEST
        };
        // Known before the host may ask again.
        let request = shared.u32(REQUEST_BELL).load(SeqCst);
        inside.answer_raw(&bytes);
        while shared.u32(REQUEST_BELL).load(SeqCst) == request {
            window(inside, &mut random, LAST_WORDS, spared);
            if spared == SIZE {
                shared.u32(ANSWER_LEN).store(random.next() as u32, Relaxed);
            }
        }
        // It has. Whatever the question, the answer is the same.
    }
}

/// Spares nothing, for ever.
fn everything(inside: &mut Inside<'_>) -> String {
    let mut random = Random(inside.number() | 1);
    loop {
        for word in 0..PAGE / 8 {
            inside.shared().u64(word * 8).store(random.next(), Relaxed);
        }
        window(inside, &mut random, PAGE, SIZE);
        bell::wake(inside.shared().u32(ANSWER_BELL));
    }
}
