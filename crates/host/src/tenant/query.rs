//! Queries: on the newest version that is committed when they begin, several at
//! once, each in a worker that nobody else uses meanwhile.

use lazaret_wire::message::Entry;

use super::Shared;
use super::call::{Asked, CallOptions, Reply, reply};
use super::error::CallError;
use crate::host::Inner;

impl Shared {
    /// Runs a query and puts back what it wrote.
    pub(super) fn query(
        &self,
        host: &Inner,
        method: &str,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<Reply, CallError> {
        let limits = &host.options.limits;
        let time = options.time.unwrap_or(limits.time);
        let _slot = self
            .workers
            .query_slot(limits.queries, time)
            .ok_or(CallError::Busy {
                running: limits.queries,
                waited: time,
            })?;
        let mut live = match self.idle_worker() {
            Some(live) => live,
            None => self.start_worker(host)?,
        };
        let asked = Asked {
            entry: Entry::Query,
            method,
            argument,
            options,
            fuel: limits.query_fuel,
        };
        let request = asked.request(&self.principal, &live.meta, live.sizes);
        let (fuel, version) = (request.fuel, live.version);
        let done = self.run(host, &mut live, request, time)?;
        let fuel_used = fuel - done.fuel_left.min(fuel);
        self.put_back(live, &done)?;
        reply(done.outcome, fuel_used, version, None)
    }
}
