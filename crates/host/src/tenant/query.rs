//! Queries: on the newest version that is committed when they begin, several at
//! once, each in a worker that nobody else uses meanwhile.

use std::sync::Arc;
use std::time::Duration;

use lazaret_wire::message::Entry;

use super::call::{self, Asked, Incoming, Reply, reply};
use super::error::CallError;
use super::live::Live;
use super::workers::Slot;
use super::{Shared, replay};
use crate::budget::{Reservation, total};
use crate::host::Inner;
use crate::worker::Deadline;

impl Shared {
    /// Runs a query and puts back what it wrote.
    pub(super) fn query(
        self: &Arc<Self>,
        host: &Inner,
        call: &Incoming<'_>,
    ) -> Result<Reply, CallError> {
        let limits = &host.options.limits;
        let time = call.options.time.unwrap_or(limits.time);
        let (slot, idle) = self.begin_query(limits.queries, time, call.method, call.argument)?;
        // Given back last, when what the query wrote is put back.
        let mut growth = Reservation::default();
        let mut live = match idle {
            Some(live) => live,
            None => self.start_worker(host, time)?,
        };
        live.worker.expect_more(call.more);
        let asked = Asked {
            entry: Entry::Query,
            method: call.method,
            argument: call.argument,
            options: call.options,
            fuel: limits.query_fuel,
        };
        live.ask(&asked, &self.principal);
        if let Some(account) = &self.account {
            growth = account.borrow(total(live.sizes));
        }
        let done = match self.run(host, &mut live, &mut growth, time) {
            Ok(done) => done,
            Err(error) => {
                // Not while an update runs, which makes another version.
                if let Some(incident) = live.worker().incident()
                    && let Some(mut lane) = self.idle_lane()
                {
                    replay::keep(host, self, &mut lane, &incident);
                }
                return Err(error);
            }
        };
        let fuel_used = live.request.fuel - done.fuel_left.min(live.request.fuel);
        let version = live.version;
        if self.put_back(&mut live, &done)? {
            slot.give(live);
        }
        reply(done.outcome, fuel_used, version, None).map_err(|error| error.or_refused(&growth))
    }

    /// Waits until the query may run. Gives leave to, and an idle worker at the
    /// newest version if there is one.
    fn begin_query(
        &self,
        most: usize,
        time: Duration,
        method: &str,
        argument: &[u8],
    ) -> Result<(Slot<'_>, Option<Box<Live>>), CallError> {
        let mut deadline = Deadline::after(time);
        loop {
            {
                // No upgrade commits meanwhile.
                let module = self.module();
                call::check(&module, Entry::Query, method, argument)?;
                let newest = self.reader.version();
                if let Some((slot, idle)) = self.workers.begin_query(most, newest) {
                    return Ok((slot, idle.and_then(|live| self.at_newest(live, newest))));
                }
            }
            // Without the lock: who runs a query needs it to end.
            if !self.workers.await_slot(most, deadline.left()) {
                return Err(CallError::Busy {
                    running: most,
                    waited: time,
                });
            }
        }
    }
}
