//! The curves as CSV: a line about the machine, one with the columns' names, and
//! one for each point.

use std::path::Path;

use super::start::Size;
use super::updates::Point;
use crate::csv::write;
use crate::error::BenchError;
use crate::machine::Machine;

pub(super) fn updates(path: &Path, machine: &Machine, points: &[Point]) -> Result<(), BenchError> {
    let head = "heap_mib,stride_kib,order,pages,n,update_us,update_p99_us,on_disk_us,baseline_us,baseline_p99_us,ratio,first_us";
    let line = |point: &Point| {
        format!(
            "{},{},{},{},{},{:.2},{:.2},{:.2},{:.2},{:.2},{:.3},{:.2}",
            point.heap >> 20,
            point.stride >> 10,
            point.order.name(),
            point.pages,
            point.n,
            point.ours.p50,
            point.ours.p99,
            point.on_disk.p50,
            point.baseline.p50,
            point.baseline.p99,
            point.ratio(),
            point.first
        )
    };
    write(path, machine, head, points.iter().map(line))
}

pub(super) fn starts(path: &Path, machine: &Machine, sizes: &[Size]) -> Result<(), BenchError> {
    let head = "state_mib,n,first_call_us,first_call_p99_us,query_us,query_p99_us";
    let line = |size: &Size| {
        format!(
            "{},{},{:.2},{:.2},{:.2},{:.2}",
            size.mib, size.n, size.first.p50, size.first.p99, size.query.p50, size.query.p99
        )
    };
    write(path, machine, head, sizes.iter().map(line))
}
