//! What can't be in an answer, whatever the guest did. The answer was decoded,
//! so it is well-formed; here its numbers are held against the request. Whoever
//! says what an honest worker can't say has been taken over.

use super::call::{Call, Entry, Global, Sizes};
use super::outcome::{Done, Effects, Outcome};

/// Bytes of a Wasm page: memories are as long as a number of these.
pub const WASM_PAGE: u64 = 65_536;

/// What an answer may say at most, besides what its request tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds<'a> {
    /// Fuel that host calls took, of that in the request.
    pub spent: u64,
    /// How large either memory may become. One that is larger already may stay.
    pub sizes: Sizes,
    /// Bytes that both memories may have together; nothing where that isn't
    /// counted.
    pub granted: Option<u64>,
    /// The module's mutable globals; of each, only the type counts.
    pub globals: &'a [Global],
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Impossible {
    /// More fuel than was there.
    #[error("{left} fuel left, of at most {most}")]
    Fuel {
        /// What it says.
        left: u64,
        /// What can be.
        most: u64,
    },
    /// A memory of a size that it can't have.
    #[error(
        "a {memory} of {bytes} bytes: it had {before} and may have {most}, in pages of {WASM_PAGE}"
    )]
    Size {
        /// Which memory.
        memory: &'static str,
        /// What it says.
        bytes: u64,
        /// Before the call.
        before: u64,
        /// By the tenant's limits.
        most: u64,
    },
    /// More memory than the node granted.
    #[error("memories of {bytes} bytes, of which {granted} were granted")]
    Granted {
        /// What it says.
        bytes: u128,
        /// What can be.
        granted: u64,
    },
    /// More cycles burned than were held.
    #[error("{burned} cycles burned, of {held} held")]
    Cycles {
        /// What it says.
        burned: u128,
        /// What can be.
        held: u128,
    },
    /// Other globals than the module's.
    #[error("{count} globals that are not the module's {expected}, or of other types")]
    Globals {
        /// How many it gives.
        count: usize,
        /// How many there are.
        expected: usize,
    },
    /// Effects of a call that can't have any.
    #[error("effects of a call that is not kept, or of a query")]
    Effects,
    /// An answer that this entry point can't give.
    #[error("an answer of an entry point that can only end, trap or be missing")]
    Answer,
}

/// Whether there are as many globals, of the same types.
pub fn same_types(globals: &[Global], types: &[Global]) -> bool {
    let same = |(a, b)| std::mem::discriminant::<Global>(a) == std::mem::discriminant::<Global>(b);
    globals.len() == types.len() && globals.iter().zip(types).all(same)
}

impl Done {
    /// Whether a worker can answer so to `call`.
    ///
    /// # Errors
    /// The first thing found that an honest worker never says. Every number is
    /// compared as it is: nothing overflows, whatever is said.
    pub fn check(&self, call: &Call, bounds: &Bounds<'_>) -> Result<(), Impossible> {
        let most = call.fuel.saturating_sub(bounds.spent);
        if self.fuel_left > most {
            let left = self.fuel_left;
            return Err(Impossible::Fuel { left, most });
        }
        self.check_sizes(call.sizes, bounds)?;
        if self.effects.cycles_burned > call.cycles {
            return Err(Impossible::Cycles {
                burned: self.effects.cycles_burned,
                held: call.cycles,
            });
        }
        if !same_types(&self.globals, bounds.globals) {
            return Err(Impossible::Globals {
                count: self.globals.len(),
                expected: bounds.globals.len(),
            });
        }
        let kept = matches!(
            self.outcome,
            Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply
        );
        if (!kept || call.entry == Entry::Query) && self.effects != Effects::default() {
            return Err(Impossible::Effects);
        }
        match (&self.outcome, call.entry) {
            (_, Entry::Update | Entry::Query) => Ok(()),
            (Outcome::Reply(reply), _) if reply.is_empty() => Ok(()),
            (Outcome::Reply(_) | Outcome::Reject(_) | Outcome::NoReply, _) => {
                Err(Impossible::Answer)
            }
            (Outcome::Trap(_) | Outcome::NoMethod | Outcome::Aborted(_), _) => Ok(()),
        }
    }

    fn check_sizes(&self, before: Sizes, bounds: &Bounds<'_>) -> Result<(), Impossible> {
        for (memory, bytes, before, limit) in [
            ("heap", self.sizes.heap, before.heap, bounds.sizes.heap),
            (
                "stable memory",
                self.sizes.stable,
                before.stable,
                bounds.sizes.stable,
            ),
        ] {
            let most = limit.max(before);
            if bytes < before || bytes > most || !bytes.is_multiple_of(WASM_PAGE) {
                return Err(Impossible::Size {
                    memory,
                    bytes,
                    before,
                    most,
                });
            }
        }
        let bytes = u128::from(self.sizes.heap) + u128::from(self.sizes.stable);
        match bounds.granted {
            Some(granted) if bytes > granted.into() => Err(Impossible::Granted { bytes, granted }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Trap, TrapKind};

    const BOUNDS: Bounds<'static> = Bounds {
        spent: 10,
        sizes: Sizes {
            heap: 4 * WASM_PAGE,
            stable: 4 * WASM_PAGE,
        },
        granted: Some(6 * WASM_PAGE),
        globals: &[Global::I32(0), Global::V128(0)],
    };

    fn call(entry: Entry) -> Call {
        Call {
            entry,
            fuel: 100,
            cycles: 5,
            sizes: Sizes {
                heap: WASM_PAGE,
                stable: 5 * WASM_PAGE,
            },
            ..Call::default()
        }
    }

    fn done() -> Done {
        Done {
            outcome: Outcome::Reply(Vec::new()),
            fuel_left: 90,
            sizes: call(Entry::Update).sizes,
            globals: vec![Global::I32(7), Global::V128(8)],
            effects: Effects::default(),
        }
    }

    fn trap() -> Outcome {
        Outcome::Trap(Trap {
            kind: TrapKind::Explicit,
            message: String::new(),
            backtrace: String::new(),
        })
    }

    #[test]
    fn what_is_possible_passes() {
        let burned = Effects {
            cycles_burned: 5,
            ..Effects::default()
        };
        let possible = [
            (Entry::Update, done()),
            (Entry::Install, done()),
            (
                Entry::Update,
                Done {
                    effects: burned,
                    ..done()
                },
            ),
            (
                Entry::Query,
                Done {
                    outcome: Outcome::Reply(vec![1]),
                    ..done()
                },
            ),
            (
                Entry::PreUpgrade,
                Done {
                    outcome: trap(),
                    ..done()
                },
            ),
        ];
        for (entry, done) in possible {
            assert_eq!(done.check(&call(entry), &BOUNDS), Ok(()), "{entry:?}");
        }
    }

    #[test]
    fn each_lie_is_told_from_the_truth() {
        let sizes = |heap, stable| Done {
            sizes: Sizes { heap, stable },
            ..done()
        };
        let certified = Effects {
            certified_data: Some(Vec::new()),
            ..Effects::default()
        };
        let five = 5 * WASM_PAGE;
        let size = |memory, bytes, before, most| Impossible::Size {
            memory,
            bytes,
            before,
            most,
        };
        let lies: Vec<(Entry, Done, Impossible)> = vec![
            (
                Entry::Update,
                Done {
                    fuel_left: 91,
                    ..done()
                },
                Impossible::Fuel { left: 91, most: 90 },
            ),
            (
                Entry::Update,
                sizes(0, five),
                size("heap", 0, WASM_PAGE, 4 * WASM_PAGE),
            ),
            (
                Entry::Update,
                sizes(WASM_PAGE + 1, five),
                size("heap", WASM_PAGE + 1, WASM_PAGE, 4 * WASM_PAGE),
            ),
            (
                Entry::Update,
                sizes(5 * WASM_PAGE, five),
                size("heap", five, WASM_PAGE, 4 * WASM_PAGE),
            ),
            (
                Entry::Update,
                sizes(WASM_PAGE, u64::MAX / WASM_PAGE * WASM_PAGE),
                size(
                    "stable memory",
                    u64::MAX / WASM_PAGE * WASM_PAGE,
                    five,
                    five,
                ),
            ),
            (
                Entry::Update,
                sizes(2 * WASM_PAGE, five),
                Impossible::Granted {
                    bytes: u128::from(7 * WASM_PAGE),
                    granted: 6 * WASM_PAGE,
                },
            ),
            (
                Entry::Update,
                Done {
                    effects: Effects {
                        cycles_burned: 6,
                        ..Effects::default()
                    },
                    ..done()
                },
                Impossible::Cycles { burned: 6, held: 5 },
            ),
            (
                Entry::Update,
                Done {
                    globals: vec![Global::I32(7)],
                    ..done()
                },
                Impossible::Globals {
                    count: 1,
                    expected: 2,
                },
            ),
            (
                Entry::Install,
                Done {
                    globals: vec![Global::F32(7), Global::V128(8)],
                    ..done()
                },
                Impossible::Globals {
                    count: 2,
                    expected: 2,
                },
            ),
            (
                Entry::Query,
                Done {
                    effects: certified.clone(),
                    ..done()
                },
                Impossible::Effects,
            ),
            (
                Entry::Update,
                Done {
                    outcome: trap(),
                    effects: certified,
                    ..done()
                },
                Impossible::Effects,
            ),
            (
                Entry::PostUpgrade,
                Done {
                    outcome: Outcome::Reply(vec![0]),
                    ..done()
                },
                Impossible::Answer,
            ),
            (
                Entry::Install,
                Done {
                    outcome: Outcome::NoReply,
                    ..done()
                },
                Impossible::Answer,
            ),
        ];
        for (entry, done, lie) in lies {
            assert_eq!(done.check(&call(entry), &BOUNDS), Err(lie), "{done:?}");
        }
    }

    /// Found by the fuzz target `effects`.
    #[test]
    fn a_sum_beyond_all_numbers_is_more_than_any_grant() {
        let all = u64::MAX / WASM_PAGE * WASM_PAGE;
        let sizes = Sizes {
            heap: all,
            stable: all,
        };
        let bounds = Bounds {
            sizes,
            granted: Some(u64::MAX),
            ..BOUNDS
        };
        let bytes = 2 * u128::from(all);
        let granted = u64::MAX;
        assert_eq!(
            Done { sizes, ..done() }.check(&call(Entry::Update), &bounds),
            Err(Impossible::Granted { bytes, granted })
        );
    }
}
