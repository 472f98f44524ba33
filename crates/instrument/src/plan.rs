//! What to change in a function's body: a list of edits in source order, found in one pass over
//! its instructions, which are validated on the way.

use crate::added::Rate;
use crate::cards::Store;
use crate::costs;
use crate::error::InstrumentError;
use crate::options::Options;
use crate::validate::{Source, limit};
use wasm_encoder::ValType;
use wasmparser::{FuncValidator, FunctionBody, Operator, ValidatorResources};

/// A change at a place in the source.
#[derive(Debug)]
pub(crate) struct Edit {
    /// Where, as an offset in the module.
    pub(crate) at: usize,
    /// Up to where the source is replaced; [`Edit::at`] if nothing is.
    pub(crate) end: usize,
    pub(crate) kind: EditKind,
}

#[derive(Debug)]
pub(crate) enum EditKind {
    /// A block starts, with the sum of its prices. One that can't be reached isn't charged.
    Charge {
        cost: u64,
        test: bool,
        reachable: bool,
    },
    /// A bulk instruction: charge by the length on top of the stack.
    ChargeLength { rate: Rate, wide: bool },
    /// A return, so many blocks deep.
    Return { nesting: u32 },
    /// A tail call.
    TailCall,
    /// `memory.init` with a segment that was dropped at instantiation.
    InitFromDropped { memory: u32 },
    /// `data.drop` of a segment that was dropped at instantiation.
    DropDropped,
    /// A store to memory 0.
    Store(Store),
    /// A bulk instruction that writes to memory 0.
    BulkStore { middle: ValType, wide_length: bool },
    /// The end of the function.
    End,
}

/// What to change in a function's body, and what was found in it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<Edit>,
    /// It calls, other than by tail calls.
    pub(crate) calls: bool,
    pub(crate) instructions: u64,
    /// Parameters and locals.
    pub(crate) locals: u32,
    /// Stack slots that locals and operands need.
    pub(crate) slots: u64,
    /// An instruction that it contains by which an instance that has run differs from a fresh one,
    /// other than in memories and globals.
    pub(crate) changes_instance: Option<&'static str>,
}

struct Frame {
    branched_to: bool,
    /// Its beginning can be reached.
    reachable: bool,
    kind: FrameKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Block,
    If,
    Loop { header: usize },
}

struct Planner<'a, 'o> {
    source: &'o Source<'a>,
    options: &'o Options,
    plan: Plan,
    frames: Vec<Frame>,
    /// The edit that charges for the current block.
    block: usize,
    reachable: bool,
    /// It contains a loop or a tail call, so that it may run on without any other call.
    repeats: bool,
    cost: u64,
}

/// Validates a function's body and finds what to change.
pub(crate) fn plan(
    source: &Source<'_>,
    options: &Options,
    body: &FunctionBody<'_>,
    validator: &mut FuncValidator<ValidatorResources>,
) -> Result<Plan, InstrumentError> {
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let mut reader = body.get_operators_reader()?;
    let locals = validator.len_locals();
    limit("locals in a function", locals.into(), options.limits.locals)?;
    let vectors = (0..locals)
        .filter(|local| validator.get_local_type(*local) == Some(wasmparser::ValType::V128))
        .count();
    let mut planner = Planner {
        source,
        options,
        plan: Plan {
            locals,
            ..Plan::default()
        },
        frames: vec![Frame {
            branched_to: false,
            reachable: true,
            kind: FrameKind::Block,
        }],
        block: 0,
        reachable: true,
        repeats: false,
        cost: 0,
    };
    planner.start_block(reader.original_position(), true, true);
    let mut height = 0;
    while !reader.eof() {
        let (operator, at) = reader.read_with_offset()?;
        validator.op(at, &operator)?;
        height = height.max(validator.operand_stack_height());
        planner.operator(&operator, at, reader.original_position())?;
    }
    reader.finish()?;
    let mut plan = planner.finish();
    plan.slots = u64::from(locals) + vectors as u64 + u64::from(height);
    Ok(plan)
}

impl Planner<'_, '_> {
    fn operator(
        &mut self,
        operator: &Operator<'_>,
        at: usize,
        end: usize,
    ) -> Result<(), InstrumentError> {
        use Operator as O;
        self.plan.instructions += 1;
        let Some(price) = costs::price(operator) else {
            return Err(InstrumentError::UnknownInstruction {
                operator: format!("{operator:?}"),
                offset: at,
            });
        };
        // A loop's own price belongs to the block that it starts.
        if !matches!(operator, O::Loop { .. }) {
            self.pay(price.into());
        }
        match operator {
            O::Block { .. } => self.open(FrameKind::Block)?,
            O::If { .. } => {
                self.open(FrameKind::If)?;
                self.start_block(end, self.reachable, false);
            }
            O::Loop { .. } => {
                self.repeats = true;
                let header = self.plan.edits.len();
                self.open(FrameKind::Loop { header })?;
                self.start_block(end, self.reachable, true);
                self.pay(price.into());
            }
            O::Else => {
                let reachable = self.frames.last().is_some_and(|frame| frame.reachable);
                self.start_block(end, reachable, false);
            }
            O::End => self.close(at, end),
            O::Br { relative_depth } => {
                self.branch(*relative_depth);
                self.start_block(end, false, false);
            }
            O::BrIf { relative_depth } => {
                self.branch(*relative_depth);
                self.start_block(end, self.reachable, false);
            }
            O::BrTable { targets } => {
                for target in targets.targets() {
                    self.branch(target?);
                }
                self.branch(targets.default());
                self.start_block(end, false, false);
            }
            O::Unreachable => self.start_block(end, false, false),
            O::Return => {
                let nesting = self.frames.len().saturating_sub(1) as u32;
                self.edit(at, end, EditKind::Return { nesting });
                self.start_block(end, false, false);
            }
            O::ReturnCall { .. } | O::ReturnCallIndirect { .. } => {
                self.repeats = true;
                self.edit(at, at, EditKind::TailCall);
                self.start_block(end, false, false);
            }
            O::Call { .. } | O::CallIndirect { .. } => self.plan.calls = true,
            _ => self.state_operator(operator, at, end),
        }
        Ok(())
    }

    /// Instructions that write, and bulk instructions. The charge comes before the marks, so that
    /// those are paid for and fuel ends in the same place with and without cards.
    fn state_operator(&mut self, operator: &Operator<'_>, at: usize, end: usize) {
        use Operator as O;
        match operator {
            O::MemoryGrow { mem } => {
                self.charge_length(at, Rate::Pages, self.source.memory64(*mem));
            }
            O::MemoryFill { mem } => {
                let wide = self.source.memory64(*mem);
                self.charge_length(at, Rate::Bytes, wide);
                self.bulk_store(*mem, ValType::I32, wide, at);
            }
            O::MemoryCopy { dst_mem, src_mem } => {
                let wide_source = self.source.memory64(*src_mem);
                let wide = self.source.memory64(*dst_mem) && wide_source;
                let middle = if wide_source {
                    ValType::I64
                } else {
                    ValType::I32
                };
                self.charge_length(at, Rate::Bytes, wide);
                self.bulk_store(*dst_mem, middle, wide, at);
            }
            O::MemoryInit { data_index, mem } => {
                self.charge_length(at, Rate::Bytes, false);
                self.bulk_store(*mem, ValType::I32, false, at);
                if self.options.persistent && self.source.is_active_data(*data_index) {
                    self.edit(at, end, EditKind::InitFromDropped { memory: *mem });
                }
            }
            O::DataDrop { data_index } => {
                if !self.source.is_active_data(*data_index) {
                    self.change("data.drop");
                } else if self.options.persistent {
                    self.edit(at, end, EditKind::DropDropped);
                }
            }
            O::TableGrow { table } => {
                self.change_elements("table.grow", at, self.source.table64(*table));
            }
            O::TableFill { table } => {
                self.change_elements("table.fill", at, self.source.table64(*table));
            }
            O::TableCopy {
                dst_table,
                src_table,
            } => {
                let wide = self.source.table64(*dst_table) && self.source.table64(*src_table);
                self.change_elements("table.copy", at, wide);
            }
            O::TableInit { .. } => self.change_elements("table.init", at, false),
            O::TableSet { .. } => self.change("table.set"),
            O::ElemDrop { .. } => self.change("elem.drop"),
            _ => {
                if self.options.cards.is_some()
                    && let Some(store) = Store::of(operator)
                {
                    self.edit(at, at, EditKind::Store(store));
                }
            }
        }
    }

    fn edit(&mut self, at: usize, end: usize, kind: EditKind) {
        self.plan.edits.push(Edit { at, end, kind });
    }

    fn change(&mut self, instruction: &'static str) {
        self.plan.changes_instance.get_or_insert(instruction);
    }

    fn change_elements(&mut self, instruction: &'static str, at: usize, wide: bool) {
        self.change(instruction);
        self.charge_length(at, Rate::Elements, wide);
    }

    fn charge_length(&mut self, at: usize, rate: Rate, wide: bool) {
        if self.options.metering {
            self.edit(at, at, EditKind::ChargeLength { rate, wide });
        }
    }

    fn bulk_store(&mut self, memory: u32, middle: ValType, wide_length: bool, at: usize) {
        if self.options.cards.is_some() && memory == 0 {
            self.edit(
                at,
                at,
                EditKind::BulkStore {
                    middle,
                    wide_length,
                },
            );
        }
    }

    /// Adds to the price of the current block.
    fn pay(&mut self, price: u64) {
        self.cost += price;
        if let Some(Edit {
            kind: EditKind::Charge { cost, .. },
            ..
        }) = self.plan.edits.get_mut(self.block)
        {
            *cost += price;
        }
    }

    fn start_block(&mut self, at: usize, reachable: bool, test: bool) {
        self.reachable = reachable;
        if self.options.metering {
            self.block = self.plan.edits.len();
            self.edit(
                at,
                at,
                EditKind::Charge {
                    cost: 0,
                    test,
                    reachable,
                },
            );
        }
    }

    fn open(&mut self, kind: FrameKind) -> Result<(), InstrumentError> {
        self.frames.push(Frame {
            branched_to: false,
            reachable: self.reachable,
            kind,
        });
        limit(
            "nested blocks",
            self.frames.len() as u64 - 1,
            self.options.limits.nesting,
        )
    }

    fn branch(&mut self, depth: u32) {
        // Validation has made sure that there is such a frame.
        let target = self.frames.len().checked_sub(1 + depth as usize);
        if let Some(frame) = target.and_then(|index| self.frames.get_mut(index)) {
            frame.branched_to = true;
        }
    }

    fn close(&mut self, at: usize, end: usize) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if self.frames.is_empty() {
            self.edit(at, end, EditKind::End);
            return;
        }
        match frame.kind {
            // Several ways lead here.
            FrameKind::If => self.start_block(end, frame.reachable, false),
            FrameKind::Block if frame.branched_to => self.start_block(end, frame.reachable, false),
            // Only the instruction before leads here, so the current block goes on.
            FrameKind::Block => {}
            FrameKind::Loop { header } => {
                if !frame.branched_to
                    && let Some(Edit {
                        kind: EditKind::Charge { test, .. },
                        ..
                    }) = self.plan.edits.get_mut(header)
                {
                    *test = false;
                }
            }
        }
    }

    fn finish(mut self) -> Plan {
        let quick = !self.plan.calls && !self.repeats && self.cost <= costs::UNTESTED_MAX;
        if let Some(Edit {
            kind: EditKind::Charge { test, .. },
            ..
        }) = self.plan.edits.first_mut()
        {
            *test = !quick;
        }
        self.plan
    }
}
