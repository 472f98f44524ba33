//! `no_new_privs`: nothing that is executed can gain privileges, and a filter
//! may be installed without any (prctl(2), `PR_SET_NO_NEW_PRIVS`).

use super::status_field;
use crate::layer::{Layer, LayerError};

/// Sets it for this thread and all that it starts.
pub fn apply() -> Result<(), LayerError> {
    rustix::thread::set_no_new_privs(true).map_err(LayerError::new(
        Layer::NoNewPrivs,
        "prctl(PR_SET_NO_NEW_PRIVS)",
    ))
}

/// From outside: `NoNewPrivs: 1`.
pub fn verify(status: &str) -> Result<String, String> {
    match status_field(status, "NoNewPrivs")? {
        "1" => Ok("NoNewPrivs 1".into()),
        other => Err(format!("NoNewPrivs is {other}, not 1")),
    }
}
