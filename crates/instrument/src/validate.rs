//! Validation, and the outline of a module that the rewriting starts from.

use crate::error::InstrumentError;
use crate::names;
use crate::options::Limits;
use wasmparser::{
    CustomSectionReader, Data, DataKind, Encoding, FromReader, FuncToValidate, FuncType,
    FunctionBody, GlobalType, MemoryType, Parser, Payload, SectionLimited, TableType, TypeRef,
    ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

/// The proposals that a module may use: WebAssembly 2.0 (mutable globals, sign extension,
/// saturating conversions, multiple values, bulk memory, reference types, SIMD), tail calls,
/// 64-bit memories and tables, several memories, extended constant expressions.
///
/// Not threads and relaxed SIMD, whose results can differ from run to run; not garbage
/// collection, exceptions and components.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST);

/// A section whose entries are copied as they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries<'a> {
    pub(crate) count: u32,
    /// The entries, without their number.
    pub(crate) bytes: &'a [u8],
}

/// An item of an index space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<T> {
    pub(crate) ty: T,
    pub(crate) imported: bool,
}

/// The outline of a valid module, but for its function bodies, which are yet to be validated.
#[derive(Default)]
pub(crate) struct Source<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) types: Entries<'a>,
    pub(crate) imports: Entries<'a>,
    pub(crate) functions: Entries<'a>,
    pub(crate) tables: Entries<'a>,
    pub(crate) memories: Entries<'a>,
    pub(crate) globals: Entries<'a>,
    pub(crate) exports: Entries<'a>,
    pub(crate) elements: Entries<'a>,
    pub(crate) start: Option<u32>,
    pub(crate) data_count: Option<u32>,
    pub(crate) data_entries: Entries<'a>,
    pub(crate) data: Vec<Data<'a>>,
    pub(crate) bodies: Vec<(FuncToValidate<ValidatorResources>, FunctionBody<'a>)>,
    pub(crate) name_section: Option<CustomSectionReader<'a>>,
    pub(crate) type_space: Vec<FuncType>,
    /// For each function, imported ones first, the index of its type.
    pub(crate) function_space: Vec<u32>,
    pub(crate) table_space: Vec<Item<TableType>>,
    pub(crate) memory_space: Vec<Item<MemoryType>>,
    pub(crate) global_space: Vec<Item<GlobalType>>,
}

impl<'a> Source<'a> {
    /// Validates everything but the function bodies.
    pub(crate) fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, InstrumentError> {
        let magic = bytes.get(..4).unwrap_or(bytes);
        if magic != b"\0asm" {
            return Err(InstrumentError::NotWasm {
                found: magic.to_vec(),
            });
        }
        limit("bytes", bytes.len() as u64, limits.module_bytes)?;
        let mut source = Source {
            bytes,
            ..Source::default()
        };
        let mut validator = Validator::new_with_features(FEATURES);
        let mut parser = Parser::new(0);
        parser.set_features(FEATURES);
        for payload in parser.parse_all(bytes) {
            let payload = payload?;
            if let Payload::Version {
                encoding: Encoding::Component,
                ..
            } = payload
            {
                return Err(InstrumentError::Component);
            }
            source.check_counts(&payload, limits)?;
            if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
                source.bodies.push((function, body));
            } else {
                source.keep(payload)?;
            }
        }
        Ok(source)
    }

    fn check_counts(&self, payload: &Payload<'_>, limits: &Limits) -> Result<(), InstrumentError> {
        match payload {
            Payload::TypeSection(section) => limit("types", section.count().into(), limits.types),
            Payload::ImportSection(section) => {
                limit("imports", section.count().into(), limits.imports)
            }
            Payload::FunctionSection(section) => {
                limit("functions", section.count().into(), limits.functions)
            }
            Payload::GlobalSection(section) => {
                limit("globals", section.count().into(), limits.globals)
            }
            Payload::ExportSection(section) => {
                limit("exports", section.count().into(), limits.exports)
            }
            _ => Ok(()),
        }
    }

    fn keep(&mut self, payload: Payload<'a>) -> Result<(), InstrumentError> {
        match payload {
            Payload::TypeSection(section) => {
                self.types = entries(self.bytes, &section);
                for ty in section.into_iter_err_on_gc_types() {
                    self.type_space.push(ty?);
                }
            }
            Payload::ImportSection(section) => {
                self.imports = entries(self.bytes, &section);
                for import in section.into_imports() {
                    let import = import?;
                    for name in [import.module, import.name] {
                        reserve("import", name)?;
                    }
                    match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.function_space.push(ty),
                        TypeRef::Table(ty) => self.table_space.push(Item { ty, imported: true }),
                        TypeRef::Memory(ty) => self.memory_space.push(Item { ty, imported: true }),
                        TypeRef::Global(ty) => self.global_space.push(Item { ty, imported: true }),
                        TypeRef::Tag(_) => {}
                    }
                }
            }
            Payload::FunctionSection(section) => {
                self.functions = entries(self.bytes, &section);
                for ty in section {
                    self.function_space.push(ty?);
                }
            }
            Payload::TableSection(section) => {
                self.tables = entries(self.bytes, &section);
                for table in section {
                    self.table_space.push(Item {
                        ty: table?.ty,
                        imported: false,
                    });
                }
            }
            Payload::MemorySection(section) => {
                self.memories = entries(self.bytes, &section);
                for memory in section {
                    self.memory_space.push(Item {
                        ty: memory?,
                        imported: false,
                    });
                }
            }
            Payload::GlobalSection(section) => {
                self.globals = entries(self.bytes, &section);
                for global in section {
                    self.global_space.push(Item {
                        ty: global?.ty,
                        imported: false,
                    });
                }
            }
            Payload::ExportSection(section) => {
                self.exports = entries(self.bytes, &section);
                for export in section {
                    reserve("export", export?.name)?;
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => self.elements = entries(self.bytes, &section),
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::DataSection(section) => {
                self.data_entries = entries(self.bytes, &section);
                for data in section {
                    self.data.push(data?);
                }
            }
            // Engines read the first name section and nothing else here; the other custom
            // sections aren't needed at run time.
            Payload::CustomSection(section)
                if section.name() == "name" && self.name_section.is_none() =>
            {
                self.name_section = Some(section);
            }
            _ => {}
        }
        Ok(())
    }

    /// The number of functions that are imported.
    pub(crate) fn imported_functions(&self) -> usize {
        self.function_space
            .len()
            .saturating_sub(self.functions.count as usize)
    }

    /// The signature of the function with this index.
    pub(crate) fn signature(&self, function: usize) -> Option<(u32, &FuncType)> {
        let ty = *self.function_space.get(function)?;
        Some((ty, self.type_space.get(ty as usize)?))
    }

    /// Whether memory `index` has 64-bit addresses.
    pub(crate) fn memory64(&self, index: u32) -> bool {
        self.memory_space
            .get(index as usize)
            .is_some_and(|memory| memory.ty.memory64)
    }

    /// Whether table `index` has 64-bit indices.
    pub(crate) fn table64(&self, index: u32) -> bool {
        self.table_space
            .get(index as usize)
            .is_some_and(|table| table.ty.table64)
    }

    /// Whether data segment `index` is written at instantiation.
    pub(crate) fn is_active_data(&self, index: u32) -> bool {
        self.data
            .get(index as usize)
            .is_some_and(|data| matches!(data.kind, DataKind::Active { .. }))
    }
}

fn entries<'a, T: FromReader<'a>>(bytes: &'a [u8], section: &SectionLimited<'a, T>) -> Entries<'a> {
    let start = section.original_position();
    Entries {
        count: section.count(),
        bytes: bytes.get(start..section.range().end).unwrap_or_default(),
    }
}

fn reserve(kind: &'static str, name: &str) -> Result<(), InstrumentError> {
    if name.starts_with(names::PREFIX) {
        return Err(InstrumentError::ReservedName {
            kind,
            name: name.to_string(),
        });
    }
    Ok(())
}

/// Fails if there is more than allowed.
pub(crate) fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), InstrumentError> {
    if value > limit {
        return Err(InstrumentError::LimitExceeded { what, value, limit });
    }
    Ok(())
}
