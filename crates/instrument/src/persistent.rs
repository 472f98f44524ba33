//! Persistent mode: a state that outlives the instance.
//!
//! The state is memory 0 and the mutable globals. A host that has them instantiates the module and
//! puts them in place, so instantiation itself must not write to memory: active data segments
//! become passive, and [`names::INIT`](crate::names::INIT) writes them, in order, trapping where
//! instantiation would have. (Tables aren't state: active element segments stay, and fill them in
//! each instance.)
//!
//! At instantiation an active segment is dropped once it is written, so that to the module's own
//! `memory.init` and `data.drop` it is an empty one. As it is not dropped here, those instructions
//! are given an empty passive segment instead.

use crate::added::{Added, Routine};
use crate::error::InstrumentError;
use crate::names;
use crate::validate::Source;
use wasm_encoder::{DataSection, Encode, Function, Instruction, ValType};
use wasmparser::{DataKind, ValType as SourceType};

/// The types of the mutable globals and their indices, in index order.
pub(crate) fn mutable_globals(
    source: &Source<'_>,
) -> Result<Vec<(u32, SourceType)>, InstrumentError> {
    let mut globals = Vec::new();
    for (index, global) in source.global_space.iter().enumerate() {
        if global.ty.mutable {
            let (index, ty) = (index as u32, global.ty.content_type);
            if matches!(ty, SourceType::Ref(_)) {
                return Err(InstrumentError::ReferenceGlobal { index, ty });
            }
            globals.push((index, ty));
        }
    }
    Ok(globals)
}

/// Fails unless the module defines exactly one memory and imports none.
pub(crate) fn check_memory(source: &Source<'_>) -> Result<(), InstrumentError> {
    let imported = source
        .memory_space
        .iter()
        .filter(|memory| memory.imported)
        .count() as u32;
    let defined = source.memory_space.len() as u32 - imported;
    if (defined, imported) != (1, 0) {
        return Err(InstrumentError::MemoryCount { defined, imported });
    }
    Ok(())
}

/// Adds the function that writes the active data segments, and gives its index.
pub(crate) fn add_init(source: &Source<'_>, added: &mut Added) -> u32 {
    let mut code = Vec::new();
    for (index, data) in source.data.iter().enumerate() {
        let DataKind::Active {
            memory_index,
            offset_expr,
        } = &data.kind
        else {
            continue;
        };
        let reader = offset_expr.get_binary_reader();
        let range = reader.range();
        let expression = source.bytes.get(range.start..range.end).unwrap_or_default();
        // Without its end, a constant expression is a piece of code.
        let offset = expression
            .split_last()
            .map(|(_, offset)| offset)
            .unwrap_or_default();
        let length = data.data.len() as i32;
        if added.cards.is_some() {
            let mark = added.routine(Routine::Mark);
            code.extend_from_slice(offset);
            if !source.memory64(*memory_index) {
                Instruction::I64ExtendI32U.encode(&mut code);
            }
            Instruction::I64Const(length.into()).encode(&mut code);
            Instruction::Call(mark).encode(&mut code);
        }
        code.extend_from_slice(offset);
        Instruction::I32Const(0).encode(&mut code);
        Instruction::I32Const(length).encode(&mut code);
        Instruction::MemoryInit {
            mem: *memory_index,
            data_index: index as u32,
        }
        .encode(&mut code);
    }
    Instruction::End.encode(&mut code);
    let mut function = Function::new(std::iter::empty::<(u32, ValType)>());
    function.raw(code);
    let ty = added.ty(&[], &[]);
    added.function(names::INIT, ty, function)
}

/// The module's data segments, all passive, and the empty one if it is needed.
pub(crate) fn passive_data(source: &Source<'_>, added: &Added) -> DataSection {
    let mut section = DataSection::new();
    for data in &source.data {
        section.passive(data.data.iter().copied());
    }
    if added.empty_data.is_some() {
        section.passive([]);
    }
    section
}
