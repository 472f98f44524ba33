//! Answers that are none: bells, lengths, bytes, and answers to other
//! questions. Where there are several, the argument is a number.

use std::sync::atomic::Ordering::SeqCst;

use lazaret_wire::bell;
use lazaret_wire::codec::Message;
use lazaret_wire::layout::{ANSWER_BELL, ANSWER_LEN, ANSWER_SIZE};
use lazaret_wire::message::{Artefact, Compiled, Exited, Failed, FromWorker, ProgramEnd, Ready};

use crate::attack::{Attack, Expected, Guard};
use crate::inside::Inside;

/// The wire.
pub const STOPPED_BY: Guard = Guard::Wire;

/// How many numbers `lengths` knows.
pub const LENGTHS: u64 = 3;
/// How many `bells` knows.
pub const BELLS: u64 = 6;
/// How many `bytes` knows.
pub const BYTES: u64 = 270;
/// How many `other_answers` knows.
pub const OTHERS: u64 = 4;

/// The attacks.
pub const ATTACKS: &[Attack] = &[
    Attack::native("answer_twice", STOPPED_BY, Expected::Malformed, twice),
    Attack::native("answer_early", STOPPED_BY, Expected::Reply("early"), early),
    Attack::native("wild_bell", STOPPED_BY, Expected::Malformed, bells),
    Attack::native("wild_length", STOPPED_BY, Expected::Malformed, lengths),
    Attack::native("undecodable", STOPPED_BY, Expected::Malformed, bytes),
    Attack::native(
        "another_question",
        STOPPED_BY,
        Expected::Malformed,
        other_answers,
    ),
];

fn encoded(message: &FromWorker) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.to_bytes(&mut bytes).unwrap_or_default();
    bytes
}

fn put(inside: &Inside<'_>, bytes: &[u8]) {
    // A length over the area is another attack.
    let _ = inside.shared().put_answer(bytes);
}

/// Two answers at once: the bell is two ahead.
fn twice(inside: &mut Inside<'_>) -> String {
    put(inside, &encoded(&FromWorker::Done(inside.honest("twice"))));
    inside.ring(2);
    inside.wait_for_the_end()
}

/// Answers, and answers the next call before it comes: the host has taken the
/// first when it sends another request, which this one sees by its bell.
fn early(inside: &mut Inside<'_>) -> String {
    inside.answer(&FromWorker::Done(inside.honest("early")));
    let _ = inside.exchange.next();
    // The second request is under way; the loop that called answers it once
    // more, one number too far.
    inside.answer(&FromWorker::Done(inside.honest("early")));
    "early".into()
}

fn bells(inside: &mut Inside<'_>) -> String {
    put(inside, &encoded(&FromWorker::Done(inside.honest("wild"))));
    let word = inside.shared().u32(ANSWER_BELL);
    let old = word.load(SeqCst);
    let wild = [
        old.wrapping_sub(1),
        old.wrapping_add(2),
        !old,
        old ^ 0x8000_0000,
        u32::MAX - old,
        old.wrapping_add(0x1_0000),
    ];
    word.store(wild[inside.number() as usize % wild.len()], SeqCst);
    bell::wake(word);
    inside.wait_for_the_end()
}

fn lengths(inside: &mut Inside<'_>) -> String {
    let wild = [ANSWER_SIZE as u32 + 1, 1 << 31, u32::MAX];
    inside
        .shared()
        .u32(ANSWER_LEN)
        .store(wild[inside.number() as usize % wild.len()], SeqCst);
    inside.ring(1);
    inside.wait_for_the_end()
}

/// Numbers below 256 are a first byte; then truncated, padded and empty.
fn bytes(inside: &mut Inside<'_>) -> String {
    let good = encoded(&FromWorker::Done(inside.honest("good")));
    let bytes = match inside.number() {
        // 2 begins a good one, so it gets a bad second byte.
        2 => vec![2, 0xff],
        first @ 0..256 => [&[first as u8][..], &[0xa5; 100]].concat(),
        256 => Vec::new(),
        257 => [&good[..], &[0]].concat(),
        258 => vec![0xff; ANSWER_SIZE],
        // A reply whose length says four gigabytes.
        259 => [&[2, 0][..], &u32::MAX.to_le_bytes(), &[0; 32]].concat(),
        cut => good[..good.len() - (cut - 259) as usize].to_vec(),
    };
    inside.answer_raw(&bytes);
    inside.wait_for_the_end()
}

fn other_answers(inside: &mut Inside<'_>) -> String {
    let message = match inside.number() {
        0 => FromWorker::Ready(Ready {
            heap_at: 0,
            cards_at: [0; 2],
            stable_at: 0,
            missing: Vec::new(),
        }),
        1 => FromWorker::Failed(Failed {
            layer: None,
            message: "no".into(),
        }),
        2 => FromWorker::Exited(Exited {
            end: ProgramEnd::Exit(0),
            fuel_left: None,
            memory_limit_hit: false,
            peak_memory: 0,
            left: None,
        }),
        _ => FromWorker::Compiled(Compiled {
            result: Ok(Artefact {
                length: 1,
                globals: Vec::new(),
                reusable: true,
            }),
        }),
    };
    inside.answer(&message);
    inside.wait_for_the_end()
}
