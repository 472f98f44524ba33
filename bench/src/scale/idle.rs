//! What idle workers take: memory, processor time, threads and descriptors.

use std::time::{Duration, Instant};

use super::{Crowd, available};
use crate::Options;
use crate::error::BenchError;
use crate::sample::Quantiles;
use crate::table::{Row, Target};

/// How long nobody calls.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn rows(
    options: &Options,
    crowd: &Crowd,
    available_before: u64,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    let workers = crowd.tenants.len();
    let one = |value: f64| {
        Some(Quantiles {
            p50: value,
            p99: value,
        })
    };
    if options.wants("scale/memory") {
        let taken = available_before.saturating_sub(available());
        let each = taken as f64 / workers as f64 / f64::from(1 << 20);
        rows.push(
            Row::new(
                "scale/memory",
                format!("memory that the machine lacks for each of {workers} idle workers"),
                "MiB",
            )
            .ours(workers, one(each))
            .note("all of it: the kernel's for its process and namespaces, page tables, and what its tenant takes in the host"),
        );
    }
    if options.wants("scale/descriptors") {
        let images = crowd.host.pool().image_files;
        let own = descriptors().saturating_sub(images);
        let more = own.saturating_sub(crowd.descriptors) as f64;
        let state = crowd.host.pool();
        rows.push(
            Row::new(
                "scale/descriptors",
                format!("descriptors in the host for each of {workers} idle workers"),
                "",
            )
            .ours(workers, one(more / (state.workers + state.blanks - 1).max(1) as f64))
            .target(Target::Value(3.0))
            .note(format!(
                "blank ones counted; beside {} that the host had with one worker, and {images} of files of images, at most an eighth of the limit",
                crowd.descriptors
            )),
        );
    }
    if options.wants("scale/idle") {
        let silence = match options.quick {
            true => Duration::from_millis(300),
            false => SILENCE,
        };
        progress(&format!("{workers} idle workers, for {silence:?}"));
        // This process's own time without what it takes to ask for that of thousands.
        let others = others(crowd);
        let own = of_process(std::process::id() as i32);
        let begin = Instant::now();
        std::thread::sleep(silence);
        let own = of_process(std::process::id() as i32).saturating_sub(own);
        let time = begin.elapsed();
        let used = own + self::others(crowd).saturating_sub(others);
        let share = used.as_secs_f64() / time.as_secs_f64();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        rows.push(
            Row::new(
                "scale/idle",
                format!(
                    "processor time of {workers} idle workers and their host, of the machine's"
                ),
                "%",
            )
            .ours(1, one(share * 100.0 / processors as f64))
            .target(Target::Value(1.0))
            .note(format!(
                "{} threads in the host",
                std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
            )),
        );
    }
    Ok(())
}

/// How many descriptors this process has open.
pub(super) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Processor time of the crowd's workers and launchers so far.
fn others(crowd: &Crowd) -> Duration {
    let pids = crowd
        .tenants
        .iter()
        .filter_map(|tenant| tenant.info().worker);
    let launchers = crowd.host.launcher_pids();
    pids.chain(launchers).map(of_process).sum()
}

/// Fields 14 and 15 of `/proc/PID/stat`, in clock ticks (proc_pid_stat(5)).
fn of_process(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let a_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs_f64(ticks as f64 / a_second as f64)
}
