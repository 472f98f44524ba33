//! The start of a locked worker, until it has answered its first call.

use std::process::Command;
use std::time::{Duration, Instant};

use lazaret::wall::layers::seccomp::Denied;
use lazaret::wall::layers::{descriptors, namespaces};
use lazaret::wall::receipt::{self, Early, Expected};
use lazaret::wall::{Kind, Off, Receipt};
use lazaret::{Builder, CgroupMode, Host, Tenant};

use crate::Options;
use crate::error::BenchError;
use crate::sample::{MICROSECOND, MILLISECOND, Sample};
use crate::table::{Row, Target};

const EMPTY: &str = include_str!("../../tests/fixtures/wat/empty.wat");

/// The smallest program that is everywhere.
const TRUE: &str = "/bin/true";

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if options.wants("start") {
        rows.push(start(options, progress)?);
    }
    if options.wants("start/pool") {
        rows.push(from_pool(options, progress)?);
    }
    if options.wants("start/cgroup") {
        rows.push(with_groups(options, progress)?);
    }
    Ok(())
}

fn start(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Row, BenchError> {
    progress("the start of a locked worker");
    let directory = options.temporary()?;
    let host = options
        .host()
        .data_dir(directory.path())
        .relaxed_durability()
        .build()?;
    let tenant = host.install("empty", EMPTY, &[])?;
    tenant.query("empty", &[])?;
    let off = Off::new(options.profile.without()).unwrap_or(Off::NONE);
    let own = namespaces::Own::look().map_err(|found| {
        BenchError::system("looking at this process's namespaces")(std::io::Error::other(found))
    })?;
    let (mut ours, mut theirs, mut verify, mut end) = (
        Sample::default(),
        Sample::default(),
        Sample::default(),
        Sample::default(),
    );
    for _ in 0..options.times(300) {
        let worker = tenant.info().worker;
        end.time(|| {
            tenant.sleep();
            gone(worker)
        })?;
        ours.time(|| tenant.query("empty", &[]))?;
        verify.time(|| look_again(&tenant, &own, off))?;
        theirs.time(exec_true)?;
    }
    Ok(Row::new(
        "start",
        "start of a locked worker and its first answer (module cached)",
        "ms",
    )
    .ours(ours.len(), ours.quantiles(MILLISECOND))
    .baseline(
        "fork and exec of /bin/true, until it is waited for",
        theirs.quantiles(MILLISECOND),
    )
    .target(Target::Ratio(4.0))
    .note(format!(
        "verification from outside, as part of it: {:.0} us",
        verify.median(MICROSECOND)
    ))
    .note(format!(
        "the end of the worker before, not part of it: {:.2} ms",
        end.median(MILLISECOND)
    )))
}

/// The same where a blank worker waits.
fn from_pool(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Row, BenchError> {
    progress("the start of a locked worker from the pool");
    let pair = Pair::new(
        options,
        [
            options.host().pool(|pool| pool.blanks = 1),
            options.host().pool(|pool| pool.blanks = 0),
        ],
    )?;
    let mut samples = [Sample::default(), Sample::default()];
    for _ in 0..options.times(300) {
        for ((host, tenant), sample) in pair.hosts.iter().zip(&mut samples) {
            let worker = tenant.info().worker;
            tenant.sleep();
            gone(worker)?;
            // The next blank worker is made meanwhile, of the host that has any.
            let begin = Instant::now();
            while host.pool().blanks == 0 && begin.elapsed() < Duration::from_millis(100) {
                std::thread::sleep(Duration::from_micros(100));
            }
            sample.time(|| tenant.query("empty", &[]))?;
        }
    }
    let [with, without] = samples;
    let [(host, _), _] = &pair.hosts;
    let state = host.pool();
    Ok(Row::new(
        "start/pool",
        "start of a locked worker from the pool, and its first answer",
        "ms",
    )
    .ours(with.len(), with.quantiles(MILLISECOND))
    .baseline("the same without the pool", without.quantiles(MILLISECOND))
    .target(Target::Value(1.0))
    .note(format!(
        "{} of {} workers were waiting as blanks",
        state.from_blanks, state.started
    )))
}

/// Two hosts that are measured in turns, each with a tenant that has been called.
pub(crate) struct Pair {
    pub(crate) hosts: [(Host, Tenant); 2],
    _directories: [tempfile::TempDir; 2],
}

impl Pair {
    /// Hosts with these options.
    pub(crate) fn new(options: &Options, builders: [Builder; 2]) -> Result<Self, BenchError> {
        let [one, other] = builders;
        let made = |builder: Builder| {
            let directory = options.temporary()?;
            let host = builder
                .data_dir(directory.path())
                .relaxed_durability()
                .build()?;
            let tenant = host.install("empty", EMPTY, &[])?;
            tenant.query("empty", &[])?;
            Ok::<_, BenchError>(((host, tenant), directory))
        };
        let ((one, first), (other, second)) = (made(one)?, made(other)?);
        Ok(Self {
            hosts: [one, other],
            _directories: [first, second],
        })
    }

    /// Times something with both tenants, so often each.
    pub(crate) fn time(
        &self,
        times: usize,
        mut what: impl FnMut(&Tenant, &mut Sample) -> Result<(), BenchError>,
    ) -> Result<[Sample; 2], BenchError> {
        let mut samples = [Sample::default(), Sample::default()];
        for round in 0..times {
            // Neither is always the one after the other.
            for turn in [round % 2, 1 - round % 2] {
                if let (Some((_, tenant)), Some(sample)) =
                    (self.hosts.get(turn), samples.get_mut(turn))
                {
                    what(tenant, sample)?;
                }
            }
        }
        Ok(samples)
    }

    /// The start of a worker and its first answer.
    pub(crate) fn starts(&self, times: usize) -> Result<[Sample; 2], BenchError> {
        self.time(times, |tenant, sample| {
            let worker = tenant.info().worker;
            tenant.sleep();
            gone(worker)?;
            sample.time(|| tenant.query("empty", &[]))?;
            Ok(())
        })
    }
}

/// The same with control groups and without, in turns.
fn with_groups(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Row, BenchError> {
    progress("the start of a locked worker with control groups and without");
    let pair = Pair::new(
        options,
        [CgroupMode::Auto, CgroupMode::Off]
            .map(|mode| options.host().cgroups(|options| options.mode = mode)),
    )?;
    let [with, without] = pair.starts(options.times(300))?;
    let row = Row::new(
        "start/cgroup",
        "start of a locked worker and its first answer, in a control group",
        "ms",
    )
    .ours(with.len(), with.quantiles(MILLISECOND))
    .baseline(
        "the same without (--cgroup off)",
        without.quantiles(MILLISECOND),
    )
    .target(Target::Ratio(1.3));
    let [(host, _), _] = &pair.hosts;
    Ok(
        match host.cgroups().ok().and_then(|groups| groups.degraded()) {
            Some((missing, _)) => {
                row.note(format!("not all of control groups works here: {missing}"))
            }
            None => row,
        },
    )
}

/// Waits until a worker's process is gone, so that its end isn't part of the
/// next one's start.
pub(crate) fn gone(worker: Option<i32>) -> Result<(), BenchError> {
    let Some(pid) = worker else { return Ok(()) };
    let process = format!("/proc/{pid}");
    let begin = Instant::now();
    while std::fs::exists(&process).unwrap_or(false) {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(BenchError::system("waiting for the end of a worker")(
                std::io::ErrorKind::TimedOut.into(),
            ));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Looks at the worker as its host did when it started.
fn look_again(tenant: &Tenant, own: &namespaces::Own, off: Off) -> Result<Receipt, BenchError> {
    let verified = tenant.receipt()?;
    let missing: Vec<_> = verified
        .layers
        .iter()
        .filter(|entry| matches!(entry.state, receipt::State::Missing(_)))
        .map(|entry| entry.layer)
        .collect();
    let again = |unverified| {
        BenchError::system("verifying a worker again")(std::io::Error::other(unverified))
    };
    let early = Early::look(verified.pid).map_err(again)?;
    let status = receipt::status(verified.pid).map_err(again)?;
    let expected = Expected {
        status: &status,
        early: &early,
        kind: Kind::Tenant,
        denied: Denied::Notify,
        learning: false,
        pid: verified.pid,
        host_uid: verified.host_uid,
        own,
        descriptors: descriptors::Expected {
            fixed: &[],
            directories: 0,
        },
        missing: &missing,
        accepted: &missing,
        off,
    };
    let verified = Receipt::verify(&expected).map_err(again);
    verified.map(|(receipt, _)| receipt)
}

fn exec_true() -> Result<(), BenchError> {
    let status = Command::new(TRUE)
        .status()
        .map_err(BenchError::system("fork and exec of /bin/true"))?;
    match status.success() {
        true => Ok(()),
        false => Err(BenchError::Program {
            program: TRUE.to_owned(),
            message: status.to_string(),
        }),
    }
}
