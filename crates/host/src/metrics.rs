//! What a host counts, through the `metrics` facade: whoever embeds Lazaret
//! installs a recorder of their choice (for Prometheus, StatsD, …) before the first
//! host is made. Without one, nothing is counted, which costs a load.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `lazaret_incidents_total` | `layer`, `severity` | incidents, as `lazaret incidents` lists them |
//! | `lazaret_blank_workers` | | workers that wait for a tenant |
//! | `lazaret_workers` | | workers of tenants, idle or busy |
//! | `lazaret_workers_evicted_total` | `reason` | idle workers that left: `idle` for long enough, for others as there may be no more (`count`), or as memory was short (`pressure`) |
//! | `lazaret_workers_called_back_total` | | workers that were chosen to leave, and got a call before they had |
//! | `lazaret_launchers_replaced_total` | | launchers that had ended, and were started again |
//! | `lazaret_submitted_calls_total` | | submitted calls that were answered |
//! | `lazaret_worker_wakeups_total` | | requests for which a worker had to be woken |
//! | `lazaret_incidents_lost_total` | | incidents of them that came faster than the disk took them, or that it didn't take |

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::incident::Incident;
use crate::pool::Reason;

const INCIDENTS: &str = "lazaret_incidents_total";
const BLANKS: &str = "lazaret_blank_workers";
const WORKERS: &str = "lazaret_workers";
const EVICTED: &str = "lazaret_workers_evicted_total";
const CALLED_BACK: &str = "lazaret_workers_called_back_total";
const LAUNCHERS_REPLACED: &str = "lazaret_launchers_replaced_total";
const SUBMITTED: &str = "lazaret_submitted_calls_total";
const WAKEUPS: &str = "lazaret_worker_wakeups_total";
const LOST: &str = "lazaret_incidents_lost_total";

/// Tells the recorder what there is.
pub(crate) fn describe() {
    describe_counter!(INCIDENTS, "incidents, by what stopped them and severity");
    describe_counter!(LOST, "incidents that could not be kept");
    counter!(LOST).increment(0);
    describe_gauge!(BLANKS, "workers that wait for a tenant");
    describe_gauge!(WORKERS, "workers of tenants, idle or busy");
    describe_counter!(EVICTED, "idle workers that left, by reason");
    describe_counter!(
        CALLED_BACK,
        "workers that were chosen to leave, and got a call before they had"
    );
    counter!(CALLED_BACK).increment(0);
    describe_counter!(
        LAUNCHERS_REPLACED,
        "launchers that had ended, and were started again"
    );
    counter!(LAUNCHERS_REPLACED).increment(0);
    describe_counter!(SUBMITTED, "submitted calls that were answered");
    counter!(SUBMITTED).increment(0);
    describe_counter!(WAKEUPS, "requests for which a worker had to be woken");
    counter!(WAKEUPS).increment(0);
}

/// There are so many blank workers.
pub(crate) fn blanks(count: usize) {
    gauge!(BLANKS).set(count as f64);
}

/// There is a worker of a tenant more.
pub(crate) fn worker_born() {
    gauge!(WORKERS).increment(1.0);
}

/// There is one less.
pub(crate) fn worker_gone() {
    gauge!(WORKERS).decrement(1.0);
}

/// An idle worker has left.
pub(crate) fn evicted(reason: Reason) {
    counter!(EVICTED, "reason" => reason.name()).increment(1);
}

/// A worker was to leave, and a call came.
pub(crate) fn called_back() {
    counter!(CALLED_BACK).increment(1);
}

/// A launcher had ended, and was started again.
pub(crate) fn launcher_replaced() {
    counter!(LAUNCHERS_REPLACED).increment(1);
}

/// A submitted call was answered.
pub(crate) fn call_answered() {
    counter!(SUBMITTED).increment(1);
}

/// A worker had to be woken for a request.
pub(crate) fn worker_woken() {
    counter!(WAKEUPS).increment(1);
}

/// There was an incident.
pub(crate) fn incident(incident: &Incident) {
    let severity = incident.severity.name();
    counter!(INCIDENTS, "layer" => incident.layer.clone(), "severity" => severity).increment(1);
}

/// An incident is not on disk.
pub(crate) fn incident_lost() {
    counter!(LOST).increment(1);
}
