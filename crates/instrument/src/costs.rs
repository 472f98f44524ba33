//! The price of every instruction, in units of fuel.
//!
//! One unit is roughly one simple machine instruction, about 0.3 ns on the hardware of 2025.
//! The prices depend on the instruction alone, never on the engine, its optimisation level or
//! the machine, so that a computation costs the same everywhere. They are part of the contract
//! with a tenant: to change one, raise [`METERING_VERSION`].

use wasmparser::Operator;

/// The version of the prices and of the places where they are charged.
pub const METERING_VERSION: u32 = 1;

/// `memory.copy`, `memory.fill` and `memory.init` cost one unit for each full 8 bytes, on top of
/// the price in [`PRICES`].
pub const BULK_BYTES_PER_UNIT_LOG2: u32 = 3;

/// `table.copy`, `table.fill`, `table.init` and `table.grow` cost this for each element, on top of
/// the price in [`PRICES`]. The number of elements counts up to [`TABLE_ELEMENTS_MAX`].
pub const TABLE_ELEMENT: u64 = 2;

/// The number of elements up to which a bulk table instruction is charged: more than a host
/// should let any table have (WebAssembly's JavaScript embedding stops at 10,000,000), so a
/// larger number fails anyway; without the cap a product with a 64-bit number could overflow.
pub const TABLE_ELEMENTS_MAX: u64 = 1 << 24;

/// `memory.grow` costs this for each page of 64 KiB, on top of the price in [`PRICES`], whether
/// it succeeds or not. The number of pages counts up to [`MEMORY_PAGES_MAX`].
pub const MEMORY_PAGE: u64 = 16;

/// The number of pages (of 64 KiB: 4 GiB in all) up to which `memory.grow` is charged, so that a
/// program may ask for an absurd number and get its -1 without losing all its fuel.
pub const MEMORY_PAGES_MAX: u64 = 1 << 16;

/// A function without calls, tail calls and loops whose instructions cost no more than this together is
/// charged, but not tested, at its entry: what called it tests soon enough.
pub const UNTESTED_MAX: u64 = 256;

macro_rules! prices {
    ($($price:literal => { $($operator:ident)* })*) => {
        /// Every instruction with its fixed price, by the name that `wasmparser` gives it,
        /// cheapest first.
        pub const PRICES: &[(&str, u32)] = &[$($((stringify!($operator), $price)),*),*];

        /// The fixed price of an instruction; `None` if it belongs to no supported proposal.
        pub(crate) fn price(operator: &Operator<'_>) -> Option<u32> {
            Some(match operator {
                $($(Operator::$operator { .. } => $price,)*)*
                _ => return None,
            })
        }
    };
}

prices! {
    0 => {
        Nop Block Else End Drop
    }
    1 => {
        Unreachable Loop Br Return LocalGet LocalSet LocalTee GlobalGet GlobalSet I32Load
        I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U I64Load8S
        I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U I32Store I64Store F32Store
        F64Store I32Store8 I32Store16 I64Store8 I64Store16 I64Store32 I32Const I64Const
        F32Const F64Const I32Eqz I32Eq I32Ne I32LtS I32LtU I32GtS I32GtU I32LeS I32LeU
        I32GeS I32GeU I64Eqz I64Eq I64Ne I64LtS I64LtU I64GtS I64GtU I64LeS I64LeU I64GeS
        I64GeU I32Clz I32Ctz I32Popcnt I32Add I32Sub I32Mul I32And I32Or I32Xor I32Shl
        I32ShrS I32ShrU I32Rotl I32Rotr I64Clz I64Ctz I64Popcnt I64Add I64Sub I64Mul I64And
        I64Or I64Xor I64Shl I64ShrS I64ShrU I64Rotl I64Rotr F32Abs F32Neg F64Abs F64Neg
        I32WrapI64 I64ExtendI32S I64ExtendI32U I32ReinterpretF32 I64ReinterpretF64
        F32ReinterpretI32 F64ReinterpretI64 I32Extend8S I32Extend16S I64Extend8S
        I64Extend16S I64Extend32S RefNull RefIsNull V128Const I8x16Eq I8x16LtS I8x16GtS
        I16x8Eq I16x8LtS I16x8GtS I32x4Eq I32x4LtS I32x4GtS I64x2Eq F32x4Eq F32x4Lt F32x4Gt
        F32x4Le F32x4Ge F64x2Eq F64x2Lt F64x2Gt F64x2Le F64x2Ge V128Not V128And V128AndNot
        V128Or V128Xor I8x16Abs I8x16Neg I8x16NarrowI16x8S I8x16NarrowI16x8U I8x16Add
        I8x16AddSatS I8x16AddSatU I8x16Sub I8x16SubSatS I8x16SubSatU I8x16MinS I8x16MinU
        I8x16MaxS I8x16MaxU I8x16AvgrU I16x8Abs I16x8Neg I16x8NarrowI32x4S I16x8NarrowI32x4U
        I16x8ExtendLowI8x16S I16x8ExtendHighI8x16S I16x8ExtendLowI8x16U
        I16x8ExtendHighI8x16U I16x8Shl I16x8ShrS I16x8ShrU I16x8Add I16x8AddSatS
        I16x8AddSatU I16x8Sub I16x8SubSatS I16x8SubSatU I16x8MinS I16x8MinU I16x8MaxS
        I16x8MaxU I16x8AvgrU I32x4Abs I32x4Neg I32x4ExtendLowI16x8S I32x4ExtendHighI16x8S
        I32x4ExtendLowI16x8U I32x4ExtendHighI16x8U I32x4Shl I32x4ShrS I32x4ShrU I32x4Add
        I32x4Sub I32x4MinS I32x4MinU I32x4MaxS I32x4MaxU I64x2Neg I64x2ExtendLowI32x4S
        I64x2ExtendHighI32x4S I64x2ExtendLowI32x4U I64x2ExtendHighI32x4U I64x2Shl I64x2ShrU
        I64x2Add I64x2Sub F32x4Abs F32x4Neg F32x4PMin F32x4PMax F64x2Abs F64x2Neg F64x2PMin
        F64x2PMax
    }
    2 => {
        If BrIf Select MemorySize F32Eq F32Ne F32Lt F32Gt F32Le F32Ge F64Eq F64Ne F64Lt
        F64Gt F64Le F64Ge F32Add F32Sub F32Mul F32Copysign F64Add F64Sub F64Mul F64Copysign
        F32ConvertI32S F32ConvertI32U F32ConvertI64S F32ConvertI64U F32DemoteF64
        F64ConvertI32S F64ConvertI32U F64ConvertI64S F64ConvertI64U F64PromoteF32
        TypedSelect TypedSelectMulti TableSize V128Load V128Load8x8S V128Load8x8U
        V128Load16x4S V128Load16x4U V128Load32x2S V128Load32x2U V128Load8Splat
        V128Load16Splat V128Load32Splat V128Load64Splat V128Load32Zero V128Load64Zero
        V128Store V128Load8Lane V128Load16Lane V128Load32Lane V128Load64Lane V128Store8Lane
        V128Store16Lane V128Store32Lane V128Store64Lane I8x16ExtractLaneS I8x16ExtractLaneU
        I8x16ReplaceLane I16x8ExtractLaneS I16x8ExtractLaneU I16x8ReplaceLane
        I32x4ExtractLane I32x4ReplaceLane I64x2ExtractLane I64x2ReplaceLane F32x4ExtractLane
        F32x4ReplaceLane F64x2ExtractLane F64x2ReplaceLane I8x16Splat I16x8Splat I32x4Splat
        I64x2Splat F32x4Splat F64x2Splat I8x16Ne I8x16LtU I8x16GtU I8x16LeS I8x16LeU
        I8x16GeS I8x16GeU I16x8Ne I16x8LtU I16x8GtU I16x8LeS I16x8LeU I16x8GeS I16x8GeU
        I32x4Ne I32x4LtU I32x4GtU I32x4LeS I32x4LeU I32x4GeS I32x4GeU I64x2Ne I64x2LtS
        I64x2GtS I64x2LeS I64x2GeS F32x4Ne F64x2Ne V128Bitselect V128AnyTrue I8x16AllTrue
        I8x16Bitmask I16x8AllTrue I16x8Bitmask I32x4AllTrue I32x4Bitmask I64x2AllTrue
        I64x2Bitmask
    }
    3 => {
        F32Ceil F32Floor F32Trunc F32Nearest F64Ceil F64Floor F64Trunc F64Nearest
        I8x16Shuffle I8x16Swizzle I16x8ExtAddPairwiseI8x16S I16x8ExtAddPairwiseI8x16U
        I16x8Q15MulrSatS I16x8Mul I16x8ExtMulLowI8x16S I16x8ExtMulHighI8x16S
        I16x8ExtMulLowI8x16U I16x8ExtMulHighI8x16U I32x4ExtAddPairwiseI16x8S
        I32x4ExtAddPairwiseI16x8U I32x4Mul I32x4DotI16x8S I32x4ExtMulLowI16x8S
        I32x4ExtMulHighI16x8S I32x4ExtMulLowI16x8U I32x4ExtMulHighI16x8U
        I64x2ExtMulLowI32x4S I64x2ExtMulHighI32x4S I64x2ExtMulLowI32x4U
        I64x2ExtMulHighI32x4U F32x4Add F32x4Sub F32x4Mul F64x2Add F64x2Sub F64x2Mul
    }
    4 => {
        BrTable F32Min F32Max F64Min F64Max F32x4Ceil F32x4Floor F32x4Trunc F32x4Nearest
        F64x2Ceil F64x2Floor F64x2Trunc F64x2Nearest F32x4ConvertI32x4S F32x4ConvertI32x4U
        F64x2ConvertLowI32x4S F64x2ConvertLowI32x4U F32x4DemoteF64x2Zero
        F64x2PromoteLowF32x4
    }
    5 => {
        Call F32Div F64Div I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U I64TruncF32S
        I64TruncF32U I64TruncF64S I64TruncF64U I32TruncSatF32S I32TruncSatF32U
        I32TruncSatF64S I32TruncSatF64U I64TruncSatF32S I64TruncSatF32U I64TruncSatF64S
        I64TruncSatF64U RefFunc TableGet TableSet ReturnCall
    }
    6 => {
        I8x16Popcnt I8x16Shl I8x16ShrS I8x16ShrU I64x2Abs I64x2ShrS I64x2Mul F32x4Min
        F32x4Max F64x2Min F64x2Max
    }
    8 => {
        I32x4TruncSatF32x4S I32x4TruncSatF32x4U I32x4TruncSatF64x2SZero
        I32x4TruncSatF64x2UZero
    }
    10 => {
        CallIndirect I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU F32Sqrt
        F64Sqrt ReturnCallIndirect F32x4Div F64x2Div
    }
    20 => {
        MemoryInit DataDrop MemoryCopy MemoryFill TableInit ElemDrop TableCopy TableFill
        F32x4Sqrt F64x2Sqrt
    }
    300 => {
        MemoryGrow TableGrow
    }
}
