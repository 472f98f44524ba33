//! What is added to a module's index spaces: types, globals, routines. Always at the end, so that
//! none of the module's own indices shifts.

use crate::cards::Cards;
use crate::costs;
use crate::names;
use crate::options::Options;
use crate::validate::{Entries, Source};
use crate::{cards, metering};
use wasm_encoder::{ConstExpr, Encode, Function, GlobalType, ValType};

/// A function that is added where the module needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routine {
    /// Takes a length, charges for it, gives it back.
    Charge {
        rate: Rate,
        /// The length has 64 bits.
        wide: bool,
    },
    /// Takes an address and a length, both `i64`, and marks their cards.
    Mark,
}

/// What a bulk instruction is charged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    Bytes,
    Elements,
    Pages,
}

impl Routine {
    fn name(self) -> &'static str {
        match self {
            Self::Charge {
                rate: Rate::Bytes,
                wide: false,
            } => "lazaret:charge-bytes-32",
            Self::Charge {
                rate: Rate::Bytes,
                wide: true,
            } => "lazaret:charge-bytes-64",
            Self::Charge {
                rate: Rate::Elements,
                wide: false,
            } => "lazaret:charge-elements-32",
            Self::Charge {
                rate: Rate::Elements,
                wide: true,
            } => "lazaret:charge-elements-64",
            Self::Charge {
                rate: Rate::Pages,
                wide: false,
            } => "lazaret:charge-pages-32",
            Self::Charge {
                rate: Rate::Pages,
                wide: true,
            } => "lazaret:charge-pages-64",
            Self::Mark => "lazaret:mark-cards",
        }
    }
}

/// An added function.
pub(crate) struct AddedFunction {
    pub(crate) name: &'static str,
    pub(crate) ty: u32,
    pub(crate) body: Function,
}

/// Everything added to a module so far, with the indices it got.
pub(crate) struct Added {
    types_before: u32,
    functions_before: u32,
    types: Vec<(Vec<ValType>, Vec<ValType>)>,
    routines: Vec<(Routine, u32)>,
    /// In index order, from the module's number of functions on.
    pub(crate) functions: Vec<AddedFunction>,
    /// Each added global, all exported: its name, type and index.
    pub(crate) globals: Vec<(&'static str, ValType, u32)>,
    /// Index of the fuel, if metering is on.
    pub(crate) fuel: Option<u32>,
    /// Index of the reason to stop, if there may be one.
    pub(crate) stop: Option<u32>,
    /// Index of the depth and the limit, if the recursion is limited.
    pub(crate) depth: Option<(u32, u32)>,
    /// Where the cards are, if they are asked for.
    pub(crate) cards: Option<Cards>,
    /// Index of an empty passive data segment, once one is needed.
    pub(crate) empty_data: Option<u32>,
}

impl Added {
    pub(crate) fn new(source: &Source<'_>, options: &Options, cards: Option<Cards>) -> Self {
        let mut added = Self {
            types_before: source.type_space.len() as u32,
            functions_before: source.function_space.len() as u32,
            types: Vec::new(),
            routines: Vec::new(),
            functions: Vec::new(),
            globals: Vec::new(),
            fuel: None,
            stop: None,
            depth: None,
            cards,
            empty_data: None,
        };
        let before = source.global_space.len() as u32;
        if options.metering {
            added.fuel = Some(added.global(before, names::FUEL, ValType::I64));
        }
        if options.metering || options.recursion_limit.is_some() {
            added.stop = Some(added.global(before, names::STOP, ValType::I32));
        }
        if let Some(limit) = options.recursion_limit {
            added.depth = Some((added.global(before, names::DEPTH, ValType::I32), limit));
        }
        added
    }

    fn global(&mut self, before: u32, name: &'static str, ty: ValType) -> u32 {
        let index = before + self.globals.len() as u32;
        self.globals.push((name, ty, index));
        index
    }

    /// The index of a function type, added if need be.
    pub(crate) fn ty(&mut self, params: &[ValType], results: &[ValType]) -> u32 {
        let known = self
            .types
            .iter()
            .position(|(p, r)| p == params && r == results);
        let position = known.unwrap_or_else(|| {
            self.types.push((params.to_vec(), results.to_vec()));
            self.types.len() - 1
        });
        self.types_before + position as u32
    }

    /// The index of a type without parameters, which isn't searched for among those added.
    pub(crate) fn new_result_type(&mut self, results: Vec<ValType>) -> u32 {
        self.types.push((Vec::new(), results));
        self.types_before + self.types.len() as u32 - 1
    }

    /// Adds a function and gives its index.
    pub(crate) fn function(&mut self, name: &'static str, ty: u32, body: Function) -> u32 {
        self.functions.push(AddedFunction { name, ty, body });
        self.functions_before + self.functions.len() as u32 - 1
    }

    /// The index of a routine, added if need be.
    pub(crate) fn routine(&mut self, routine: Routine) -> u32 {
        if let Some((_, index)) = self.routines.iter().find(|(known, _)| *known == routine) {
            return *index;
        }
        let (ty, body) = match routine {
            Routine::Charge { rate, wide } => {
                let length = if wide { ValType::I64 } else { ValType::I32 };
                (
                    self.ty(&[length], &[length]),
                    metering::charge_routine(self, rate, wide),
                )
            }
            Routine::Mark => (
                self.ty(&[ValType::I64, ValType::I64], &[]),
                cards::mark_routine(self.cards),
            ),
        };
        let index = self.function(routine.name(), ty, body);
        self.routines.push((routine, index));
        index
    }

    /// The index of an empty passive data segment, added after the module's own.
    pub(crate) fn empty_data(&mut self, source: &Source<'_>) -> u32 {
        *self.empty_data.get_or_insert(source.data.len() as u32)
    }

    /// A type section's contents: the module's types and the added ones.
    pub(crate) fn types_after(&self, own: &Entries<'_>) -> Vec<u8> {
        let mut bytes = count_and_copy(own, self.types.len());
        for (params, results) in &self.types {
            bytes.push(0x60);
            params.encode(&mut bytes);
            results.encode(&mut bytes);
        }
        bytes
    }

    /// A function section's contents: the types of the module's functions and of those added.
    pub(crate) fn functions_after(&self, own: &Entries<'_>) -> Vec<u8> {
        let mut bytes = count_and_copy(own, self.functions.len());
        for function in &self.functions {
            function.ty.encode(&mut bytes);
        }
        bytes
    }

    /// A global section's contents: the module's globals and the added ones.
    pub(crate) fn globals_after(&self, own: &Entries<'_>) -> Vec<u8> {
        let mut bytes = count_and_copy(own, self.globals.len());
        for (_, ty, _) in &self.globals {
            GlobalType {
                val_type: *ty,
                mutable: true,
                shared: false,
            }
            .encode(&mut bytes);
            let zero = match ty {
                ValType::I64 => ConstExpr::i64_const(0),
                _ => ConstExpr::i32_const(0),
            };
            zero.encode(&mut bytes);
        }
        bytes
    }

    /// How many types there are with those added.
    pub(crate) fn type_count(&self) -> u64 {
        u64::from(self.types_before) + self.types.len() as u64
    }
}

/// The start of a section's contents: how many entries there will be, and the module's own.
pub(crate) fn count_and_copy(own: &Entries<'_>, added: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(own.bytes.len() + 16 * added + 5);
    (own.count as usize + added).encode(&mut bytes);
    bytes.extend_from_slice(own.bytes);
    bytes
}

impl Rate {
    /// The longest length that is charged, if there is one.
    pub(crate) fn cap(self) -> Option<u64> {
        match self {
            Self::Bytes => None,
            Self::Elements => Some(costs::TABLE_ELEMENTS_MAX),
            Self::Pages => Some(costs::MEMORY_PAGES_MAX),
        }
    }
}
