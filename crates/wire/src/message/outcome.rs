//! What comes back of a call.

use super::byte_enum;
use super::call::{Global, Sizes, decode_globals, encode_globals};
use super::setup::MAX_TEXT;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::layout::MAX_REPLY;

/// The longest certified data, in bytes (Internet Computer interface
/// specification, `ic0.certified_data_set`).
pub const MAX_CERTIFIED_DATA: usize = 32;

byte_enum! {
    /// Why a guest trapped. All of these are outcomes: the same everywhere.
    TrapKind, "trap kind" {
        /// An `unreachable` instruction.
        Unreachable = 0,
        /// Access beyond the memory.
        MemoryOutOfBounds = 1,
        /// Access beyond a table, an indirect call to nothing or of another type.
        BadTable = 2,
        /// Division by zero, overflow, or a bad conversion to an integer.
        Arithmetic = 3,
        /// The fuel is used up.
        Fuel = 4,
        /// The recursion limit.
        Recursion = 5,
        /// `ic0.trap`.
        Explicit = 6,
        /// A system call used in a way that its interface forbids.
        Contract = 7,
        /// Anything else that the engine calls a trap.
        Other = 8,
    }
}

/// A trap: why, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub kind: TrapKind,
    /// In words.
    pub message: String,
    /// The Wasm frames, innermost first, a line each.
    pub backtrace: String,
}

impl Message for Trap {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.kind.encode(to)?;
        to.bytes("trap message", self.message.as_bytes(), MAX_TEXT)?
            .bytes("backtrace", self.backtrace.as_bytes(), MAX_TEXT)?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: TrapKind::decode(from)?,
            message: from.text("trap message", MAX_TEXT)?.to_owned(),
            backtrace: from.text("backtrace", MAX_TEXT)?.to_owned(),
        })
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest replied. Lifecycle entry points reply with nothing.
    Reply(Vec<u8>),
    /// The guest rejected, with a message.
    Reject(String),
    /// The guest trapped.
    Trap(Trap),
    /// The guest returned without a reply or a reject.
    NoReply,
    /// The module exports no such method.
    NoMethod,
    /// The host lacks something (memory, mappings): not the guest's doing, no
    /// change of state, worth another try.
    Aborted(String),
}

impl Message for Outcome {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Reply(bytes) => to.u8(0).bytes("reply", bytes, MAX_REPLY).map(drop),
            Self::Reject(text) => to
                .u8(1)
                .bytes("reject message", text.as_bytes(), MAX_TEXT)
                .map(drop),
            Self::Trap(trap) => trap.encode(to.u8(2)),
            Self::NoReply => {
                to.u8(3);
                Ok(())
            }
            Self::NoMethod => {
                to.u8(4);
                Ok(())
            }
            Self::Aborted(text) => to
                .u8(5)
                .bytes("abort reason", text.as_bytes(), MAX_TEXT)
                .map(drop),
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8("outcome")? {
            0 => Self::Reply(from.bytes("reply", MAX_REPLY)?.to_vec()),
            1 => Self::Reject(from.text("reject message", MAX_TEXT)?.to_owned()),
            2 => Self::Trap(Trap::decode(from)?),
            3 => Self::NoReply,
            4 => Self::NoMethod,
            5 => Self::Aborted(from.text("abort reason", MAX_TEXT)?.to_owned()),
            other => {
                return Err(DecodeError::Tag {
                    field: "outcome",
                    value: other.into(),
                });
            }
        })
    }
}

/// What a successful call asks of the host, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// New certified data.
    pub certified_data: Option<Vec<u8>>,
    /// A new global timer, in nanoseconds since 1970-01-01; 0 clears it.
    pub global_timer: Option<u64>,
    /// Cycles to take from the tenant. The host checks them against what the
    /// tenant holds.
    pub cycles_burned: u128,
}

impl Message for Effects {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.option(self.certified_data.as_ref(), |to, bytes| {
            to.bytes("certified data", bytes, MAX_CERTIFIED_DATA)
                .map(drop)
        })?
        .option(self.global_timer.as_ref(), |to, time| {
            to.u64(*time);
            Ok(())
        })?
        .u128(self.cycles_burned);
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            certified_data: from.option("certified data", |from| {
                from.bytes("certified data", MAX_CERTIFIED_DATA)
                    .map(<[u8]>::to_vec)
            })?,
            global_timer: from.option("global timer", |from| from.u64("global timer"))?,
            cycles_burned: from.u128("cycles burned")?,
        })
    }
}

/// A call is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// Fuel left; never more than was given.
    pub fuel_left: u64,
    /// Sizes of the memories now.
    pub sizes: Sizes,
    /// The mutable globals now; as many and of the same types as before.
    pub globals: Vec<Global>,
    /// What the host is asked to do.
    pub effects: Effects,
}

impl Message for Done {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.outcome.encode(to)?;
        to.u64(self.fuel_left);
        self.sizes.encode(to)?;
        encode_globals(&self.globals, to)?;
        self.effects.encode(to)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            outcome: Outcome::decode(from)?,
            fuel_left: from.u64("fuel left")?,
            sizes: Sizes::decode(from)?,
            globals: decode_globals(from)?,
            effects: Effects::decode(from)?,
        })
    }
}
