//! The recursion limit.
//!
//! The depth of the native stack differs between compilers, so it is no measure for a
//! deterministic limit. Instead each function adds its [`frame_units`] to a counter when it is
//! entered and takes them off when it is left, by whatever way; a tail call takes them off before
//! it leaves. A function that would go beyond the limit stops the program.
//!
//! **Which functions don't count.** A function that makes no call, other than tail calls, and
//! needs one unit. Of such functions at most one is active at any time, on top of the stack. So
//! the native stack is bounded by the frames that the limit allows, one more, and the host's own.
//!
//! **What a unit covers**: 64 stack slots of 8 bytes (locals and the most operands held at once)
//! or 4,096 instructions, as a compiler may keep the value of an instruction in a slot of its own
//! for longer than the source does.

use crate::added::Added;
use crate::metering::stop_if;
use crate::names;
use wasm_encoder::{BlockType, Encode, Instruction};

/// The recursion limit to use where nothing else is wanted, in units.
pub const RECURSION_LIMIT: u32 = 10_000;

/// The version of [`frame_units`] and of the rule which functions count.
pub const RECURSION_VERSION: u32 = 1;

/// Stack slots that one unit covers.
const SLOTS_PER_UNIT: u64 = 64;

/// Instructions that one unit covers.
const INSTRUCTIONS_PER_UNIT: u64 = 4_096;

/// How many units of the recursion limit an active call of a function takes:
/// `1 + (slots - 1) / 64 + instructions / 4096`, rounded down (and the middle part 0 if there are no
/// slots). `slots` is the number of parameters, locals and most operands held at once, a vector
/// counted twice among parameters and locals.
pub fn frame_units(slots: u64, instructions: u64) -> u32 {
    let units = 1 + slots.saturating_sub(1) / SLOTS_PER_UNIT + instructions / INSTRUCTIONS_PER_UNIT;
    u32::try_from(units)
        .unwrap_or(u32::MAX)
        .min(i32::MAX as u32)
}

/// Writes the start of a function that counts: the counter, and the block around the body to which
/// a return becomes a branch.
pub(crate) fn enter(added: &Added, units: u32, results: BlockType, code: &mut Vec<u8>) {
    let (Some((depth, limit)), Some(stop)) = (added.depth, added.stop) else {
        return;
    };
    Instruction::GlobalGet(depth).encode(code);
    Instruction::I32Const(units as i32).encode(code);
    Instruction::I32Add.encode(code);
    Instruction::GlobalSet(depth).encode(code);
    Instruction::GlobalGet(depth).encode(code);
    Instruction::I32Const(limit as i32).encode(code);
    Instruction::I32GtU.encode(code);
    stop_if(stop, names::STOP_RECURSION, code);
    Instruction::Block(results).encode(code);
}

/// Writes the code that takes a function's units off. It leaves the operands alone.
pub(crate) fn leave(added: &Added, units: u32, code: &mut Vec<u8>) {
    let Some((depth, _)) = added.depth else {
        return;
    };
    Instruction::GlobalGet(depth).encode(code);
    Instruction::I32Const(units as i32).encode(code);
    Instruction::I32Sub.encode(code);
    Instruction::GlobalSet(depth).encode(code);
}
