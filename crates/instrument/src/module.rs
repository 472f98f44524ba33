//! The rewriting of a whole module, section by section.

use crate::added::{Added, count_and_copy};
use crate::cards::Cards;
use crate::error::InstrumentError;
use crate::name_section::name_section;
use crate::names;
use crate::options::Options;
use crate::persistent;
use crate::plan::plan;
use crate::report::{Instrumented, MemoryReport, Report};
use crate::rewrite::{Rewriter, check_size};
use crate::validate::{Entries, Source, limit};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, DataCountSection, Encode, ExportKind, MemorySection, Module, RawSection,
    SectionId, StartSection,
};
use wasmparser::{FuncValidatorAllocations, ValType};

/// Types that engines accept in a module: wasmparser's `MAX_WASM_TYPES`.
const TYPES_MAX: u64 = 1_000_000;

/// Validates a module and rewrites it.
///
/// The output is deterministic: it depends on the module and the options alone. It contains no
/// custom section but the names of the module and its functions.
///
/// ```
/// use lazaret_instrument::{Options, instrument};
///
/// // (module (func (export "run")))
/// let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x04\x01\x02\0\x0b";
/// let options = Options { metering: true, ..Options::default() };
/// let instrumented = instrument(module, &options)?;
/// assert_eq!(instrumented.report.functions, 1);
/// # Ok::<(), lazaret_instrument::InstrumentError>(())
/// ```
///
/// # Errors
///
/// The bytes are no valid core module, exceed a limit, or can't be rewritten as asked.
pub fn instrument(wasm: &[u8], options: &Options) -> Result<Instrumented, InstrumentError> {
    let mut source = Source::read(wasm, &options.limits)?;
    let globals = if options.persistent {
        persistent::check_memory(&source)?;
        persistent::mutable_globals(&source)?
    } else {
        Vec::new()
    };
    let cards = options
        .cards
        .as_ref()
        .map(|cards| Cards::new(&source, cards))
        .transpose()?;
    let mut report = report(&source, &globals, cards, options);

    let bodies = std::mem::take(&mut source.bodies);
    let added = Added::new(&source, options, cards);
    let mut rewriter = Rewriter::new(&source, added);
    let mut code = CodeSection::new();
    let mut allocations = FuncValidatorAllocations::default();
    let first = source.imported_functions();
    for (position, (function, body)) in bodies.into_iter().enumerate() {
        let mut validator = function.into_validator(allocations);
        let plan = plan(&source, options, &body, &mut validator)?;
        allocations = validator.into_allocations();
        report.instructions += plan.instructions;
        report.reusable_instance &= plan.changes_instance.is_none();
        report.changes_instance = report.changes_instance.or(plan.changes_instance);
        code.raw(&rewriter.rewrite(first + position, &body, &plan)?);
    }
    let mut added = rewriter.added;
    let init = options
        .persistent
        .then(|| persistent::add_init(&source, &mut added));
    for (position, function) in added.functions.iter().enumerate() {
        check_size(
            source.function_space.len() + position,
            function.body.byte_len(),
        )?;
        code.function(&function.body);
    }
    limit("types after the rewriting", added.type_count(), TYPES_MAX)?;

    let output = Output {
        source: &source,
        added: &added,
        cards,
        options,
    };
    let wasm = output.encode(&globals, init, &code);
    Ok(Instrumented { wasm, report })
}

fn report(
    source: &Source<'_>,
    globals: &[(u32, ValType)],
    cards: Option<Cards>,
    options: &Options,
) -> Report {
    let mut report = Report {
        globals: globals.iter().map(|(_, ty)| *ty).collect(),
        has_start: source.start.is_some(),
        memory: source.memory_space.first().map(|memory| MemoryReport {
            minimum: memory.ty.initial,
            maximum: maximum(memory.ty.maximum, cards),
            memory64: memory.ty.memory64,
            imported: memory.imported,
        }),
        cards: cards.map(Cards::report),
        functions: source.functions.count,
        // What the host gave and the module may change isn't ours to put back.
        reusable_instance: source.memory_space.len() <= 1
            && source.memory_space.iter().all(|memory| !memory.imported)
            && source.table_space.iter().all(|table| !table.imported)
            && source.global_space.iter().all(|global| {
                let kept = !global.imported && !matches!(global.ty.content_type, ValType::Ref(_));
                !global.ty.mutable || kept
            }),
        ..Report::default()
    };
    report.set_versions(options.metering, options.recursion_limit.is_some());
    report
}

/// The declared maximum of memory 0, lowered to what the cards cover.
fn maximum(declared: Option<u64>, cards: Option<Cards>) -> Option<u64> {
    match cards {
        Some(cards) => Some(declared.unwrap_or(cards.maximum).min(cards.maximum)),
        None => declared,
    }
}

struct Output<'a, 'o> {
    source: &'o Source<'a>,
    added: &'o Added,
    cards: Option<Cards>,
    options: &'o Options,
}

impl Output<'_, '_> {
    fn encode(&self, globals: &[(u32, ValType)], init: Option<u32>, code: &CodeSection) -> Vec<u8> {
        let source = self.source;
        let mut module = Module::new();
        raw(
            &mut module,
            SectionId::Type,
            &self.added.types_after(&source.types),
        );
        copy(&mut module, SectionId::Import, &source.imports);
        raw(
            &mut module,
            SectionId::Function,
            &self.added.functions_after(&source.functions),
        );
        copy(&mut module, SectionId::Table, &source.tables);
        self.memories(&mut module);
        raw(
            &mut module,
            SectionId::Global,
            &self.added.globals_after(&source.globals),
        );
        self.exports(&mut module, globals, init);
        if let (Some(function_index), false) = (source.start, self.lifts_start()) {
            module.section(&StartSection { function_index });
        }
        copy(&mut module, SectionId::Element, &source.elements);
        self.data_and_code(&mut module, code);
        module.section(&name_section(source, self.added));
        module.finish()
    }

    /// The start function would run before a host could give it fuel.
    fn lifts_start(&self) -> bool {
        self.options.metering || self.options.persistent
    }

    fn memories(&self, module: &mut Module) {
        let Some(cards) = self.cards else {
            copy(module, SectionId::Memory, &self.source.memories);
            return;
        };
        let mut section = MemorySection::new();
        for (index, memory) in self.source.memory_space.iter().enumerate() {
            if !memory.imported {
                // `RoundtripReencoder` has no error of its own and changes no memory type.
                let mut ty = match RoundtripReencoder.memory_type(memory.ty) {
                    Ok(ty) => ty,
                    Err(_) => continue,
                };
                if index == 0 {
                    ty.maximum = maximum(ty.maximum, self.cards);
                }
                section.memory(ty);
            }
        }
        section.memory(cards.memory_type());
        module.section(&section);
    }

    fn exports(&self, module: &mut Module, globals: &[(u32, ValType)], init: Option<u32>) {
        let mut exports = Vec::new();
        for (name, _, index) in &self.added.globals {
            exports.push((name.to_string(), ExportKind::Global, *index));
        }
        for (position, (index, _)) in globals.iter().enumerate() {
            exports.push((names::global_export(position), ExportKind::Global, *index));
        }
        if let Some(init) = init {
            exports.push((names::INIT.to_string(), ExportKind::Func, init));
        }
        if let (Some(start), true) = (self.source.start, self.lifts_start()) {
            exports.push((names::START.to_string(), ExportKind::Func, start));
        }
        if self.options.persistent || self.cards.is_some() {
            exports.push((names::MEMORY.to_string(), ExportKind::Memory, 0));
        }
        if let Some(cards) = self.cards {
            exports.push((
                names::CARDS.to_string(),
                ExportKind::Memory,
                cards.report().memory,
            ));
        }
        let mut bytes = count_and_copy(&self.source.exports, exports.len());
        for (name, kind, index) in exports {
            name.as_str().encode(&mut bytes);
            kind.encode(&mut bytes);
            index.encode(&mut bytes);
        }
        raw(module, SectionId::Export, &bytes);
    }

    fn data_and_code(&self, module: &mut Module, code: &CodeSection) {
        let source = self.source;
        let data = self
            .options
            .persistent
            .then(|| persistent::passive_data(source, self.added));
        let count = match &data {
            Some(data) => (!data.is_empty()).then_some(data.len()),
            None => source.data_count,
        };
        if let Some(count) = count {
            module.section(&DataCountSection { count });
        }
        if !code.is_empty() {
            module.section(code);
        }
        match &data {
            Some(data) if !data.is_empty() => {
                module.section(data);
            }
            Some(_) => {}
            None => copy(module, SectionId::Data, &source.data_entries),
        }
    }
}

fn copy(module: &mut Module, id: SectionId, entries: &Entries<'_>) {
    if entries.count > 0 {
        raw(module, id, &count_and_copy(entries, 0));
    }
}

/// Writes a section unless it is empty.
fn raw(module: &mut Module, id: SectionId, contents: &[u8]) {
    if contents != [0] {
        module.section(&RawSection {
            id: id as u8,
            data: contents,
        });
    }
}
