//! What a host counts, through the `metrics` facade: whoever embeds Lazaret
//! installs a recorder of their choice (for Prometheus, StatsD, …) before the first
//! host is made. Without one, nothing is counted, which costs a load.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `lazaret_incidents_total` | `layer`, `severity` | incidents, as `lazaret incidents` lists them |
//! | `lazaret_incidents_lost_total` | | incidents of them that came faster than the disk took them, or that it didn't take |

use metrics::{counter, describe_counter};

use crate::incident::Incident;

const INCIDENTS: &str = "lazaret_incidents_total";
const LOST: &str = "lazaret_incidents_lost_total";

/// Tells the recorder what there is.
pub(crate) fn describe() {
    describe_counter!(INCIDENTS, "incidents, by what stopped them and severity");
    describe_counter!(LOST, "incidents that could not be kept");
    counter!(LOST).increment(0);
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
