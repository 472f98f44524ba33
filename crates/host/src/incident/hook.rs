//! A command of the operator's that is told of incidents.
//!
//! It runs beside everything else, one incident after another, with a time
//! limit: one that hangs or fails is a line in the log, and the wall is as it
//! was.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};

use super::{Incident, Severity};

/// A command that is told of incidents: on standard input as JSON, and in
/// `LAZARET_INCIDENT`, `LAZARET_SEVERITY` and `LAZARET_TENANT`.
#[derive(Debug, Clone)]
pub struct Hook {
    /// What `/bin/sh -c` runs.
    pub command: OsString,
    /// The least severity that it is told of.
    pub severity: Severity,
    /// How long it may take; then it is killed, with all that it started in
    /// its process group.
    pub time: Duration,
}

impl Hook {
    /// A shell command that is told of all but limits, and may take 10 s.
    pub fn shell(command: impl Into<OsString>) -> Self {
        Self {
            command: command.into(),
            severity: Severity::Medium,
            time: Duration::from_secs(10),
        }
    }
}

/// Incidents that wait for a hook. Of more, the log says that they were left
/// out; the record has them.
const WAITING: usize = 64;

/// What a hook is told of one incident.
struct Told {
    id: String,
    severity: Severity,
    tenant: Option<String>,
    json: Vec<u8>,
}

/// A hook that runs.
pub(crate) struct Running {
    hook: Hook,
    queue: Option<SyncSender<Told>>,
    /// In a mutex only to be shared between threads: nobody but the last owner
    /// waits.
    thread: Option<(JoinHandle<()>, Mutex<Receiver<()>>)>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Starts its thread.
    ///
    /// # Errors
    /// If there is none to be had.
    pub(crate) fn start(hook: Hook) -> io::Result<Self> {
        let (queue, told) = sync_channel::<Told>(WAITING);
        let (ended, done) = sync_channel(1);
        let own = hook.clone();
        let thread = std::thread::Builder::new()
            .name("lazaret-hook".into())
            .spawn(move || {
                for incident in told {
                    if let Err(error) = run(&own, &incident) {
                        tracing::warn!(id = incident.id, %error, "the hook for incidents failed");
                    }
                }
                // Nobody waits who has lost patience.
                let _ = ended.send(());
            })?;
        Ok(Self {
            hook,
            queue: Some(queue),
            thread: Some((thread, Mutex::new(done))),
        })
    }

    /// Tells it, soon.
    pub(crate) fn tell(&self, incident: &Incident) {
        if incident.severity < self.hook.severity {
            return;
        }
        let told = Told {
            id: incident.id.clone(),
            severity: incident.severity,
            tenant: incident.subject.tenant.clone(),
            json: serde_json::to_vec(incident).unwrap_or_default(),
        };
        if let Some(queue) = &self.queue
            && let Err(TrySendError::Full(told) | TrySendError::Disconnected(told)) =
                queue.try_send(told)
        {
            tracing::warn!(
                id = told.id,
                "the hook for incidents is not told of this one: too many wait"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some((thread, done)) = self.thread.take() {
            // Those that wait are told, but a host that ends doesn't wait for
            // more than one that hangs.
            let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            match done.recv_timeout(self.hook.time + Duration::from_secs(1)) {
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("the host ends before its hook has been told of all incidents");
                }
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    let _ = thread.join();
                }
            }
        }
    }
}

/// Why a hook failed, for the log.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("it can't be started: {0}")]
    Start(#[from] io::Error),
    #[error("it took longer than {0:?} and was killed")]
    Time(Duration),
    #[error("{0}")]
    Status(std::process::ExitStatus),
}

fn run(hook: &Hook, incident: &Told) -> Result<(), HookError> {
    // A file: whether it reads or not, nobody waits.
    let input = rustix::fs::memfd_create("lazaret-incident", MemfdFlags::CLOEXEC)
        .map_err(io::Error::from)?;
    let mut input = File::from(input);
    input.write_all(&incident.json)?;
    input.rewind()?;
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(&hook.command)
        .env("LAZARET_INCIDENT", &incident.id)
        .env("LAZARET_SEVERITY", incident.severity.name())
        .env("LAZARET_TENANT", incident.tenant.as_deref().unwrap_or(""))
        .stdin(Stdio::from(input))
        // Standard output is for results.
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    let status = wait(&mut child, hook.time)?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(HookError::Status(status)),
        None => Err(HookError::Time(hook.time)),
    }
}

/// Waits for its end; none if that took too long and it was killed.
fn wait(child: &mut Child, time: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= time {
            // Not reaped yet, so the number is still its own.
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Evidence, Stamp, Subject, What};
    use super::*;

    fn incident(what: What) -> Incident {
        let subject = Subject {
            tenant: Some("shop".into()),
            worker: "tenant".into(),
            module: None,
        };
        Incident::new(Stamp::now(), subject, what, Evidence::default())
    }

    #[test]
    fn a_command_is_told_of_what_is_bad_enough() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("told");
        let command = format!(
            "cat >> {0}; echo $LAZARET_INCIDENT $LAZARET_SEVERITY $LAZARET_TENANT >> {0}",
            file.display()
        );
        let running = Running::start(Hook::shell(command)).unwrap();
        running.tell(&incident(What::Limit {
            limit: "time".into(),
            detail: String::new(),
        }));
        let bad = incident(What::ForbiddenCall { call: None });
        running.tell(&bad);
        drop(running);
        let told = std::fs::read_to_string(file).unwrap();
        let (json, words) = told.rsplit_once('}').unwrap();
        let read: Incident = serde_json::from_str(&format!("{json}}}")).unwrap();
        assert_eq!(read, bad);
        assert_eq!(words.trim(), format!("{} critical shop", bad.id));
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children_and_one_that_fails_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("late");
        let hook = Hook {
            time: Duration::from_millis(300),
            ..Hook::shell(format!("(sleep 5; touch {}) & wait", file.display()))
        };
        let told = || Told {
            id: "x".into(),
            severity: Severity::High,
            tenant: None,
            json: vec![b'x'; 1 << 20],
        };
        assert!(matches!(run(&hook, &told()), Err(HookError::Time(_))));
        assert!(matches!(
            run(&Hook::shell("exit 3"), &told()),
            Err(HookError::Status(status)) if status.code() == Some(3)
        ));
        // One that reads nothing holds nobody up.
        run(&Hook::shell("true"), &told()).unwrap();
        assert!(!file.exists());
    }
}
