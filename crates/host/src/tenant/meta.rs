//! What a version of a tenant holds besides its pages.

use lazaret_wire::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use lazaret_wire::message::Global;
use lazaret_wire::message::call::{decode_globals, encode_globals};
use lazaret_wire::message::outcome::MAX_CERTIFIED_DATA;

use super::error::CallError;
use crate::worker::WorkerError;

/// Version of this encoding.
const VERSION: u8 = 1;

/// The part of a tenant's state that is not pages: kept in the same commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// Hash of the module, blake3.
    pub module: [u8; 32],
    /// Counts installs, upgrades and committed calls (`ic0.canister_version`).
    pub version: u64,
    /// Cycles the tenant holds: a plain number for now.
    pub cycles: u128,
    /// Certified data.
    pub certified_data: Vec<u8>,
    /// The global timer, 0 for none.
    pub global_timer: u64,
    /// The mutable globals.
    pub globals: Vec<Global>,
    /// Versions of metering and recursion limit that the module is compiled
    /// with: part of the contract.
    pub contract: String,
}

impl Meta {
    /// Whether nothing but the version differs.
    pub(crate) fn same_but_version(&self, other: &Self) -> bool {
        let Self {
            module,
            version: _,
            cycles,
            certified_data,
            global_timer,
            globals,
            contract,
        } = self;
        *module == other.module
            && *cycles == other.cycles
            && *certified_data == other.certified_data
            && *global_timer == other.global_timer
            && *globals == other.globals
            && *contract == other.contract
    }
}

impl Meta {
    /// Its bytes, as they are kept with a version's pages.
    pub(crate) fn encoded(&self) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        self.to_bytes(&mut bytes)
            .map_err(|error| CallError::Worker(WorkerError::TooLarge(error)))?;
        Ok(bytes)
    }
}

impl Message for Meta {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u8(VERSION)
            .raw(&self.module)
            .u64(self.version)
            .u128(self.cycles);
        to.bytes("certified data", &self.certified_data, MAX_CERTIFIED_DATA)?
            .u64(self.global_timer);
        encode_globals(&self.globals, to)?;
        to.bytes("contract", self.contract.as_bytes(), 256)
            .map(drop)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = from.u8("tenant state version")?;
        if version != VERSION {
            return Err(DecodeError::Tag {
                field: "tenant state version",
                value: version.into(),
            });
        }
        let mut module = [0; 32];
        module.copy_from_slice(from.take("module hash", 32)?);
        Ok(Self {
            module,
            version: from.u64("version")?,
            cycles: from.u128("cycles")?,
            certified_data: from.bytes("certified data", MAX_CERTIFIED_DATA)?.to_vec(),
            global_timer: from.u64("global timer")?,
            globals: decode_globals(from)?,
            contract: from.text("contract", 256)?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was_and_a_newer_one_is_refused() {
        let meta = Meta {
            module: [3; 32],
            version: 9,
            cycles: 10,
            certified_data: vec![1; 32],
            global_timer: 5,
            globals: vec![Global::I32(1), Global::F64(2), Global::V128(3)],
            contract: "m1".into(),
        };
        let mut bytes = Vec::new();
        meta.to_bytes(&mut bytes).unwrap();
        assert_eq!(Meta::from_bytes(&bytes), Ok(meta));
        bytes[0] = 2;
        assert!(Meta::from_bytes(&bytes).is_err());
    }
}
