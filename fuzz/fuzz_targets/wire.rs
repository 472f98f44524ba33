//! What a worker may put into shared memory: the decoder of answers, the log
//! area and the last words. What is accepted must have exactly one encoding.
#![no_main]

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use lazaret_wire::codec::Message;
use lazaret_wire::message::{FromWorker, ToWorker};
use lazaret_wire::{Shared, layout};
use libfuzzer_sys::fuzz_target;

fn canonical<M: Message>(bytes: &[u8]) {
    if let Ok(message) = M::from_bytes(bytes) {
        let mut again = Vec::new();
        message.to_bytes(&mut again).expect("what was decoded can be encoded");
        assert_eq!(again, bytes);
    }
}

static SHARED: OnceLock<Shared> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    canonical::<FromWorker>(bytes);
    canonical::<ToWorker>(bytes);
    let shared = SHARED.get_or_init(|| {
        let file = lazaret_wire::shared::create().expect("a shared file");
        Shared::map(file.as_fd()).expect("a mapping of it")
    });
    let length = bytes.len().min(layout::LOG_SIZE);
    shared.copy_in(layout::LOG, &bytes[..length]);
    let head = bytes.first_chunk::<4>().map_or(0, |head| u32::from_le_bytes(*head));
    shared.u32(layout::LOG_LEN).store(head, Relaxed);
    let (records, _) = shared.take_log();
    assert!(records.iter().map(Vec::len).sum::<usize>() <= layout::LOG_SIZE);
    shared.copy_in(layout::LAST_WORDS, &bytes[..length.min(layout::LAST_WORDS_SIZE)]);
    let _ = shared.take_last_words();
    shared.u32(layout::ANSWER_LEN).store(head, Relaxed);
    let _ = shared.take_answer(&mut Vec::new());
});
