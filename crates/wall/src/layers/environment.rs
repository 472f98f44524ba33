//! No environment: the launcher executes a worker with an empty one.

use super::read;

/// From outside: `/proc/PID/environ` is empty.
pub fn verify(pid: i32) -> Result<String, String> {
    match read(pid, "environ")?.len() {
        0 => Ok("empty".into()),
        bytes => Err(format!("{bytes} bytes of environment")),
    }
}
