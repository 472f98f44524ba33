//! The memory limit of a program: one sum over all its memories and tables.

use wasmtime::ResourceLimiter;

/// Bytes that the engine takes for one element of a table: a pointer
/// ([`ResourceLimiter::table_growing`]).
const ELEMENT: usize = size_of::<usize>();

/// What the engine says of growths that no address of the type can reach. It
/// reports them as failures without asking first (`Memory::grow` and
/// `Table::grow` of Wasmtime 48's `runtime/vm`), but they are the guest's.
const BY_TYPE: [&str; 2] = [
    "memory growth exceeds memory type's limits",
    "overflow calculating new table size",
];

/// The host could not give memory that the limit allows. It ends the run: a
/// guest that saw `memory.grow` fail for it would behave differently on
/// another host.
#[derive(Debug, thiserror::Error)]
#[error("the host could not give the program {what} within its limit: {error}")]
pub(super) struct HostMemory {
    what: &'static str,
    error: String,
}

/// Counts what memories and tables have, and refuses what would go beyond.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: u64,
    used: u64,
    peak: u64,
    /// The least that would have been enough for the first refused request.
    refused: Option<u64>,
}

impl Limiter {
    /// A limiter of `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            peak: 0,
            refused: None,
        }
    }

    /// The most bytes that are allowed.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The most bytes there ever were.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// The bytes that the first refused request would have brought the sum to.
    pub(super) fn refused(&self) -> Option<u64> {
        self.refused
    }

    /// Whether to allow a growth, all in bytes. One beyond the declared maximum
    /// fails by the rules of WebAssembly, whatever the limit is: refusing it
    /// here keeps it apart from what the host can't give.
    fn allow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let wanted = self
            .used
            .saturating_add(desired.saturating_sub(current) as u64);
        if wanted > self.limit {
            self.refused.get_or_insert(wanted);
            return false;
        }
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.allow(current, desired, maximum))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if BY_TYPE.contains(&error.to_string().as_str()) {
            return Ok(());
        }
        Err(HostMemory {
            what: "memory",
            error: crate::trap::message(&error),
        }
        .into())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(ELEMENT);
        Ok(self.allow(bytes(current), bytes(desired), maximum.map(bytes)))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if BY_TYPE.contains(&error.to_string().as_str()) {
            return Ok(());
        }
        Err(HostMemory {
            what: "a table",
            error: crate::trap::message(&error),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sum_over_memories_and_tables() {
        let mut limiter = Limiter::new(3 << 16);
        assert!(limiter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(limiter.table_growing(0, (1 << 16) / ELEMENT, None).unwrap());
        assert!(limiter.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert_eq!((limiter.peak(), limiter.refused()), (3 << 16, None));
        assert!(
            !limiter
                .table_growing((1 << 16) / ELEMENT, (1 << 16) / ELEMENT + 1, None)
                .unwrap()
        );
        assert_eq!(
            (limiter.peak(), limiter.refused()),
            (3 << 16, Some((3 << 16) + ELEMENT as u64))
        );
    }

    #[test]
    fn the_declared_maximum_is_not_the_limit() {
        let mut limiter = Limiter::new(u64::MAX);
        assert!(!limiter.memory_growing(0, 2, Some(1)).unwrap());
        assert!(!limiter.table_growing(0, usize::MAX, Some(9)).unwrap());
        assert_eq!((limiter.peak(), limiter.refused()), (0, None));
    }

    #[test]
    fn what_the_host_lacks_is_an_error_and_not_a_refusal() {
        let mut limiter = Limiter::new(1);
        let error = limiter
            .memory_grow_failed(wasmtime::Error::msg("ENOMEM"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the host could not give the program memory within its limit: ENOMEM"
        );
        assert!(error.downcast_ref::<HostMemory>().is_some());
        assert!(
            limiter
                .table_grow_failed(wasmtime::Error::msg("ENOMEM"))
                .is_err()
        );
    }
}
