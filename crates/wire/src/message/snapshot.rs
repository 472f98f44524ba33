//! Programs that begin from what an initialiser left.

use super::call::{Global, decode_globals, encode_globals};
use super::setup::MAX_STRING;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

/// The most runs of pages in a snapshot: a mapping of the worker's each.
pub const MAX_SNAPSHOT_RUNS: usize = 2048;

/// What a program begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// A fresh instance: its start function, then `_start`.
    Fresh,
    /// A fresh instance: its start function, then an initialiser, and no
    /// further. What that leaves is the answer.
    Initialiser(Initialiser),
    /// What an initialiser left, then `_start`.
    Snapshot(Snapshot),
}

/// Which function makes a snapshot, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialiser {
    /// The export.
    pub export: String,
    /// Whether it may call WASI. What it sees of the world is then in the
    /// snapshot.
    pub allow_wasi: bool,
}

/// The state that an initialiser left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes in memory 0.
    pub memory: u64,
    /// The mutable globals, in the order of the instrumented exports.
    pub globals: Vec<Global>,
    /// Where memory 0 is not zero, by address. Its pages lie one after another
    /// in the file that is handed over.
    pub runs: Vec<PageRun>,
}

/// Pages that lie one after another in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// The first page (address / 4096).
    pub first: u64,
    /// How many pages.
    pub pages: u64,
}

/// What an initialiser left, and where the host can copy it from while the
/// worker waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// Where memory 0 begins in the worker's address space. A lie makes the
    /// host read other memory of the same worker, or fail.
    pub memory_at: u64,
    /// Bytes in memory 0.
    pub memory: u64,
    /// The mutable globals, in the order of the instrumented exports.
    pub globals: Vec<Global>,
}

impl Message for Beginning {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Fresh => {
                to.u8(0);
                Ok(())
            }
            Self::Initialiser(initialiser) => {
                to.u8(1)
                    .bytes("initialiser", initialiser.export.as_bytes(), MAX_STRING)?
                    .flag(initialiser.allow_wasi);
                Ok(())
            }
            Self::Snapshot(snapshot) => snapshot.encode(to.u8(2)),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8("beginning")? {
            0 => Self::Fresh,
            1 => Self::Initialiser(Initialiser {
                export: from.text("initialiser", MAX_STRING)?.to_owned(),
                allow_wasi: from.flag("WASI allowed")?,
            }),
            2 => Self::Snapshot(Snapshot::decode(from)?),
            other => {
                return Err(DecodeError::Tag {
                    field: "beginning",
                    value: other.into(),
                });
            }
        })
    }
}

impl Message for Snapshot {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u64(self.memory);
        encode_globals(&self.globals, to)?;
        to.list("page runs", &self.runs, MAX_SNAPSHOT_RUNS, |to, run| {
            to.u64(run.first).u64(run.pages);
            Ok(())
        })
        .map(drop)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            memory: from.u64("memory size")?,
            globals: decode_globals(from)?,
            runs: from.list("page runs", MAX_SNAPSHOT_RUNS, |from| {
                Ok(PageRun {
                    first: from.u64("first page")?,
                    pages: from.u64("pages")?,
                })
            })?,
        })
    }
}

impl Message for Initialised {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u64(self.memory_at).u64(self.memory);
        encode_globals(&self.globals, to)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            memory_at: from.u64("memory address")?,
            memory: from.u64("memory size")?,
            globals: decode_globals(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_comes_back_as_it_was_sent() {
        for sent in [
            Beginning::Fresh,
            Beginning::Initialiser(Initialiser {
                export: "wizer.initialize".to_owned(),
                allow_wasi: true,
            }),
            Beginning::Snapshot(Snapshot {
                memory: 3 << 16,
                globals: vec![Global::I32(7), Global::V128(1 << 90)],
                runs: vec![
                    PageRun { first: 0, pages: 2 },
                    PageRun { first: 9, pages: 1 },
                ],
            }),
        ] {
            let mut bytes = Vec::new();
            sent.to_bytes(&mut bytes).unwrap();
            assert_eq!(Beginning::from_bytes(&bytes).unwrap(), sent);
            bytes.pop();
            assert!(Beginning::from_bytes(&bytes).is_err());
        }
    }
}
