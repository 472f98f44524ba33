//! Cards: which pages of memory 0 were written.
//!
//! A second memory holds one byte for each page of 4 KiB of memory 0. Before a store, the bytes of
//! its first and its last page are set to 1; before a bulk instruction, those of all its pages. A
//! card may be set although the page isn't written (the store traps, say), never the other way
//! round.
//!
//! The cards never trap where the store itself would not. With 32-bit addresses the highest address
//! plus the largest offset stay below 2^33 + 16, and there are cards for that, so that an engine
//! that reserves 4 GiB for a 32-bit memory needs no check. With 64-bit addresses there are cards
//! for all that memory 0 can grow to; an address beyond (or one that wraps around) either sets some
//! card or traps as out of bounds, as the store after it would.

use crate::error::InstrumentError;
use crate::options::CardOptions;
use crate::report::CardReport;
use crate::validate::Source;
use wasm_encoder::{Encode, Function, Instruction, MemArg, MemoryType, ValType};
use wasmparser::Operator;

/// A card covers a page of so many bytes, as a power of two: 4 KiB.
pub const CARD_BYTES_LOG2: u32 = 12;

/// A page of 64 KiB of cards covers so many pages of 64 KiB.
const PAGES_PER_CARD_PAGE: u64 = 1 << CARD_BYTES_LOG2;

/// Pages of cards for all that a 32-bit address and a 32-bit offset can reach.
const CARD_PAGES_32: u64 = (1 << (33 - CARD_BYTES_LOG2 - 16)) + 1;

/// Where the cards are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cards {
    /// Index of their memory.
    memory: u32,
    /// Its size in pages of 64 KiB.
    pages: u64,
    /// The maximum, in pages of 64 KiB, that memory 0 may declare.
    pub(crate) maximum: u64,
}

impl Cards {
    pub(crate) fn new(source: &Source<'_>, options: &CardOptions) -> Result<Self, InstrumentError> {
        let Some(memory) = source.memory_space.first() else {
            return Err(InstrumentError::NoMemoryToTrack {
                reason: "has no memory",
            });
        };
        if memory.imported {
            return Err(InstrumentError::NoMemoryToTrack {
                reason: "imports it",
            });
        }
        let (pages, maximum) = if memory.ty.memory64 {
            // One more page than needed: a store may reach beyond the last byte. At most 2^32
            // bytes of cards fit in their 32-bit memory.
            let limit = (options.memory_limit >> 16).min((1 << 28) - PAGES_PER_CARD_PAGE);
            (limit.div_ceil(PAGES_PER_CARD_PAGE) + 1, limit)
        } else {
            (CARD_PAGES_32, 1 << 16)
        };
        if memory.ty.initial > maximum {
            let minimum = memory.ty.initial;
            return Err(InstrumentError::CardLimit {
                minimum,
                limit: maximum,
            });
        }
        Ok(Self {
            memory: source.memory_space.len() as u32,
            pages,
            maximum,
        })
    }

    pub(crate) fn report(self) -> CardReport {
        CardReport {
            memory: self.memory,
            pages: self.pages,
        }
    }

    pub(crate) fn memory_type(self) -> MemoryType {
        MemoryType {
            minimum: self.pages,
            maximum: Some(self.pages),
            memory64: false,
            shared: false,
            page_size_log2: None,
        }
    }

    fn card(self) -> MemArg {
        MemArg {
            offset: 0,
            align: 0,
            memory_index: self.memory,
        }
    }
}

/// A store to memory 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) value: ValType,
    bytes: u64,
    offset: u64,
}

impl Store {
    /// The instruction as a store to memory 0, if it is one.
    pub(crate) fn of(operator: &Operator<'_>) -> Option<Self> {
        use Operator as O;
        let (memarg, value, bytes) = match operator {
            O::I32Store8 { memarg } => (memarg, ValType::I32, 1),
            O::I32Store16 { memarg } => (memarg, ValType::I32, 2),
            O::I32Store { memarg } => (memarg, ValType::I32, 4),
            O::I64Store8 { memarg } => (memarg, ValType::I64, 1),
            O::I64Store16 { memarg } => (memarg, ValType::I64, 2),
            O::I64Store32 { memarg } => (memarg, ValType::I64, 4),
            O::I64Store { memarg } => (memarg, ValType::I64, 8),
            O::F32Store { memarg } => (memarg, ValType::F32, 4),
            O::F64Store { memarg } => (memarg, ValType::F64, 8),
            O::V128Store { memarg } => (memarg, ValType::V128, 16),
            O::V128Store8Lane { memarg, .. } => (memarg, ValType::V128, 1),
            O::V128Store16Lane { memarg, .. } => (memarg, ValType::V128, 2),
            O::V128Store32Lane { memarg, .. } => (memarg, ValType::V128, 4),
            O::V128Store64Lane { memarg, .. } => (memarg, ValType::V128, 8),
            _ => return None,
        };
        (memarg.memory == 0).then_some(Self {
            value,
            bytes,
            offset: memarg.offset,
        })
    }

    /// Writes the code before the store: it takes address and value off the stack, marks, and puts
    /// them back.
    pub(crate) fn mark(
        self,
        cards: Cards,
        memory64: bool,
        address: u32,
        value: u32,
        code: &mut Vec<u8>,
    ) {
        Instruction::LocalSet(value).encode(code);
        Instruction::LocalSet(address).encode(code);
        self.mark_byte(cards, memory64, address, 0, code);
        if self.bytes > 1 {
            self.mark_byte(cards, memory64, address, self.bytes - 1, code);
        }
        Instruction::LocalGet(address).encode(code);
        Instruction::LocalGet(value).encode(code);
    }

    fn mark_byte(self, cards: Cards, memory64: bool, address: u32, nth: u64, code: &mut Vec<u8>) {
        Instruction::LocalGet(address).encode(code);
        if !memory64 {
            Instruction::I64ExtendI32U.encode(code);
        }
        let offset = self.offset.wrapping_add(nth);
        if offset != 0 {
            Instruction::I64Const(offset as i64).encode(code);
            Instruction::I64Add.encode(code);
        }
        Instruction::I64Const(CARD_BYTES_LOG2.into()).encode(code);
        Instruction::I64ShrU.encode(code);
        Instruction::I32WrapI64.encode(code);
        Instruction::I32Const(1).encode(code);
        Instruction::I32Store8(cards.card()).encode(code);
    }
}

/// Locals that hold a bulk instruction's operands while its pages are marked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BulkLocals {
    pub(crate) destination: u32,
    /// Source address or value.
    pub(crate) middle: u32,
    pub(crate) length: u32,
    /// The length has 64 bits.
    pub(crate) wide_length: bool,
}

/// Writes the code before a bulk instruction that writes to memory 0: it takes the three operands
/// off the stack, marks, and puts them back.
pub(crate) fn mark_bulk(mark: u32, memory64: bool, locals: BulkLocals, code: &mut Vec<u8>) {
    Instruction::LocalSet(locals.length).encode(code);
    Instruction::LocalSet(locals.middle).encode(code);
    Instruction::LocalSet(locals.destination).encode(code);
    Instruction::LocalGet(locals.destination).encode(code);
    if !memory64 {
        Instruction::I64ExtendI32U.encode(code);
    }
    Instruction::LocalGet(locals.length).encode(code);
    if !locals.wide_length {
        Instruction::I64ExtendI32U.encode(code);
    }
    Instruction::Call(mark).encode(code);
    Instruction::LocalGet(locals.destination).encode(code);
    Instruction::LocalGet(locals.middle).encode(code);
    Instruction::LocalGet(locals.length).encode(code);
}

/// A function that takes an address and a length and marks all pages from the first byte's to the
/// last byte's. Where their sum wraps around it traps as out of bounds or marks something, and the
/// bulk instruction after it traps.
pub(crate) fn mark_routine(cards: Option<Cards>) -> Function {
    let mut function = Function::new([(1, ValType::I64)]);
    if let Some(cards) = cards {
        function
            .instructions()
            .local_get(1)
            .i64_eqz()
            .if_(wasm_encoder::BlockType::Empty)
            .return_()
            .end()
            // First card.
            .local_get(0)
            .i64_const(CARD_BYTES_LOG2.into())
            .i64_shr_u()
            .local_tee(2)
            .i32_wrap_i64()
            .i32_const(1)
            // Last card, less the first, plus one.
            .local_get(0)
            .local_get(1)
            .i64_add()
            .i64_const(1)
            .i64_sub()
            .i64_const(CARD_BYTES_LOG2.into())
            .i64_shr_u()
            .local_get(2)
            .i64_sub()
            .i64_const(1)
            .i64_add()
            .i32_wrap_i64()
            .memory_fill(cards.memory);
    }
    function.instructions().end();
    function
}
