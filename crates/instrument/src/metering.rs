//! Fuel: the code that charges it.
//!
//! A function is cut into straight-line blocks. Each block charges the prices of all its
//! instructions before its first one runs. Fuel is tested where a function is entered and where a
//! loop starts over, so between two tests a program can only go forward; it is also tested before
//! a bulk instruction, which is charged in proportion to its length. How far a program can
//! overrun its fuel is thus bounded by the size of its functions.
//!
//! A function without calls, tail calls and loops that costs [`UNTESTED_MAX`](crate::costs::UNTESTED_MAX) at
//! most isn't tested at its entry.

use crate::added::{Added, Rate};
use crate::costs;
use crate::names;
use wasm_encoder::{BlockType, Encode, Function, Instruction, ValType};

/// Writes the code that charges `cost` and, if asked, tests what is left.
pub(crate) fn charge(added: &Added, cost: u64, test: bool, code: &mut Vec<u8>) {
    let (Some(fuel), Some(stop)) = (added.fuel, added.stop) else {
        return;
    };
    if cost > 0 {
        Instruction::GlobalGet(fuel).encode(code);
        // A function has fewer than 2^23 bytes, so its price fits.
        Instruction::I64Const(cost as i64).encode(code);
        Instruction::I64Sub.encode(code);
        Instruction::GlobalSet(fuel).encode(code);
    }
    if test {
        test_fuel(fuel, stop, code);
    }
}

fn test_fuel(fuel: u32, stop: u32, code: &mut Vec<u8>) {
    Instruction::GlobalGet(fuel).encode(code);
    Instruction::I64Const(0).encode(code);
    Instruction::I64LtS.encode(code);
    stop_if(stop, names::STOP_FUEL, code);
}

/// Writes the code that stops the program if the `i32` on the stack isn't 0.
pub(crate) fn stop_if(stop: u32, reason: i32, code: &mut Vec<u8>) {
    Instruction::If(BlockType::Empty).encode(code);
    Instruction::I32Const(reason).encode(code);
    Instruction::GlobalSet(stop).encode(code);
    Instruction::Unreachable.encode(code);
    Instruction::End.encode(code);
}

/// A function that takes a bulk instruction's length, charges for it, and gives it back.
///
/// No product or difference overflows: a length of bytes is divided by 8, the other lengths are
/// capped, and after each charge the program stops if its fuel is below 0.
pub(crate) fn charge_routine(added: &Added, rate: Rate, wide: bool) -> Function {
    let mut code = Vec::new();
    if let (Some(fuel), Some(stop)) = (added.fuel, added.stop) {
        Instruction::GlobalGet(fuel).encode(&mut code);
        length(wide, &mut code);
        if let Some(cap) = rate.cap() {
            Instruction::I64Const(cap as i64).encode(&mut code);
            length(wide, &mut code);
            Instruction::I64Const(cap as i64).encode(&mut code);
            Instruction::I64LtU.encode(&mut code);
            Instruction::Select.encode(&mut code);
        }
        match rate {
            Rate::Bytes => {
                Instruction::I64Const(costs::BULK_BYTES_PER_UNIT_LOG2.into()).encode(&mut code);
                Instruction::I64ShrU.encode(&mut code);
            }
            Rate::Elements => {
                Instruction::I64Const(costs::TABLE_ELEMENT as i64).encode(&mut code);
                Instruction::I64Mul.encode(&mut code);
            }
            Rate::Pages => {
                Instruction::I64Const(costs::MEMORY_PAGE as i64).encode(&mut code);
                Instruction::I64Mul.encode(&mut code);
            }
        }
        Instruction::I64Sub.encode(&mut code);
        Instruction::GlobalSet(fuel).encode(&mut code);
        test_fuel(fuel, stop, &mut code);
    }
    Instruction::LocalGet(0).encode(&mut code);
    Instruction::End.encode(&mut code);
    let mut function = Function::new(std::iter::empty::<(u32, ValType)>());
    function.raw(code);
    function
}

fn length(wide: bool, code: &mut Vec<u8>) {
    Instruction::LocalGet(0).encode(code);
    if !wide {
        Instruction::I64ExtendI32U.encode(code);
    }
}
