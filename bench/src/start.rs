//! The start of a locked worker, until it has answered its first call.

use std::process::Command;
use std::time::{Duration, Instant};

use lazaret::Tenant;
use lazaret::wall::layers::seccomp::Denied;
use lazaret::wall::layers::{descriptors, namespaces};
use lazaret::wall::receipt::Expected;
use lazaret::wall::{Kind, Receipt};

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
    if !options.wants("start") {
        return Ok(());
    }
    progress("the start of a locked worker");
    let directory = options.temporary()?;
    let host = options
        .host()
        .data_dir(directory.path())
        .relaxed_durability()
        .build()?;
    let tenant = host.install("empty", EMPTY, &[])?;
    tenant.query("empty", &[])?;
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
        verify.time(|| look_again(&tenant, &own))?;
        theirs.time(exec_true)?;
    }
    rows.push(
        Row::new(
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
        )),
    );
    Ok(())
}

/// Waits until a worker's process is gone, so that its end isn't part of the
/// next one's start.
fn gone(worker: Option<i32>) -> Result<(), BenchError> {
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
fn look_again(tenant: &Tenant, own: &namespaces::Own) -> Result<Receipt, BenchError> {
    let receipt = tenant.receipt()?;
    let missing: Vec<_> = receipt
        .layers
        .iter()
        .filter(|entry| matches!(entry.state, lazaret::wall::receipt::State::Missing(_)))
        .map(|entry| entry.layer)
        .collect();
    let expected = Expected {
        kind: Kind::Tenant,
        denied: Denied::Notify,
        pid: receipt.pid,
        host_uid: receipt.host_uid,
        own,
        descriptors: descriptors::Expected {
            fixed: &[],
            directories: 0,
        },
        missing: &missing,
        accepted: &missing,
    };
    Receipt::verify(&expected).map_err(|unverified| {
        BenchError::system("verifying a worker again")(std::io::Error::other(unverified))
    })
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
