//! No environment: the launcher executes a worker with an empty one.

use super::proc;

/// From outside: `/proc/PID/environ` is empty.
pub fn verify(pid: i32) -> Result<String, String> {
    match std::fs::read(proc(pid, "environ")) {
        Ok(bytes) if bytes.is_empty() => Ok("empty".into()),
        Ok(bytes) => Err(format!("{} bytes of environment", bytes.len())),
        Err(error) => Err(format!("/proc/{pid}/environ: {error}")),
    }
}
