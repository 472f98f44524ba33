//! The end of a program.

use super::outcome::Trap;
use super::snapshot::Initialised;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramEnd {
    /// It returned, or called `proc_exit`.
    Exit(u32),
    /// It trapped.
    Trap(Trap),
    /// The worker could not go on for want of something that the host owns.
    Aborted(String),
}

/// The program has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// How.
    pub end: ProgramEnd,
    /// Fuel left, if it was metered.
    pub fuel_left: Option<u64>,
    /// Whether it was ever refused memory for its limit.
    pub memory_limit_hit: bool,
    /// The most bytes its memories and tables had.
    pub peak_memory: u64,
    /// What it left, if it was an initialiser that returned.
    pub left: Option<Initialised>,
}

impl Message for Exited {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match &self.end {
            ProgramEnd::Exit(code) => {
                to.u8(0).u32(*code);
            }
            ProgramEnd::Trap(trap) => trap.encode(to.u8(1))?,
            ProgramEnd::Aborted(text) => {
                to.u8(2)
                    .bytes("abort reason", text.as_bytes(), super::setup::MAX_TEXT)?;
            }
        }
        to.option(self.fuel_left.as_ref(), |to, fuel| {
            to.u64(*fuel);
            Ok(())
        })?;
        to.flag(self.memory_limit_hit).u64(self.peak_memory);
        to.option(self.left.as_ref(), |to, left| left.encode(to))
            .map(drop)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let end = match from.u8("program end")? {
            0 => ProgramEnd::Exit(from.u32("exit code")?),
            1 => ProgramEnd::Trap(Trap::decode(from)?),
            2 => ProgramEnd::Aborted(
                from.text("abort reason", super::setup::MAX_TEXT)?
                    .to_owned(),
            ),
            other => {
                return Err(DecodeError::Tag {
                    field: "program end",
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            end,
            fuel_left: from.option("fuel left", |from| from.u64("fuel left"))?,
            memory_limit_hit: from.flag("memory limit hit")?,
            peak_memory: from.u64("peak memory")?,
            left: from.option("what it left", Initialised::decode)?,
        })
    }
}
