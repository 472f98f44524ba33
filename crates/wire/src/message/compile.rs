//! Compilation: a module in, an artefact out, in a process of its own.

use super::byte_enum;
use super::call::{Global, decode_globals, encode_globals};
use super::setup::MAX_TEXT;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

byte_enum! {
    /// What the module is compiled for.
    Purpose, "purpose" {
        /// A WASI program.
        Program = 0,
        /// A tenant: its state outlives the instance.
        Tenant = 1,
    }
}

/// What decides the artefact, besides the module: part of the cache's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompileSettings {
    /// What for.
    pub purpose: Purpose,
    /// Whether fuel is counted.
    pub metered: bool,
    /// Whether the code notes the pages that it writes
    /// ([`Tracking::Cards`](super::Tracking::Cards)).
    pub cards: bool,
    /// Whether a program's state can be taken out of one instance and put into
    /// another ([`Beginning`](super::Beginning)). A tenant's always can.
    pub snapshot: bool,
}

/// Compile the module in the input descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compile {
    /// How.
    pub settings: CompileSettings,
}

impl Message for Compile {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.settings.purpose.encode(to)?;
        to.flag(self.settings.metered)
            .flag(self.settings.cards)
            .flag(self.settings.snapshot);
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            settings: CompileSettings {
                purpose: Purpose::decode(from)?,
                metered: from.flag("metered")?,
                cards: from.flag("cards")?,
                snapshot: from.flag("snapshot")?,
            },
        })
    }
}

/// What the compiler found in a module that compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// Bytes written to the output descriptor.
    pub length: u64,
    /// The mutable globals' types, as zeros, in the order of the instrumented
    /// exports. Empty for programs without a snapshot.
    pub globals: Vec<Global>,
    /// Whether an instance may be kept between calls without being tellable
    /// from a fresh one.
    pub reusable: bool,
}

/// Why there is no artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words, for the module's author.
    pub reason: String,
    /// Whether it is the module, which is refused whenever it is compiled; else it was
    /// the machine, this time.
    pub of_module: bool,
}

/// The compilation has ended: an artefact, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The artefact, or the reason.
    pub result: Result<Artefact, Refused>,
}

impl Message for Compiled {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match &self.result {
            Ok(artefact) => {
                to.flag(true).u64(artefact.length).flag(artefact.reusable);
                encode_globals(&artefact.globals, to)
            }
            Err(refused) => to
                .flag(false)
                .flag(refused.of_module)
                .bytes("reason", refused.reason.as_bytes(), MAX_TEXT)
                .map(drop),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let result = if from.flag("compiled")? {
            Ok(Artefact {
                length: from.u64("length")?,
                reusable: from.flag("reusable")?,
                globals: decode_globals(from)?,
            })
        } else {
            Err(Refused {
                of_module: from.flag("of_module")?,
                reason: from.text("reason", MAX_TEXT)?.to_owned(),
            })
        };
        Ok(Self { result })
    }
}
