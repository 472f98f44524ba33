//! One call of a tenant: what goes in.

use super::byte_enum;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use crate::layout::{MAX_ARGUMENT, MAX_GLOBALS, MAX_METHOD, MAX_PRINCIPAL};

/// The longest certificate for queries, in bytes.
pub const MAX_CERTIFICATE: usize = 64 << 10;
/// The most chunks that one request closes.
pub const MAX_CLOSED: usize = 4096;
/// The most chunks of either memory that one [`Prepare`] opens.
pub const MAX_OPENED: usize = 16 << 10;

/// What a worker does before the host brings its memories to another version:
/// the pages that differ are written from outside, and must be there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepare {
    /// The sizes at the version before. What is beyond, a query's, is dropped.
    pub from: Sizes,
    /// The sizes at the version to come.
    pub sizes: Sizes,
    /// Chunks of the heap to open, ascending, under the kernel's tracking; its
    /// pages under the signal tracker.
    pub open_heap: Vec<u32>,
    /// The same of the stable memory.
    pub open_stable: Vec<u32>,
}

impl Message for Prepare {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.from.encode(to)?;
        self.sizes.encode(to)?;
        for (field, chunks) in [
            ("opened heap chunks", &self.open_heap),
            ("opened stable chunks", &self.open_stable),
        ] {
            to.list(field, chunks, MAX_OPENED, |to, chunk| {
                to.u32(*chunk);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            from: Sizes::decode(from)?,
            sizes: Sizes::decode(from)?,
            open_heap: from.list("opened heap chunks", MAX_OPENED, |from| from.u32("chunk"))?,
            open_stable: from.list("opened stable chunks", MAX_OPENED, |from| from.u32("chunk"))?,
        })
    }
}

byte_enum! {
    /// Which entry point runs.
    Entry, "entry point" {
        /// Fill the memory from the module's data segments, run its start
        /// function and `canister_init`.
        Install = 0,
        /// `canister_pre_upgrade`.
        PreUpgrade = 1,
        /// A new module over the old stable memory: data segments, start
        /// function and `canister_post_upgrade`.
        PostUpgrade = 2,
        /// The same, but the heap is kept too and the data segments are not
        /// written (orthogonal persistence).
        PostUpgradeKeepingHeap = 3,
        /// `canister_update <method>`, or `canister_query` called as an update.
        Update = 4,
        /// `canister_query <method>`.
        Query = 5,
    }
}

/// Bytes in each memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Bytes of the heap.
    pub heap: u64,
    /// Bytes of the stable memory.
    pub stable: u64,
}

impl Message for Sizes {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        to.u64(self.heap).u64(self.stable);
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            heap: from.u64("heap size")?,
            stable: from.u64("stable size")?,
        })
    }
}

/// The value of a mutable global. Floats cross as their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `i32`
    I32(u32),
    /// `i64`
    I64(u64),
    /// `f32`
    F32(u32),
    /// `f64`
    F64(u64),
    /// `v128`
    V128(u128),
}

impl Message for Global {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        match *self {
            Self::I32(value) => to.u8(0).u32(value),
            Self::I64(value) => to.u8(1).u64(value),
            Self::F32(value) => to.u8(2).u32(value),
            Self::F64(value) => to.u8(3).u64(value),
            Self::V128(value) => to.u8(4).u128(value),
        };
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8("global type")? {
            0 => Self::I32(from.u32("global")?),
            1 => Self::I64(from.u64("global")?),
            2 => Self::F32(from.u32("global")?),
            3 => Self::F64(from.u64("global")?),
            4 => Self::V128(from.u128("global")?),
            other => {
                return Err(DecodeError::Tag {
                    field: "global type",
                    value: other.into(),
                });
            }
        })
    }
}

/// A list of globals, as many as a module may have.
pub fn encode_globals(globals: &[Global], to: &mut Writer<'_>) -> Result<(), EncodeError> {
    to.list("globals", globals, MAX_GLOBALS, |to, global| {
        global.encode(to)
    })
    .map(drop)
}

/// Reads such a list.
pub fn decode_globals(from: &mut Reader<'_>) -> Result<Vec<Global>, DecodeError> {
    from.list("globals", MAX_GLOBALS, Global::decode)
}

/// One call. It carries all that a fresh instance on the mapped memory needs,
/// so that a kept instance can't be told from a fresh one.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which entry point.
    pub entry: Entry,
    /// The method, for updates and queries.
    pub method: String,
    /// The argument.
    pub argument: Vec<u8>,
    /// Who calls.
    pub caller: Vec<u8>,
    /// Who is called.
    pub canister: Vec<u8>,
    /// Whether the caller is a controller.
    pub controller: bool,
    /// Nanoseconds since 1970-01-01; stands still during the call.
    pub time: u64,
    /// The state's version, counted by the host.
    pub version: u64,
    /// Cycles the tenant holds.
    pub cycles: u128,
    /// Fuel for this call.
    pub fuel: u64,
    /// The certificate that a query may read.
    pub certificate: Option<Vec<u8>>,
    /// Sizes the memories must have before the call. Where the worker's are
    /// larger (a rolled-back call grew them), it drops what is beyond.
    pub sizes: Sizes,
    /// Values the mutable globals must have before the call; empty on install,
    /// when the module's own initial values count.
    pub globals: Vec<Global>,
    /// Heap chunks to close: no longer entered.
    pub close_heap: Vec<u32>,
    /// Stable-memory chunks to close.
    pub close_stable: Vec<u32>,
}

impl Message for Call {
    fn encode(&self, to: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.entry.encode(to)?;
        to.bytes("method", self.method.as_bytes(), MAX_METHOD)?
            .bytes("argument", &self.argument, MAX_ARGUMENT)?
            .bytes("caller", &self.caller, MAX_PRINCIPAL)?
            .bytes("canister", &self.canister, MAX_PRINCIPAL)?
            .flag(self.controller)
            .u64(self.time)
            .u64(self.version)
            .u128(self.cycles)
            .u64(self.fuel)
            .option(self.certificate.as_ref(), |to, bytes| {
                to.bytes("certificate", bytes, MAX_CERTIFICATE).map(drop)
            })?;
        self.sizes.encode(to)?;
        encode_globals(&self.globals, to)?;
        let chunk = |to: &mut Writer<'_>, chunk: &u32| {
            to.u32(*chunk);
            Ok(())
        };
        to.list("closed heap chunks", &self.close_heap, MAX_CLOSED, chunk)?;
        to.list(
            "closed stable chunks",
            &self.close_stable,
            MAX_CLOSED,
            chunk,
        )?;
        Ok(())
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut call = Self::default();
        call.replace_decoded(from)?;
        Ok(call)
    }

    fn replace_decoded(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.entry = Entry::decode(from)?;
        self.method.clear();
        self.method.push_str(from.text("method", MAX_METHOD)?);
        from.bytes_over("argument", MAX_ARGUMENT, &mut self.argument)?;
        from.bytes_over("caller", MAX_PRINCIPAL, &mut self.caller)?;
        from.bytes_over("canister", MAX_PRINCIPAL, &mut self.canister)?;
        self.controller = from.flag("controller")?;
        self.time = from.u64("time")?;
        self.version = from.u64("version")?;
        self.cycles = from.u128("cycles")?;
        self.fuel = from.u64("fuel")?;
        self.certificate = from.option("certificate", |from| {
            from.bytes("certificate", MAX_CERTIFICATE)
                .map(<[u8]>::to_vec)
        })?;
        self.sizes = Sizes::decode(from)?;
        from.list_over("globals", MAX_GLOBALS, &mut self.globals, Global::decode)?;
        let chunk = |from: &mut Reader<'_>| from.u32("chunk");
        from.list_over(
            "closed heap chunks",
            MAX_CLOSED,
            &mut self.close_heap,
            chunk,
        )?;
        from.list_over(
            "closed stable chunks",
            MAX_CLOSED,
            &mut self.close_stable,
            chunk,
        )
    }
}

impl Default for Call {
    /// A query without a name that may use nothing.
    fn default() -> Self {
        Self {
            entry: Entry::Query,
            method: String::new(),
            argument: Vec::new(),
            caller: Vec::new(),
            canister: Vec::new(),
            controller: false,
            time: 0,
            version: 0,
            cycles: 0,
            fuel: 0,
            certificate: None,
            sizes: Sizes::default(),
            globals: Vec::new(),
            close_heap: Vec::new(),
            close_stable: Vec::new(),
        }
    }
}
