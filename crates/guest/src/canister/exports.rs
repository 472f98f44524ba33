//! What a tenant's module exports, looked up once.

use std::collections::BTreeMap;

use lazaret_instrument::names;
use lazaret_wire::message::{Call, Entry};
use wasmtime::{ExternType, Module, ModuleExport};

use super::context::Context;
use super::error::LoadError;
use crate::memory::WASM_PAGE;

/// Number of an exported function in [`Exports::functions`].
pub(super) type Number = usize;

/// A method's exports.
#[derive(Debug, Default)]
struct Method {
    update: Option<Number>,
    query: Option<Number>,
    composite_query: Option<Number>,
}

/// The exports of a tenant's module.
pub(super) struct Exports {
    pub(super) functions: Vec<ModuleExport>,
    pub(super) fuel: ModuleExport,
    pub(super) stop: ModuleExport,
    pub(super) depth: ModuleExport,
    /// The mutable globals, in their order.
    pub(super) globals: Vec<ModuleExport>,
    /// Whether addresses have 64 bits.
    pub(super) memory64: bool,
    /// Bytes that the heap has at least.
    pub(super) minimum: u64,
    /// Bytes of its cards, if the code sets any.
    pub(super) cards: Option<u64>,
    init: Option<Number>,
    start: Option<Number>,
    canister_init: Option<Number>,
    pre_upgrade: Option<Number>,
    post_upgrade: Option<Number>,
    /// Few enough that comparing beats hashing.
    methods: BTreeMap<String, Method>,
}

/// The functions to run for a call, one after another.
pub(super) type Steps = [Option<(Context, Number)>; 3];

impl Exports {
    /// Looks a module's exports up and checks those of the interface.
    pub(super) fn of(module: &Module) -> Result<Self, LoadError> {
        let needed = |name: &str| {
            module
                .get_export_index(name)
                .ok_or_else(|| LoadError::NotTenant {
                    export: name.to_owned(),
                })
        };
        let Some(ExternType::Memory(memory)) = module.get_export(names::MEMORY) else {
            return Err(LoadError::NotTenant {
                export: names::MEMORY.to_owned(),
            });
        };
        let mut exports = Self {
            functions: Vec::new(),
            fuel: needed(names::FUEL)?,
            stop: needed(names::STOP)?,
            depth: needed(names::DEPTH)?,
            globals: (0..)
                .map_while(|n| module.get_export_index(&names::global_export(n)))
                .collect(),
            memory64: memory.is_64(),
            minimum: memory.minimum().saturating_mul(WASM_PAGE),
            cards: match module.get_export(names::CARDS) {
                Some(ExternType::Memory(cards)) => Some(cards.minimum().saturating_mul(WASM_PAGE)),
                _ => None,
            },
            init: None,
            start: None,
            canister_init: None,
            pre_upgrade: None,
            post_upgrade: None,
            methods: BTreeMap::new(),
        };
        for export in module.exports() {
            exports.add(module, export.name(), &export.ty())?;
        }
        Ok(exports)
    }

    fn add(&mut self, module: &Module, name: &str, ty: &ExternType) -> Result<(), LoadError> {
        let number = self.functions.len();
        let method = |methods: &mut BTreeMap<String, Method>,
                      name: &str,
                      set: fn(&mut Method) -> &mut Option<Number>| {
            *set(methods.entry(name.to_owned()).or_default()) = Some(number);
        };
        match name {
            names::INIT => self.init = Some(number),
            names::START => self.start = Some(number),
            "canister_init" => self.canister_init = Some(number),
            "canister_pre_upgrade" => self.pre_upgrade = Some(number),
            "canister_post_upgrade" => self.post_upgrade = Some(number),
            _ => match name.split_once(' ') {
                Some(("canister_update", name)) => {
                    method(&mut self.methods, name, |method| &mut method.update)
                }
                Some(("canister_query", name)) => {
                    method(&mut self.methods, name, |method| &mut method.query)
                }
                Some(("canister_composite_query", name)) => {
                    method(&mut self.methods, name, |method| {
                        &mut method.composite_query
                    });
                }
                _ => return Ok(()),
            },
        }
        let plain = ty
            .func()
            .is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 0);
        let export = module.get_export_index(name).filter(|_| plain);
        self.functions
            .push(export.ok_or_else(|| LoadError::EntryPoint {
                name: name.to_owned(),
            })?);
        Ok(())
    }

    /// What to run for a call; `None` if the method doesn't exist.
    ///
    /// A composite query runs as a query only, a query also as an update
    /// (interface specification, "Entry points").
    pub(super) fn steps(&self, call: &Call) -> Option<Steps> {
        let step =
            |context: Context, number: Option<Number>| number.map(|number| (context, number));
        // Data segments are written before anything of the module runs; there
        // is no system call in between.
        let fresh = |last| {
            [
                step(Context::Start, self.init),
                step(Context::Start, self.start),
                last,
            ]
        };
        let found = self.methods.get(call.method.as_str());
        Some(match call.entry {
            Entry::Install => fresh(step(Context::Init, self.canister_init)),
            Entry::PreUpgrade => [step(Context::PreUpgrade, self.pre_upgrade), None, None],
            Entry::PostUpgrade => fresh(step(Context::Init, self.post_upgrade)),
            Entry::PostUpgradeKeepingHeap => [
                step(Context::Start, self.start),
                step(Context::Init, self.post_upgrade),
                None,
            ],
            Entry::Update => {
                let method = found?;
                let update = step(Context::Update, method.update);
                [
                    Some(update.or_else(|| step(Context::ReplicatedQuery, method.query))?),
                    None,
                    None,
                ]
            }
            Entry::Query => {
                let method = found?;
                let query = step(Context::Query, method.query);
                [
                    Some(query.or_else(|| step(Context::CompositeQuery, method.composite_query))?),
                    None,
                    None,
                ]
            }
        })
    }
}
