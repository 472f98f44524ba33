//! A program's module, read once and run many times.

use std::sync::Arc;

use lazaret_wire::message::Purpose;

use super::Program;
use crate::host::Inner;
use crate::module::{self, ModuleError, ModuleInfo};

/// A module that was read: its hash and its outside are known, which takes longer than a
/// start if it is large.
#[derive(Debug)]
pub(super) struct Read {
    pub wasm: Vec<u8>,
    pub hash: [u8; 32],
    pub info: ModuleInfo,
}

impl Read {
    /// Reads a program, binary or text, that is to run on this host.
    pub(super) fn new(host: &Inner, bytes: Vec<u8>) -> Result<Self, ModuleError> {
        let wasm = module::binary(bytes)?;
        let info = module::inspect(&wasm, Purpose::Program, &host.functions.names())?;
        Ok(Self {
            hash: *blake3::hash(&wasm).as_bytes(),
            wasm,
            info,
        })
    }
}

/// Where a program's module comes from.
#[derive(Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    Read(Arc<Read>),
}

impl Source {
    pub(super) fn read(self, host: &Inner) -> Result<Arc<Read>, ModuleError> {
        match self {
            Self::Bytes(bytes) => Read::new(host, bytes).map(Arc::new),
            Self::Read(read) => Ok(read),
        }
    }
}

/// A program's module that runs many times: it is read, hashed and looked at once
/// ([`Host::module`](crate::Host::module)). Clones are the same module.
#[derive(Debug, Clone)]
pub struct Module {
    host: Arc<Inner>,
    read: Arc<Read>,
}

impl Module {
    pub(crate) fn new(host: Arc<Inner>, bytes: Vec<u8>) -> Result<Self, ModuleError> {
        let read = Arc::new(Read::new(&host, bytes)?);
        Ok(Self { host, read })
    }

    /// A program of it, to run once.
    pub fn program(&self) -> Program {
        Program::new(self.host.clone(), Source::Read(self.read.clone()))
    }

    /// Its imports, exports and what else can be seen of it from outside.
    pub fn info(&self) -> &ModuleInfo {
        &self.read.info
    }
}
