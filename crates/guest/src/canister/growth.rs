//! Growing under the node's memory budget: what the present call may grow by
//! is granted by the host, which keeps the count of all tenants.
//!
//! The tenant's own limits are looked at before, and give -1; so does the
//! module's own maximum. Only growth that they allow is asked for.

use crate::exchange::Exchange;

use super::stop::Stop;

/// Bytes by which the present call may grow its memories, both together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Whether there is a budget at all.
    budgeted: bool,
    left: u64,
}

impl Allowance {
    /// Nothing granted yet, if there is a budget.
    pub(super) fn new(budgeted: bool) -> Self {
        Self { budgeted, left: 0 }
    }

    /// Another call begins.
    pub(super) fn begin(&mut self) {
        self.left = 0;
    }

    /// Takes `bytes` of it, and asks the host for what is missing.
    ///
    /// # Errors
    /// If the node has too few.
    pub(super) fn take(&mut self, bytes: u64, exchange: Option<&mut Exchange>) -> Result<(), Stop> {
        if !self.budgeted {
            return Ok(());
        }
        let missing = bytes.saturating_sub(self.left);
        if missing > 0 {
            let granted = exchange.map_or(0, |exchange| exchange.grow(missing));
            if granted < missing {
                return Err(Stop::NodeMemory { bytes });
            }
            self.left = self.left.saturating_add(granted);
        }
        self.left -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_budget_is_asked_for() {
        let mut free = Allowance::new(false);
        assert!(free.take(u64::MAX, None).is_ok());
        // There is no host to grant anything.
        let mut budgeted = Allowance::new(true);
        assert!(budgeted.take(0, None).is_ok());
        budgeted.left = 10;
        assert!(budgeted.take(4, None).is_ok() && budgeted.take(6, None).is_ok());
        assert!(matches!(
            budgeted.take(1, None),
            Err(Stop::NodeMemory { bytes: 1 })
        ));
        budgeted.left = 10;
        budgeted.begin();
        assert!(budgeted.take(1, None).is_err());
    }
}
