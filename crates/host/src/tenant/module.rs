//! A tenant's module, with what is known of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lazaret_wire::message::{CompileSettings, Purpose, Tracking};

use crate::compile::{Artefact, CompileError};
use crate::host::Inner;
use crate::module::ModuleInfo;

/// A tenant's module.
#[derive(Debug)]
pub(crate) struct Module {
    pub hash: [u8; 32],
    pub info: ModuleInfo,
    /// As what each method may be called.
    pub methods: BTreeMap<String, Kinds>,
    code: Mutex<Code>,
}

/// Modules that tenants have open: those of one module share it.
#[derive(Debug, Default)]
pub(crate) struct Modules(Mutex<HashMap<[u8; 32], Weak<Module>>>);

impl Modules {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<Module>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module with this hash, if a tenant has it open.
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<Arc<Module>> {
        self.lock().get(hash)?.upgrade()
    }

    /// This one, or the same that a tenant has open.
    pub(super) fn share(&self, module: Module) -> Arc<Module> {
        let mut modules = self.lock();
        if let Some(open) = modules.get(&module.hash).and_then(Weak::upgrade) {
            return open;
        }
        modules.retain(|_, module| module.strong_count() > 0);
        let module = Arc::new(module);
        modules.insert(module.hash, Arc::downgrade(&module));
        module
    }
}

/// The entry points of one method.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kinds {
    pub update: bool,
    pub query: bool,
    pub composite_query: bool,
}

fn methods(info: &ModuleInfo) -> BTreeMap<String, Kinds> {
    let mut methods = BTreeMap::<String, Kinds>::new();
    for export in &info.exports {
        let Some((kind, name)) = export.split_once(' ') else {
            continue;
        };
        let set: fn(&mut Kinds) -> &mut bool = match kind {
            "canister_update" => |kinds| &mut kinds.update,
            "canister_query" => |kinds| &mut kinds.query,
            "canister_composite_query" => |kinds| &mut kinds.composite_query,
            _ => continue,
        };
        *set(methods.entry(name.to_owned()).or_default()) = true;
    }
    methods
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
            methods: methods(&info),
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
                    cards: host.options.tracker.resolved() == Tracking::Cards,
                    snapshot: false,
                };
                host.compile(wasm, self.hash, settings)?.0
            }
        };
        *code = Code::Compiled(artefact.clone());
        Ok(artefact)
    }
}
