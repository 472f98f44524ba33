//! Where drills are run: a host with the layers that are asked for, a tenant that
//! is taken over, a neighbour that isn't, and the decoys of both.

mod effect;
pub mod look;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lazaret::wall::launcher::HostIds;
use lazaret::wall::receipt::{Receipt, State};
use lazaret::wall::{Grade, Layer};
use lazaret::{
    BuildError, Builder, CallError, CallOptions, CgroupMode, Ending, Host, Output, Tenant,
    TenantError, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use thiserror::Error;

pub(crate) use self::effect::interfaces;
use self::look::Look;
use crate::decoys::{DecoyError, Decoys};
use crate::drill::{Aim, Barrier, DONE, DRILL, Drill, REFUSED, Stand};
use crate::seen::Seen;
use crate::{ATTACK, TENANT};

/// Limits of heap and of stable memory: small, so that bombs are cheap. The
/// attacks on memory know them.
pub const MEMORY: u64 = 64 << 20;

/// How long a drill may take.
const TIME: Duration = Duration::from_secs(10);
/// How often an effect is looked for while a drill runs.
const LOOK: Duration = Duration::from_millis(4);

/// A program that imports whatever any system call could be needed for.
const PROGRAM: &str = include_str!("program.wat");

/// The red team itself couldn't go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RangeError {
    /// A decoy.
    #[error(transparent)]
    Decoy(#[from] DecoyError),
    /// The host.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A tenant.
    #[error("the tenant {name}: {source}")]
    Tenant {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: TenantError,
    },
    /// A tenant that is honest gives no answer.
    #[error("the tenant {name} doesn't answer: {source}")]
    Call {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: CallError,
    },
    /// Without user ids for workers.
    #[error(transparent)]
    Ids(#[from] lazaret::wall::launcher::IdsError),
    /// The neighbour was told something wrong.
    #[error("the neighbour counts {found}, not {expected}")]
    Neighbour {
        /// Its sum.
        found: String,
        /// What it should be.
        expected: u64,
    },
    /// Something of this process.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How ranges are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executable that knows the red team's worker and decoy by their names.
    pub executable: PathBuf,
    /// Layers that this host may lack.
    pub accept_missing: Vec<Layer>,
}

/// The user that workers and decoys have, where that is another than this
/// process's: root's workers otherwise have an id each.
///
/// # Errors
/// If root has no id to spare.
pub fn user() -> Result<Option<u32>, RangeError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let ids = HostIds::choose(None)?;
    Ok(Some(ids.host_uid(ids.first_id.saturating_add(6))))
}

/// Whether somebody has put a filter around this process, as containers do. An error
/// of its takes precedence over a notification (seccomp(2)): what it refuses doesn't
/// happen either, and isn't told.
pub fn has_outer_filter() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .filter_map(|line| line.strip_prefix("Seccomp:"))
            .any(|mode| mode.trim() != "0")
    })
}

/// What came of one run of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// The effect was there: how it was seen.
    Effect(String),
    /// It wasn't: where the attacker was stopped.
    Stopped(Stop),
}

/// Where an attacker was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Whether by the filter, which says so itself.
    pub forbidden: bool,
    /// The kernel's error, if the attacker got one.
    pub errno: Option<i32>,
    /// In words.
    pub how: String,
}

/// A host, its two tenants, and what has been left out.
#[derive(Debug)]
pub struct Range {
    host: Host,
    hostile: Tenant,
    neighbour: Tenant,
    sum: Mutex<u64>,
    receipt: Receipt,
}

impl Range {
    /// A host without these layers. Its tenants are kept below `data`, and what it
    /// compiles in `cache`.
    ///
    /// # Errors
    /// If it can't be made, or its tenants don't run.
    pub fn new(
        options: &Options,
        off: &[Barrier],
        data: &Path,
        cache: &Path,
    ) -> Result<Self, RangeError> {
        let mut builder = Host::builder()
            .worker_exe(&options.executable)
            .red_team(user()?)
            .data_dir(data)
            .cache_dir(cache)
            .relaxed_durability()
            .memory_budget(64 * MEMORY)
            .tenant_limits(|limits| {
                limits.heap = MEMORY;
                limits.stable = MEMORY;
            })
            .host_function("note", 64, 64, |_| Ok(b"noted".to_vec()))
            .cgroups(|groups| groups.quiet = true);
        for layer in &options.accept_missing {
            builder = builder.accept_missing(*layer);
        }
        for barrier in off {
            builder = without(builder, *barrier);
        }
        let host = builder.build()?;
        let tenant = |name: &'static str| {
            host.install(name, TENANT, b"")
                .map_err(|source| RangeError::Tenant { name, source })
        };
        let (hostile, neighbour) = (tenant("hostile")?, tenant("neighbour")?);
        let range = Self {
            receipt: hostile.receipt().map_err(call("hostile"))?,
            host,
            hostile,
            neighbour,
            sum: Mutex::new(0),
        };
        range.neighbour_is_right()?;
        Ok(range)
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The tenant that is taken over.
    pub fn hostile(&self) -> &Tenant {
        &self.hostile
    }

    /// The grade of its walls.
    pub fn grade(&self) -> Grade {
        self.receipt.grade
    }

    /// Whether workers have this here.
    pub fn has(&self, barrier: Barrier) -> bool {
        match barrier {
            Barrier::Wall(layer) => self.receipt.layers.iter().any(|entry| {
                entry.layer == layer
                    && matches!(entry.state, State::Verified(_) | State::Applied(_))
            }),
            Barrier::ControlGroup => self
                .receipt
                .cgroup
                .as_ref()
                .is_some_and(|group| matches!(group.state, State::Verified(_))),
        }
    }

    /// The neighbour counts, rightly.
    ///
    /// # Errors
    /// If it doesn't, or not at all.
    pub fn neighbour_is_right(&self) -> Result<(), RangeError> {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        *sum += 3;
        let reply = self
            .neighbour
            .update("add", &3u64.to_le_bytes())
            .map_err(call("neighbour"))?;
        let got = self
            .neighbour
            .query("get", b"")
            .map_err(call("neighbour"))?;
        match (&reply.bytes, &got.bytes) {
            (one, other) if one == &sum.to_le_bytes() && other == &sum.to_le_bytes() => Ok(()),
            (one, other) => Err(RangeError::Neighbour {
                found: format!("{one:?}, then {other:?}"),
                expected: *sum,
            }),
        }
    }

    /// Ends the workers of the tenant that is taken over, whatever they are at.
    pub fn end_workers(&self) {
        for pid in self.hostile.info().workers {
            let handle = Pid::from_raw(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
            end(handle.as_ref());
            wait(handle.as_ref());
        }
    }

    /// A worker for the tenant that is taken over: its number. It is as honest as any,
    /// until it is asked for an attack.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn worker(&self) -> Result<i32, RangeError> {
        let mut last = None;
        // One that was killed a moment ago may not be known to be gone.
        for _ in 0..5 {
            match self.hostile.update("add", &0u64.to_le_bytes()) {
                Ok(_) => {
                    if let Some(pid) = self.hostile.info().worker {
                        return Ok(pid);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(source) => Err(call("hostile")(source)),
            None => Err(RangeError::System {
                what: "the tenant that is taken over",
                source: std::io::Error::other("it has no worker"),
            }),
        }
    }

    /// Runs a drill, and looks for its effect.
    ///
    /// # Errors
    /// If the red team itself can't go on; never for what the drill does.
    pub fn run(&self, drill: &Drill, decoys: &mut Decoys) -> Result<Ran, RangeError> {
        decoys.renew()?;
        let words = decoys.words().map_err(|source| RangeError::System {
            what: "the decoys' addresses",
            source,
        })?;
        let mut again = 3;
        let text = format!("{DRILL} {} {words}", drill.name);
        let (seen, effect) = loop {
            let came = self.once(drill, &text, decoys)?;
            again -= 1;
            // The host looks at its workers now and then, and ends one that has changed
            // since it was verified: that would hide what else stops it.
            match &came {
                (Seen::Ended(Ending::Changed(_)), None) if again > 0 => {}
                _ => break came,
            }
        };
        Ok(match effect {
            Some(effect) => Ran::Effect(effect),
            None => Ran::Stopped(stop(&seen)),
        })
    }

    /// Runs a drill: how it ended, and its effect if it had any.
    fn once(
        &self,
        drill: &Drill,
        text: &str,
        decoys: &mut Decoys,
    ) -> Result<(Seen, Option<String>), RangeError> {
        match drill.stand {
            Stand::Tenant => self.run_in_tenant(drill, text, decoys),
            Stand::Reader | Stand::Writer => {
                let _turns = decoys.files.take_turns();
                let seen = self.run_in_program(drill, text, decoys);
                let reply = reply(&seen);
                let effect = effect::seen(drill.aim, decoys, None, reply.as_deref());
                Ok((seen, effect))
            }
        }
    }

    fn run_in_tenant(
        &self,
        drill: &Drill,
        text: &str,
        decoys: &mut Decoys,
    ) -> Result<(Seen, Option<String>), RangeError> {
        let pid = self.worker()?;
        let before = Look::at(pid);
        let handle = Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let options = CallOptions {
            time: Some(TIME),
            ..CallOptions::default()
        };
        let live = shows_while_running(drill.aim);
        let (seen, mut effect) = std::thread::scope(|scope| {
            let call = scope
                .spawn(|| Seen::call(self.hostile.update_with(ATTACK, text.as_bytes(), &options)));
            let mut effect = None;
            while live && !call.is_finished() {
                std::thread::sleep(LOOK);
                effect = effect::seen(drill.aim, decoys, Some(&before), None);
                if effect.is_some() {
                    end(handle.as_ref());
                    break;
                }
                // Another program in the worker's place answers nobody.
                if drill.aim == Aim::ProgramAsRoot && before.new_program().is_some() {
                    std::thread::sleep(LOOK);
                    effect = effect::seen(drill.aim, decoys, Some(&before), None);
                    end(handle.as_ref());
                    break;
                }
            }
            let seen = call
                .join()
                .unwrap_or_else(|_| Seen::Other("the call panicked".into()));
            (seen, effect)
        });
        if effect.is_none() {
            effect = effect::seen(drill.aim, decoys, Some(&before), reply(&seen).as_deref());
        }
        // The next one finds nothing of this one.
        end(handle.as_ref());
        wait(handle.as_ref());
        Ok((seen, effect))
    }

    fn run_in_program(&self, drill: &Drill, text: &str, decoys: &Decoys) -> Seen {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let program = self
            .host
            .program(PROGRAM)
            .arguments([ATTACK, text])
            .stdout(Output::Buffer(printed.clone()))
            .time(TIME)
            .directory(
                decoys.files.granted(),
                "/granted",
                drill.stand == Stand::Writer,
            );
        match program.run() {
            Ok(report) => match (report.verdict, report.detail) {
                (Verdict::Exited, _) => {
                    let bytes = printed.lock().unwrap_or_else(PoisonError::into_inner);
                    Seen::Reply(String::from_utf8_lossy(&bytes).into_owned())
                }
                (Verdict::TimeLimit, _) => Seen::Silence,
                (Verdict::Violation, detail) => {
                    let incidents = self.host.recent_incidents();
                    let call = incidents.last().and_then(|incident| match &incident.what {
                        lazaret::incident::What::ForbiddenCall { call } => call.clone(),
                        _ => None,
                    });
                    match call {
                        Some(call) => {
                            Seen::Ended(Ending::Violation(Box::new(lazaret::Violation {
                                call: Some(call),
                                incident: None,
                            })))
                        }
                        None => Seen::Other(detail.unwrap_or_default()),
                    }
                }
                (verdict, detail) => {
                    Seen::Other(format!("{verdict:?}: {}", detail.unwrap_or_default()))
                }
            },
            Err(error) => Seen::Other(error.to_string()),
        }
    }
}

fn call(name: &'static str) -> impl Fn(CallError) -> RangeError {
    move |source| RangeError::Call { name, source }
}

fn without(builder: Builder, barrier: Barrier) -> Builder {
    match barrier {
        Barrier::Wall(layer) => builder.without(layer),
        Barrier::ControlGroup => builder.cgroups(|groups| groups.mode = CgroupMode::Off),
    }
}

fn end(process: Option<&std::os::fd::OwnedFd>) {
    if let Some(process) = process {
        let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
    }
}

/// Until it is gone.
fn wait(process: Option<&std::os::fd::OwnedFd>) {
    if let Some(process) = process {
        let patience = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let _ = rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience));
    }
}

/// Whether an effect has to be looked for while the attacker still runs, as there
/// may be no answer.
fn shows_while_running(aim: Aim) -> bool {
    matches!(aim, Aim::Program | Aim::ProgramAsRoot | Aim::Resident(_))
}

/// What the attacker says, if it says anything.
fn reply(seen: &Seen) -> Option<String> {
    match seen {
        Seen::Reply(text) => text.strip_prefix(DONE).map(str::to_owned),
        _ => None,
    }
}

/// Where it was stopped, in words.
fn stop(seen: &Seen) -> Stop {
    let plain = |how: String| Stop {
        forbidden: false,
        errno: None,
        how,
    };
    match seen {
        Seen::Ended(Ending::Violation(violation)) => Stop {
            forbidden: true,
            errno: None,
            how: match &violation.call {
                Some(call) => format!("{call}: stopped there, and killed"),
                None => "a forbidden call, and killed for it".into(),
            },
        },
        Seen::Reply(text) => match text
            .strip_prefix(REFUSED)
            .and_then(|rest| rest.split_once(": "))
        {
            Some((step, number)) => {
                let errno: i32 = number.trim().parse().unwrap_or(0);
                Stop {
                    forbidden: false,
                    errno: Some(errno),
                    how: format!("{step}: {}", crate::errno::name(errno)),
                }
            }
            None => match text.strip_prefix(DONE) {
                Some(text) => plain(format!("it says `{text}`, and nothing came of it")),
                None => plain(format!("it says `{text}`")),
            },
        },
        Seen::Ended(ending) => plain(format!("the worker ended: {ending}")),
        Seen::Silence => plain("no answer in time, and killed".into()),
        Seen::Unreadable(text) => plain(text.clone()),
        Seen::Other(text) => plain(text.clone()),
    }
}
