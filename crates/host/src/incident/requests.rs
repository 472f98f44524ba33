//! The last requests that a worker was sent, as the host sent them: what lies
//! in shared memory could have been changed by the worker since.
//!
//! A tenant's calls, and the host's answers in the middle of them, are kept
//! whole, so that they can be run again on the same state ([`RanOn`]); of the
//! others the beginning is.

use lazaret_wire::codec::Message;
use lazaret_wire::message::ToWorker;
use serde::{Deserialize, Serialize};

/// How many bytes of a request that isn't kept whole.
const BEGINNING: usize = 512;
/// A half of what is kept is full with so many requests,
const MOST: usize = 8;
/// or so many bytes; a single one may be larger.
const ROOM: usize = 4 << 10;
/// A buffer that grew beyond this is given back when it is used again.
const LARGE: usize = 64 << 10;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number: how many the worker had been sent with it.
    pub number: u32,
    /// What it was, if it can be read from what was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Its length in bytes.
    pub length: usize,
    /// Its bytes, in hexadecimal: all of them, or the first.
    pub bytes: String,
}

/// The state that the last requests ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanOn {
    /// The version of the tenant's memory.
    pub version: u64,
    /// The first request on it that is kept.
    pub from: u32,
    /// Whether that was the first there was in this worker.
    pub complete: bool,
}

/// What a request is to whoever wants to run it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// A call on this version of the tenant's memory.
    Call(u64),
    /// The host's answer in the middle of a call.
    Answer,
    /// Anything else.
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    number: u32,
    noted: Noted,
    length: usize,
    /// How many bytes of it are kept.
    kept: usize,
}

/// Requests one after another, until there are enough.
#[derive(Debug, Default)]
struct Half {
    kept: Vec<Kept>,
    bytes: Vec<u8>,
}

impl Half {
    fn is_full(&self) -> bool {
        self.kept.len() >= MOST || self.bytes.len() >= ROOM
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.bytes.clear();
        if self.bytes.capacity() > LARGE {
            self.bytes = Vec::new();
        }
    }

    fn requests(&self) -> impl Iterator<Item = (Kept, &[u8])> {
        let mut at = 0;
        self.kept.iter().map(move |kept| {
            let bytes = self.bytes.get(at..at + kept.kept).unwrap_or_default();
            at += kept.kept;
            (*kept, bytes)
        })
    }
}

/// The last requests of one worker: in two halves, of which the older one is
/// forgotten when the newer is full.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    older: Half,
    newer: Half,
}

impl Recent {
    /// Notes a request; `number` counts from 1.
    pub(crate) fn note(&mut self, number: u32, noted: Noted, request: &[u8]) {
        if self.newer.is_full() {
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
        }
        let kept = match noted {
            Noted::Other => request.len().min(BEGINNING),
            Noted::Call(_) | Noted::Answer => request.len(),
        };
        self.newer.bytes.extend_from_slice(&request[..kept]);
        self.newer.kept.push(Kept {
            number,
            noted,
            length: request.len(),
            kept,
        });
    }

    fn all(&self) -> impl Iterator<Item = (Kept, &[u8])> {
        self.older.requests().chain(self.newer.requests())
    }

    /// All that are kept, newest last.
    pub(crate) fn list(&self) -> Vec<Request> {
        self.all()
            .map(|(kept, bytes)| Request {
                number: kept.number,
                what: (kept.kept == kept.length)
                    .then(|| ToWorker::from_bytes(bytes).ok())
                    .flatten()
                    .map(|request| words(&request)),
                length: kept.length,
                bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            })
            .collect()
    }

    /// What the last calls ran on, if it was in one of them that things
    /// happened: nothing but answers came after it.
    pub(crate) fn ran_on(&self) -> Option<RanOn> {
        let all: Vec<Kept> = self.all().map(|(kept, _)| kept).collect();
        let last = all.iter().rfind(|one| one.noted != Noted::Answer)?;
        let Noted::Call(version) = last.noted else {
            return None;
        };
        let same = |one: &&Kept| matches!(one.noted, Noted::Answer) || one.noted == last.noted;
        let first = all
            .iter()
            .rev()
            .take_while(same)
            .filter(|one| one.noted == last.noted)
            .last()?;
        Some(RanOn {
            version,
            from: first.number,
            // What came before it is known, and was no call on this version.
            complete: all
                .iter()
                .take_while(|one| one.number != first.number)
                .any(|one| one.noted != Noted::Answer),
        })
    }
}

/// What a request is, in few words.
fn words(request: &ToWorker) -> String {
    let debug = format!("{request:?}");
    let name: String = debug
        .chars()
        .take_while(|letter| letter.is_alphanumeric())
        .collect();
    match request {
        ToWorker::Call(call) => format!("{name} {:?} {}", call.entry, call.method),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_kept_in_order() {
        let mut recent = Recent::default();
        assert!(recent.list().is_empty());
        for number in 1..=100 {
            recent.note(
                number,
                Noted::Other,
                &vec![number as u8; number as usize * 20],
            );
        }
        let list = recent.list();
        let numbers: Vec<u32> = list.iter().map(|one| one.number).collect();
        let first = numbers[0];
        assert_eq!(numbers, (first..=100).collect::<Vec<_>>());
        assert!((MOST..=2 * MOST).contains(&numbers.len()), "{numbers:?}");
        let last = list.last().unwrap();
        assert_eq!((last.length, last.bytes.len()), (2000, 2 * BEGINNING));
        assert_eq!(last.what, None);
    }

    #[test]
    fn what_can_be_read_is_named() {
        let mut bytes = Vec::new();
        ToWorker::Start.to_bytes(&mut bytes).unwrap();
        let mut recent = Recent::default();
        recent.note(1, Noted::Other, &bytes);
        assert_eq!(recent.list()[0].what.as_deref(), Some("Start"));
    }

    #[test]
    fn calls_are_kept_whole_however_long_and_memory_is_given_back() {
        let mut recent = Recent::default();
        recent.note(1, Noted::Call(7), &vec![1; 1 << 20]);
        assert_eq!(recent.list()[0].bytes.len(), 2 << 20);
        for number in 2..40 {
            recent.note(number, Noted::Call(7), &[1; 100]);
        }
        assert!(recent.older.bytes.capacity() <= LARGE);
        assert!(recent.newer.bytes.capacity() <= LARGE);
    }

    #[test]
    fn what_the_last_calls_ran_on_is_known() {
        let mut recent = Recent::default();
        let on = |version, from, complete| {
            Some(RanOn {
                version,
                from,
                complete,
            })
        };
        assert_eq!(recent.ran_on(), None);
        recent.note(1, Noted::Other, b"assign");
        assert_eq!(recent.ran_on(), None);
        recent.note(2, Noted::Call(5), b"a");
        recent.note(3, Noted::Answer, b"b");
        assert_eq!(recent.ran_on(), on(5, 2, true));
        recent.note(4, Noted::Call(5), b"c");
        assert_eq!(recent.ran_on(), on(5, 2, true));
        recent.note(5, Noted::Call(6), b"d");
        assert_eq!(recent.ran_on(), on(6, 5, true));
        recent.note(6, Noted::Answer, b"e");
        recent.note(7, Noted::Other, b"prepare");
        assert_eq!(recent.ran_on(), None, "it happened in something else");
        for number in 8..60 {
            recent.note(number, Noted::Call(9), b"f");
        }
        let ran_on = recent.ran_on().unwrap();
        assert!(!ran_on.complete && ran_on.version == 9 && ran_on.from > 8);
    }
}
