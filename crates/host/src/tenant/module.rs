//! A tenant's module, with what is known of it.

use std::sync::{Arc, Mutex, PoisonError};

use lazaret_wire::message::{CompileSettings, Purpose};

use crate::artefact::{Artefact, CompileError};
use crate::host::Inner;
use crate::module::ModuleInfo;
use crate::tracker::TrackerKind;

/// A tenant's module.
#[derive(Debug)]
pub(crate) struct Module {
    pub hash: [u8; 32],
    pub info: ModuleInfo,
    code: Mutex<Code>,
}

/// A module's code: compiled when it is first to run, so that a tenant can be
/// looked at without a compiler.
#[derive(Debug)]
enum Code {
    Wasm(Arc<[u8]>),
    Compiled(Arc<Artefact>),
}

impl Module {
    /// A module that was inspected and isn't compiled yet.
    pub(crate) fn new(wasm: &[u8], info: ModuleInfo) -> Self {
        Self {
            hash: *blake3::hash(wasm).as_bytes(),
            info,
            code: Mutex::new(Code::Wasm(wasm.into())),
        }
    }

    /// Its artefact, compiled now if it isn't.
    pub(crate) fn artefact(&self, host: &Inner) -> Result<Arc<Artefact>, CompileError> {
        let mut code = self.code.lock().unwrap_or_else(PoisonError::into_inner);
        let artefact = match &*code {
            Code::Compiled(artefact) => return Ok(artefact.clone()),
            Code::Wasm(wasm) => {
                let settings = CompileSettings {
                    purpose: Purpose::Tenant,
                    metered: true,
                    cards: host.options.tracker == TrackerKind::Cards,
                    snapshot: false,
                };
                host.compile(wasm, settings)?.0
            }
        };
        *code = Code::Compiled(artefact.clone());
        Ok(artefact)
    }
}
