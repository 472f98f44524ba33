//! The rewriting of a function's body, after its plan: what isn't edited is copied as it is.

use crate::added::{Added, Routine};
use crate::cards::{self, BulkLocals};
use crate::error::InstrumentError;
use crate::plan::{EditKind, Plan};
use crate::recursion;
use crate::validate::Source;
use crate::{metering, recursion::frame_units};
use std::collections::HashMap;
use wasm_encoder::{BlockType, Encode, Instruction, ValType};
use wasmparser::FunctionBody;

/// The largest body of a function that engines accept: wasmparser's `MAX_WASM_FUNCTION_SIZE`, which
/// is the JavaScript embedding's limit, too.
pub(crate) const FUNCTION_BYTES_MAX: usize = 7_654_321;

/// Rewrites the functions of a module one after another.
pub(crate) struct Rewriter<'a, 'o> {
    source: &'o Source<'a>,
    pub(crate) added: Added,
    /// For each type with several results, the type of a block with these results.
    block_types: HashMap<u32, u32>,
}

/// Locals added to a function: what they hold is theirs from one edit to the next.
#[derive(Default)]
struct Scratch {
    before: u32,
    added: Vec<(Slot, ValType)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Address,
    Value,
    Length,
}

impl Scratch {
    fn local(&mut self, slot: Slot, ty: ValType) -> u32 {
        let known = self.added.iter().position(|local| *local == (slot, ty));
        let position = known.unwrap_or_else(|| {
            self.added.push((slot, ty));
            self.added.len() - 1
        });
        self.before + position as u32
    }
}

impl<'a, 'o> Rewriter<'a, 'o> {
    pub(crate) fn new(source: &'o Source<'a>, added: Added) -> Self {
        Self {
            source,
            added,
            block_types: HashMap::new(),
        }
    }

    /// The body of function `index` with `plan`'s edits made, without its size.
    pub(crate) fn rewrite(
        &mut self,
        index: usize,
        body: &FunctionBody<'_>,
        plan: &Plan,
    ) -> Result<Vec<u8>, InstrumentError> {
        let units = frame_units(plan.slots, plan.instructions);
        let counts = self.added.depth.is_some() && (plan.calls || units > 1);
        let mut scratch = Scratch {
            before: plan.locals,
            ..Scratch::default()
        };
        let start = body.get_operators_reader()?.original_position();
        let mut code = Vec::with_capacity(2 * body.as_bytes().len());
        let mut copied = start;
        let mut entered = !counts;
        let results = if counts {
            self.block_type(index)
        } else {
            BlockType::Empty
        };
        for edit in &plan.edits {
            let entry = matches!(edit.kind, EditKind::Charge { .. }) && edit.at == start;
            if !entered && !entry {
                recursion::enter(&self.added, units, results, &mut code);
                entered = true;
            }
            code.extend_from_slice(self.copy(copied, edit.at));
            copied = edit.end;
            match edit.kind {
                EditKind::Return { .. } | EditKind::TailCall if !counts => copied = edit.at,
                EditKind::Charge {
                    cost,
                    test,
                    reachable,
                } => {
                    if reachable {
                        metering::charge(&self.added, cost, test, &mut code);
                    }
                }
                EditKind::ChargeLength { rate, wide } => {
                    let routine = self.added.routine(Routine::Charge { rate, wide });
                    Instruction::Call(routine).encode(&mut code);
                }
                EditKind::Return { nesting } => Instruction::Br(nesting).encode(&mut code),
                EditKind::TailCall => recursion::leave(&self.added, units, &mut code),
                EditKind::InitFromDropped { memory } => {
                    let data_index = self.added.empty_data(self.source);
                    Instruction::MemoryInit {
                        mem: memory,
                        data_index,
                    }
                    .encode(&mut code);
                }
                EditKind::DropDropped => {
                    let data_index = self.added.empty_data(self.source);
                    Instruction::DataDrop(data_index).encode(&mut code);
                }
                EditKind::Store(store) => {
                    if let Some(cards) = self.added.cards {
                        let memory64 = self.source.memory64(0);
                        let address = scratch.local(Slot::Address, address_type(memory64));
                        let value = scratch.local(Slot::Value, store.value);
                        store.mark(cards, memory64, address, value, &mut code);
                    }
                }
                EditKind::BulkStore {
                    middle,
                    wide_length,
                } => {
                    let memory64 = self.source.memory64(0);
                    let locals = BulkLocals {
                        destination: scratch.local(Slot::Address, address_type(memory64)),
                        middle: scratch.local(Slot::Value, middle),
                        length: scratch.local(Slot::Length, address_type(wide_length)),
                        wide_length,
                    };
                    let mark = self.added.routine(Routine::Mark);
                    cards::mark_bulk(mark, memory64, locals, &mut code);
                }
                EditKind::End => {
                    if counts {
                        Instruction::End.encode(&mut code);
                        recursion::leave(&self.added, units, &mut code);
                    }
                    Instruction::End.encode(&mut code);
                }
            }
        }
        let mut rewritten = self.locals(body, start, &scratch)?;
        rewritten.append(&mut code);
        check_size(index, rewritten.len())?;
        Ok(rewritten)
    }

    fn copy(&self, from: usize, to: usize) -> &'a [u8] {
        self.source.bytes.get(from..to).unwrap_or_default()
    }

    /// The declarations of the function's locals and of the added ones.
    fn locals(
        &self,
        body: &FunctionBody<'_>,
        code_start: usize,
        scratch: &Scratch,
    ) -> Result<Vec<u8>, InstrumentError> {
        let declarations = body.get_locals_reader()?;
        let first = declarations.original_position();
        let mut bytes = Vec::new();
        (declarations.get_count() as usize + scratch.added.len()).encode(&mut bytes);
        bytes.extend_from_slice(self.copy(first, code_start));
        for (_, ty) in &scratch.added {
            1_u32.encode(&mut bytes);
            ty.encode(&mut bytes);
        }
        Ok(bytes)
    }

    /// The type of a block that gives what function `index` gives.
    fn block_type(&mut self, index: usize) -> BlockType {
        let Some((ty, signature)) = self.source.signature(index) else {
            return BlockType::Empty;
        };
        match signature.results() {
            [] => BlockType::Empty,
            [result] => BlockType::Result(value_type(*result)),
            _ if signature.params().is_empty() => BlockType::FunctionType(ty),
            results => {
                let added = &mut self.added;
                let block = *self.block_types.entry(ty).or_insert_with(|| {
                    added.new_result_type(results.iter().copied().map(value_type).collect())
                });
                BlockType::FunctionType(block)
            }
        }
    }
}

fn address_type(wide: bool) -> ValType {
    if wide { ValType::I64 } else { ValType::I32 }
}

fn value_type(ty: wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        // The supported proposals have no other references.
        wasmparser::ValType::Ref(ty) if ty.is_extern_ref() => ValType::EXTERNREF,
        wasmparser::ValType::Ref(_) => ValType::FUNCREF,
    }
}

/// Fails if a function's body is larger than engines accept.
pub(crate) fn check_size(index: usize, size: usize) -> Result<(), InstrumentError> {
    if size > FUNCTION_BYTES_MAX {
        return Err(InstrumentError::FunctionTooLarge {
            function: index as u32,
            size: size as u64,
            limit: FUNCTION_BYTES_MAX as u64,
        });
    }
    Ok(())
}
