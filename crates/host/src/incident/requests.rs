//! The last requests that a worker was sent, as the host sent them: what lies
//! in shared memory could have been changed by the worker since.

use lazaret_wire::codec::Message;
use lazaret_wire::message::ToWorker;
use serde::{Deserialize, Serialize};

/// How many are kept.
const KEPT: usize = 8;
/// How many bytes of each.
const BYTES: usize = 512;

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
    /// Its first bytes, in hexadecimal: all of them if they are few.
    pub bytes: String,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    number: u32,
    length: usize,
    bytes: [u8; BYTES],
}

/// The last requests of one worker.
#[derive(Debug)]
pub(crate) struct Recent(Box<[Kept; KEPT]>);

impl Default for Recent {
    fn default() -> Self {
        Self(Box::new(
            [Kept {
                number: 0,
                length: 0,
                bytes: [0; BYTES],
            }; KEPT],
        ))
    }
}

impl Recent {
    /// Notes a request; `number` counts from 1.
    pub(crate) fn note(&mut self, number: u32, request: &[u8]) {
        let place = number as usize % KEPT;
        if let Some(kept) = self.0.get_mut(place) {
            kept.number = number;
            kept.length = request.len();
            let length = request.len().min(BYTES);
            kept.bytes[..length].copy_from_slice(&request[..length]);
        }
    }

    /// All that are kept, newest last.
    pub(crate) fn list(&self) -> Vec<Request> {
        let mut all: Vec<&Kept> = self.0.iter().filter(|kept| kept.number != 0).collect();
        all.sort_by_key(|kept| kept.number);
        all.into_iter().map(Kept::told).collect()
    }
}

impl Kept {
    fn told(&self) -> Request {
        let bytes = &self.bytes[..self.length.min(BYTES)];
        let whole = (self.length <= BYTES).then_some(bytes);
        Request {
            number: self.number,
            what: whole
                .and_then(|bytes| ToWorker::from_bytes(bytes).ok())
                .map(|request| words(&request)),
            length: self.length,
            bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
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
        for number in 1..=20 {
            recent.note(number, &vec![number as u8; number as usize * 100]);
        }
        let list = recent.list();
        assert_eq!(
            list.iter().map(|one| one.number).collect::<Vec<_>>(),
            (13..=20).collect::<Vec<_>>()
        );
        assert_eq!((list[7].length, list[7].bytes.len()), (2000, 2 * BYTES));
        assert_eq!(list[7].what, None);
    }

    #[test]
    fn what_can_be_read_is_named() {
        let mut bytes = Vec::new();
        ToWorker::Start.to_bytes(&mut bytes).unwrap();
        let mut recent = Recent::default();
        recent.note(1, &bytes);
        assert_eq!(recent.list()[0].what.as_deref(), Some("Start"));
    }
}
