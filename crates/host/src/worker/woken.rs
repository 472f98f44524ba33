//! Whether it pays to spin for workers that were just woken.
//!
//! A worker that slept wakes up on another processor if one is idle: then the answer comes
//! within the spin, and whoever spun needn't be woken in turn. If none is, the spin takes
//! from somebody the processor that the answer is waiting for. A tenant among thousands is
//! called too seldom to learn that from its own calls, so the process learns it from all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What was learned: the credit, and above it how many were left out. Threads may lose what
/// others have learned at the same time; that costs a spin at most.
static LEARNED: AtomicU32 = AtomicU32::new(Learned::NOTHING.to_bits());

/// What was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Learned {
    /// Spins are worth it as long as there is some.
    credit: u8,
    /// How many spins were left out in a row.
    left_out: u8,
}

impl Learned {
    const NOTHING: Self = Self {
        credit: Self::BEGIN,
        left_out: 0,
    };
    const BEGIN: u8 = 4;
    const MOST: u8 = 8;
    /// What a spin in vain costs, where one that was worth it earns one: they end where
    /// fewer than two of three are.
    const IN_VAIN: u8 = 2;
    /// After so many that were left out one is tried.
    const TRY_AGAIN: u8 = 64;

    const fn to_bits(self) -> u32 {
        (self.left_out as u32) << 8 | self.credit as u32
    }

    const fn from_bits(bits: u32) -> Self {
        Self {
            credit: bits as u8,
            left_out: (bits >> 8) as u8,
        }
    }

    /// Whether the next spin is worth it.
    fn pays(&mut self) -> bool {
        if self.credit > 0 || self.left_out >= Self::TRY_AGAIN {
            return true;
        }
        self.left_out += 1;
        false
    }

    fn learn(&mut self, answered: bool) {
        self.credit = match (answered, self.credit) {
            (true, 0) => Self::BEGIN,
            (true, credit) => Self::MOST.min(credit + 1),
            (false, credit) => credit.saturating_sub(Self::IN_VAIN),
        };
        self.left_out = 0;
    }
}

/// Whether it pays to spin for a worker that was just woken.
pub(super) fn spinning_pays() -> bool {
    let before = LEARNED.load(Relaxed);
    let mut learned = Learned::from_bits(before);
    let pays = learned.pays();
    // As a rule it hasn't changed, and who else looks at it has it in a cache.
    if learned.to_bits() != before {
        LEARNED.store(learned.to_bits(), Relaxed);
    }
    pays
}

/// Whether a worker that was spun for as that pays has answered meanwhile.
pub(super) fn learn(answered: bool) {
    let before = LEARNED.load(Relaxed);
    let mut learned = Learned::from_bits(before);
    learned.learn(answered);
    if learned.to_bits() != before {
        LEARNED.store(learned.to_bits(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many workers are spun for, if `answers` says which would answer.
    fn spins(learned: &mut Learned, of: u32, answers: impl Fn(u32) -> bool) -> u32 {
        let mut spins = 0;
        for worker in 0..of {
            if learned.pays() {
                spins += 1;
                learned.learn(answers(worker));
            }
        }
        spins
    }

    #[test]
    fn it_spins_where_most_answer_and_hardly_ever_where_few_do() {
        let mut learned = Learned::NOTHING;
        assert_eq!(spins(&mut learned, 1000, |_| true), 1000);
        // Now and then it is in vain.
        assert!(spins(&mut learned, 1000, |worker| worker % 5 > 0) > 900);
        assert!(spins(&mut learned, 1000, |_| false) < 1000 / 60 + 8);
        assert!(spins(&mut learned, 1000, |worker| worker % 2 > 0) < 300);
        // It finds out when that is over.
        assert!(spins(&mut learned, 1000, |_| true) > 900);
        for learned in [
            learned,
            Learned {
                credit: 0,
                left_out: Learned::TRY_AGAIN,
            },
        ] {
            assert_eq!(Learned::from_bits(learned.to_bits()), learned);
        }
    }
}
