//! A call of a function that the embedder provides.

use super::setup::MAX_TEXT;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};

/// The most bytes that one host call carries in or out.
pub const MAX_HOST_BYTES: usize = 1 << 20;

/// The guest calls a function of the embedder and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCall {
    /// The number of the function, in the order of the assignment.
    pub function: u16,
    /// Its argument.
    pub argument: Vec<u8>,
}

impl Message for HostCall {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u16(self.function)
            .bytes("host argument", &self.argument, MAX_HOST_BYTES)?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            function: from.u16("host function")?,
            argument: from.bytes("host argument", MAX_HOST_BYTES)?.to_vec(),
        })
    }
}

/// What the embedder's function returned, or why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReturn {
    /// Bytes for the guest, or a message: the guest then traps with it.
    pub result: Result<Vec<u8>, String>,
}

impl Message for HostReturn {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match &self.result {
            Ok(bytes) => to.flag(true).bytes("host result", bytes, MAX_HOST_BYTES)?,
            Err(text) => to
                .flag(false)
                .bytes("host error", text.as_bytes(), MAX_TEXT)?,
        };
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let result = if from.flag("host result")? {
            Ok(from.bytes("host result", MAX_HOST_BYTES)?.to_vec())
        } else {
            Err(from.text("host error", MAX_TEXT)?.to_owned())
        };
        Ok(Self { result })
    }
}
