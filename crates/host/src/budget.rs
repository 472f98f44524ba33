//! The node's memory budget: what the states of all tenants may have together,
//! as `SubnetAvailableMemory` is on the Internet Computer.
//!
//! Counted are the bytes of heap and stable memory at each tenant's newest
//! committed version, whether or not it is running, and what running calls have
//! reserved beyond that. These are sizes, not resident memory: a state is
//! sparse, its pages are shared and can be read again from its files.
//!
//! ```text
//! taken = sum of all accounts' charges + sum of all reservations ≤ limit
//! ```
//!
//! A call reserves when its guest grows a memory, by a round trip over the wire
//! (`FromWorker::Grow`), not before it starts: a call that doesn't grow costs no
//! atomic operation, and growing costs page faults that a round trip hides
//! behind. What was reserved is either charged to the tenant, by the commit, or
//! given back when the [`Reservation`] is dropped, whatever became of the call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lazaret_wire::message::Sizes;
use thiserror::Error;

/// Bytes of a WebAssembly page, in which memories grow.
const WASM_PAGE: u64 = 65_536;
/// The part of what is left that a call may be granted beyond what it asked
/// for, so that a memory which grows page by page isn't a round trip each.
const AHEAD: u64 = 16;

/// The node's memory budget has too little left. Worth another try: other calls
/// give back what they reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the node's memory budget of {budget} bytes has {left} left, and {wanted} more were wanted; nothing was changed: try again when other calls have ended, remove a tenant, or raise the budget (--memory-budget)"
)]
#[non_exhaustive]
pub struct NodeMemory {
    /// Bytes wanted beyond what the tenant has.
    pub wanted: u64,
    /// Bytes that were left.
    pub left: u64,
    /// The budget.
    pub budget: u64,
}

/// The node's memory budget and what is taken of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryBudget {
    /// What all states may have together.
    pub budget: u64,
    /// What they have, and what running calls have reserved. More than the
    /// budget only if it was set below what there was already.
    pub taken: u64,
}

/// The count.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    taken: AtomicU64,
    /// Of all tenants in the data directory, by name.
    accounts: Mutex<HashMap<String, Arc<Account>>>,
}

/// What a tenant's state is charged. When it is dropped, nothing.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    charged: AtomicU64,
}

/// What a call may have beyond what its tenant is charged, until it is dropped.
/// Of a host without a budget it holds nothing and allows everything.
#[derive(Debug, Default)]
pub(crate) struct Reservation<'a> {
    account: Option<&'a Account>,
    /// Bytes that the call begins with.
    begin: u64,
    /// Bytes that its tenant is charged and the call doesn't begin with.
    spare: u64,
    /// Bytes that it may have grown by.
    granted: u64,
    /// Bytes taken from the budget.
    reserved: u64,
    refused: Option<NodeMemory>,
}

/// Bytes of both memories.
pub(crate) fn total(sizes: Sizes) -> u64 {
    sizes.heap.saturating_add(sizes.stable)
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicU64::new(0),
            accounts: Mutex::default(),
        })
    }

    /// What is taken of it.
    pub(crate) fn state(&self) -> MemoryBudget {
        MemoryBudget {
            budget: self.limit,
            taken: self.taken.load(Relaxed),
        }
    }

    /// Takes `bytes`, or says what was wanted and what is left.
    ///
    /// Relaxed, as the count guards no other memory: each change of it is one
    /// atomic operation on this one word, so no two can take the same bytes.
    fn take(&self, bytes: u64) -> Result<(), NodeMemory> {
        let fits = |taken: u64| {
            let taken = taken.checked_add(bytes)?;
            (taken <= self.limit).then_some(taken)
        };
        match self.taken.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(taken) => Err(NodeMemory {
                wanted: bytes,
                left: self.limit.saturating_sub(taken),
                budget: self.limit,
            }),
        }
    }

    /// Takes what there is no asking for, as it is there already.
    fn take_anyway(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.taken.fetch_sub(bytes, Relaxed);
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account that no name has yet, with nothing charged.
    pub(crate) fn open(self: &Arc<Self>) -> Arc<Account> {
        Arc::new(Account {
            budget: self.clone(),
            charged: AtomicU64::new(0),
        })
    }

    /// From now on `account` is that of the tenant of this name.
    pub(crate) fn enter(&self, name: &str, account: Arc<Account>) {
        let before = self.accounts().insert(name.to_owned(), account);
        // Gives back what it was charged: not under the lock.
        drop(before);
    }

    /// The account of a tenant whose state has so many bytes: it is there, so
    /// it is charged even if that is over the limit.
    pub(crate) fn of(self: &Arc<Self>, name: &str, bytes: u64) -> Arc<Account> {
        let account = {
            let mut accounts = self.accounts();
            match accounts.get(name) {
                Some(account) => account.clone(),
                None => {
                    let account = self.open();
                    accounts.insert(name.to_owned(), account.clone());
                    account
                }
            }
        };
        account.charge(bytes, 0);
        account
    }

    /// Charges a tenant that is gone nothing.
    pub(crate) fn forget(&self, name: &str) {
        let gone = self.accounts().remove(name);
        if let Some(account) = gone {
            account.charge(0, 0);
        }
    }
}

impl Account {
    /// Sets the charge, when `reserved` bytes were taken beyond it.
    ///
    /// One at a time: whoever changes a tenant's state is in its lane, or the
    /// only one that knows the account.
    fn charge(&self, bytes: u64, reserved: u64) {
        let before = self.charged.load(Relaxed);
        if before == bytes && reserved == 0 {
            return;
        }
        self.charged.store(bytes, Relaxed);
        let held = before.saturating_add(reserved);
        match bytes.checked_sub(held) {
            Some(more) => self.budget.take_anyway(more),
            None => self.budget.give_back(held - bytes),
        }
    }

    /// Leave for a call that begins with `begin` bytes; those beyond the charge
    /// are reserved.
    pub(crate) fn reserve(&self, begin: u64) -> Result<Reservation<'_>, NodeMemory> {
        let charged = self.charged.load(Relaxed);
        let missing = begin.saturating_sub(charged);
        if missing > 0 {
            self.budget.take(missing)?;
        }
        Ok(Reservation {
            account: Some(self),
            begin,
            spare: charged.saturating_sub(begin),
            granted: 0,
            reserved: missing,
            refused: None,
        })
    }

    /// Leave for a query: it begins with a committed version, which may be
    /// another than the charge is of by now, and can't use what is spare.
    pub(crate) fn borrow(&self, begin: u64) -> Reservation<'_> {
        Reservation {
            account: Some(self),
            begin,
            ..Reservation::default()
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.charge(0, 0);
    }
}

impl Reservation<'_> {
    /// Reserves `bytes` more for the call, and some ahead where there is plenty:
    /// as much as it has grown by already, at most a part of what is left. What
    /// may be grown by now; 0 if the node has too little.
    pub(crate) fn grow(&mut self, bytes: u64) -> u64 {
        let Some(account) = self.account else {
            return bytes;
        };
        let budget = &account.budget;
        let from_spare = bytes.min(self.spare);
        let missing = bytes - from_spare;
        if missing > 0
            && let Err(refused) = budget.take(missing)
        {
            self.refused = Some(refused);
            return 0;
        }
        self.spare -= from_spare;
        self.reserved += missing;
        self.granted = self.granted.saturating_add(bytes);
        let left = budget.limit.saturating_sub(budget.taken.load(Relaxed));
        let ahead = self.granted.min(left / AHEAD) / WASM_PAGE * WASM_PAGE;
        if missing == 0 || ahead == 0 || budget.take(ahead).is_err() {
            return bytes;
        }
        self.reserved += ahead;
        self.granted = self.granted.saturating_add(ahead);
        bytes.saturating_add(ahead)
    }

    /// Another call of the same change of state: it begins with `begin` bytes,
    /// and what the one before reserved is its own.
    pub(crate) fn restart(&mut self, begin: u64) -> Result<(), NodeMemory> {
        let Some(account) = self.account else {
            return Ok(());
        };
        let held = account.charged.load(Relaxed).saturating_add(self.reserved);
        let missing = begin.saturating_sub(held);
        if missing > 0 {
            account.budget.take(missing)?;
            self.reserved += missing;
        }
        (self.begin, self.granted) = (begin, 0);
        self.spare = held.saturating_sub(begin);
        Ok(())
    }

    /// Bytes that the call can have at its end, at most; nothing where they
    /// aren't counted.
    pub(crate) fn granted(&self) -> Option<u64> {
        let most = self.begin.saturating_add(self.granted);
        self.account.is_some().then_some(most)
    }

    /// Why the call was aborted, if it was for want of the node's memory.
    pub(crate) fn refused(&self) -> Option<NodeMemory> {
        self.refused
    }

    /// The state has so many bytes now; whatever else was reserved is given
    /// back.
    pub(crate) fn settle(&mut self, bytes: u64) {
        if let Some(account) = self.account {
            account.charge(bytes, self.reserved);
            (self.reserved, self.spare) = (0, 0);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.account {
            account.budget.give_back(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn taken(budget: &Budget) -> u64 {
        budget.state().taken
    }

    #[test]
    fn what_is_left_can_be_had_to_the_last_byte_and_no_more() {
        let budget = Budget::new(MIB);
        let account = budget.open();
        let mut call = account.reserve(0).unwrap();
        assert_eq!(call.grow(MIB), MIB);
        assert_eq!(taken(&budget), MIB);
        assert_eq!(call.grow(WASM_PAGE), 0);
        let refused = call.refused().unwrap();
        assert_eq!(
            (refused.wanted, refused.left, refused.budget),
            (WASM_PAGE, 0, MIB)
        );
        assert_eq!(call.granted(), Some(MIB));
        drop(call);
        assert_eq!(taken(&budget), 0);
    }

    #[test]
    fn a_commit_keeps_what_the_state_has_and_gives_back_the_rest() {
        let budget = Budget::new(100 * MIB);
        let account = budget.open();
        let mut call = account.reserve(0).unwrap();
        let granted = call.grow(MIB);
        assert!(granted > MIB && granted <= 2 * MIB, "{granted}");
        assert_eq!(taken(&budget), granted);
        call.settle(MIB);
        assert_eq!(taken(&budget), MIB);
        drop(call);
        assert_eq!(taken(&budget), MIB);
        // A state that shrinks gives back, and what is spare costs nothing.
        let mut upgrade = account.reserve(WASM_PAGE).unwrap();
        assert_eq!(upgrade.grow(MIB - WASM_PAGE), MIB - WASM_PAGE);
        assert_eq!(taken(&budget), MIB);
        upgrade.settle(MIB / 2);
        drop(upgrade);
        assert_eq!(taken(&budget), MIB / 2);
        let query = account.borrow(0);
        assert_eq!(query.granted(), Some(0));
        drop(query);
        drop(account);
        assert_eq!(taken(&budget), 0);
    }

    #[test]
    fn what_there_is_already_is_counted_even_beyond_the_limit() {
        let budget = Budget::new(MIB);
        budget.of("a", 3 * MIB);
        assert_eq!(taken(&budget), 3 * MIB);
        let account = budget.of("a", 3 * MIB);
        assert_eq!(taken(&budget), 3 * MIB);
        let refused = account.reserve(3 * MIB + 1).unwrap_err();
        assert_eq!((refused.wanted, refused.left), (1, 0));
        assert!(account.reserve(3 * MIB).is_ok());
        budget.forget("a");
        assert_eq!(taken(&budget), 0);
        // A handle of a tenant that is gone charges nothing when it ends.
        drop(account);
        assert_eq!(taken(&budget), 0);
    }

    #[test]
    fn without_a_budget_everything_is_allowed() {
        let mut call = Reservation::default();
        assert_eq!(call.grow(u64::MAX), u64::MAX);
        assert!(call.granted().is_none() && call.refused().is_none());
        call.settle(u64::MAX);
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let budget = Budget::new(64 * MIB);
        let over = std::sync::atomic::AtomicBool::new(false);
        let sums: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u64)
                .map(|seed| {
                    let (budget, over) = (&budget, &over);
                    scope.spawn(move || {
                        let account = budget.of(&format!("t{seed}"), 0);
                        let (mut state, mut random) = (0, seed + 1);
                        for _ in 0..20_000 {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            let Ok(mut call) = account.reserve(state) else {
                                continue;
                            };
                            let mut size = state;
                            for _ in 0..random % 4 {
                                let more = (random % 97 + 1) * WASM_PAGE;
                                if call.grow(more) >= more {
                                    size += more;
                                }
                            }
                            if budget.state().taken > 64 * MIB {
                                over.store(true, Relaxed);
                            }
                            assert!(call.granted().is_none_or(|most| size <= most));
                            match random % 5 {
                                0 => call.settle(state),
                                1 => {}
                                2 => {
                                    state = 0;
                                    call.settle(0);
                                }
                                _ => {
                                    state = size;
                                    call.settle(size);
                                }
                            }
                        }
                        state
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(!over.load(Relaxed));
        assert_eq!(taken(&budget), sums.iter().sum::<u64>());
        assert!(sums.iter().any(|sum| *sum > 0));
    }
}
