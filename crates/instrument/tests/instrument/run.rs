//! Running a module, rewritten or not.

use lazaret_instrument::{Instrumented, Options, instrument, names};
use wasmtime::{
    Config, Engine, Extern, Global, Instance, Linker, Module, OptLevel, Store, Trap, Val, ValType,
};

pub const OPT_LEVELS: [OptLevel; 3] = [OptLevel::None, OptLevel::Speed, OptLevel::SpeedAndSize];

/// Native stack for the tests of recursion.
pub const STACK: usize = 64 << 20;

pub fn engine(opt_level: OptLevel) -> Engine {
    let mut config = Config::new();
    config
        .cranelift_opt_level(opt_level)
        .cranelift_nan_canonicalization(true)
        .memory_reservation(1 << 32)
        .max_wasm_stack(STACK)
        .async_stack_size(2 * STACK);
    Engine::new(&config).unwrap()
}

/// Runs a test on a thread whose stack is large enough for [`STACK`].
pub fn on_large_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(2 * STACK)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap();
}

/// An instance under test.
pub struct Run {
    pub store: Store<()>,
    pub instance: Instance,
    pub fuel: i64,
}

/// How a call ended, in a form that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Results(Vec<String>),
    Trap(Trap),
    Stopped(i32),
}

impl Run {
    pub fn new(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        let module = Module::new(engine, wasm)?;
        let mut store = Store::new(engine, ());
        let mut linker = Linker::new(engine);
        linker.define_unknown_imports_as_default_values(&mut store, &module)?;
        let instance = linker.instantiate(&mut store, &module)?;
        Ok(Self {
            store,
            instance,
            fuel: i64::MAX / 2,
        })
    }

    pub fn global(&mut self, name: &str) -> Option<Global> {
        self.instance.get_global(&mut self.store, name)
    }

    pub fn get(&mut self, name: &str) -> i64 {
        match self.global(name).unwrap().get(&mut self.store) {
            Val::I32(value) => value.into(),
            Val::I64(value) => value,
            other => panic!("{name} is {other:?}"),
        }
    }

    fn set(&mut self, name: &str, value: Val) {
        if let Some(global) = self.global(name) {
            global.set(&mut self.store, value).unwrap();
        }
    }

    /// Calls as a host would: with the added globals set before.
    pub fn call(&mut self, name: &str, arguments: &[Val]) -> Outcome {
        self.set(names::FUEL, Val::I64(self.fuel));
        self.set(names::STOP, Val::I32(names::STOP_NONE));
        self.set(names::DEPTH, Val::I32(0));
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let mut results: Vec<Val> = function
            .ty(&self.store)
            .results()
            .map(|ty| zero(&ty))
            .collect();
        match function.call(&mut self.store, arguments, &mut results) {
            Ok(()) => {
                if self.global(names::STOP).is_some() {
                    assert_eq!(self.get(names::STOP), names::STOP_NONE.into());
                }
                if self.global(names::DEPTH).is_some() {
                    assert_eq!(
                        self.get(names::DEPTH),
                        0,
                        "{name} left the depth unbalanced"
                    );
                }
                Outcome::Results(results.iter().map(show).collect())
            }
            Err(error) => {
                let trap = *error
                    .downcast_ref::<Trap>()
                    .unwrap_or_else(|| panic!("{name} failed: {error:?}"));
                let stop = match self.global(names::STOP) {
                    Some(_) => self.get(names::STOP) as i32,
                    None => names::STOP_NONE,
                };
                if stop == names::STOP_NONE {
                    Outcome::Trap(trap)
                } else {
                    assert_eq!(trap, Trap::UnreachableCodeReached);
                    Outcome::Stopped(stop)
                }
            }
        }
    }

    /// Fuel that the last call used.
    pub fn used(&mut self) -> i64 {
        self.fuel - self.get(names::FUEL)
    }

    pub fn memory(&mut self, name: &str) -> Vec<u8> {
        match self.instance.get_memory(&mut self.store, name) {
            Some(memory) => memory.data(&self.store).to_vec(),
            None => Vec::new(),
        }
    }

    /// The functions that the module itself exports and that can be called with numbers.
    pub fn functions(&mut self) -> Vec<(String, Vec<Val>)> {
        let exports: Vec<(String, Extern)> = self
            .instance
            .exports(&mut self.store)
            .map(|export| (export.name().to_string(), export.into_extern()))
            .collect();
        let mut functions = Vec::new();
        for (name, export) in exports {
            if let Extern::Func(function) = export
                && !name.starts_with(names::PREFIX)
            {
                let params: Vec<Val> = function
                    .ty(&self.store)
                    .params()
                    .map(|ty| zero(&ty))
                    .collect();
                functions.push((name, params));
            }
        }
        functions
    }

    /// All that the module's own exported globals hold.
    pub fn globals(&mut self) -> Vec<String> {
        let exports: Vec<(String, Global)> = self
            .instance
            .exports(&mut self.store)
            .filter_map(|export| Some((export.name().to_string(), export.into_global()?)))
            .filter(|(name, _)| !name.starts_with(names::PREFIX))
            .collect();
        exports
            .iter()
            .map(|(_, global)| show(&global.get(&mut self.store)))
            .collect()
    }
}

pub fn rewrite(wasm: &[u8], options: &Options) -> Instrumented {
    instrument(wasm, options).unwrap_or_else(|error| panic!("{error}"))
}

fn zero(ty: &ValType) -> Val {
    match ty {
        ValType::I32 => Val::I32(0),
        ValType::I64 => Val::I64(0),
        ValType::F32 => Val::F32(0),
        ValType::F64 => Val::F64(0),
        ValType::V128 => Val::V128(0_u128.into()),
        ValType::Ref(ty) => Val::null_ref(ty.heap_type()),
    }
}

fn show(value: &Val) -> String {
    match value {
        Val::I32(value) => format!("i32 {value}"),
        Val::I64(value) => format!("i64 {value}"),
        Val::F32(bits) => format!("f32 {bits:#x}"),
        Val::F64(bits) => format!("f64 {bits:#x}"),
        Val::V128(value) => format!("v128 {:#x}", value.as_u128()),
        Val::FuncRef(reference) => format!("funcref {}", reference.is_some()),
        Val::ExternRef(reference) => format!("externref {}", reference.is_some()),
        other => panic!("no value of the supported proposals: {other:?}"),
    }
}
