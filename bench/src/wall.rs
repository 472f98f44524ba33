//! What the wall costs: the same worker with every layer, and with none that can
//! be left out.

use lazaret::Builder;
use lazaret::wall::{Layer, Off};

use crate::Options;
use crate::error::BenchError;
use crate::memory;
use crate::sample::{MICROSECOND, MILLISECOND};
use crate::start::Pair;
use crate::table::{Row, Target};

/// Calls in a row, before it is the other's turn.
const CALLS: usize = 50;

pub(crate) fn rows(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    if !options.wants_any(&["wall/call", "wall/start", "wall/memory"]) {
        return Ok(());
    }
    progress("a worker with every layer, and with none that can be left out");
    let without = |builder: Builder, layer: Layer| builder.without(layer);
    let bare = Off::removable().fold(options.host(), without);
    let pair = Pair::new(options, [options.host(), bare])?;
    let baseline = "the same without the layers that can be left out";
    if options.wants("wall/call") {
        let [with, without] = pair.time(options.times(400), |tenant, sample| {
            for _ in 0..CALLS {
                sample.time(|| tenant.query("empty", &[]))?;
            }
            Ok(())
        })?;
        rows.push(
            Row::new("wall/call", "empty query behind every layer", "us")
                .ours(with.len(), with.quantiles(MICROSECOND))
                .baseline(baseline, without.quantiles(MICROSECOND))
                .target(Target::Ratio(1.05)),
        );
    }
    if options.wants("wall/start") {
        let [with, without] = pair.starts(options.times(300))?;
        rows.push(
            Row::new(
                "wall/start",
                "start of a worker and its first answer, behind every layer",
                "ms",
            )
            .ours(with.len(), with.quantiles(MILLISECOND))
            .baseline(baseline, without.quantiles(MILLISECOND))
            .target(Target::Ratio(1.3)),
        );
    }
    if options.wants("wall/memory") {
        let [with, without] = pair.hosts.each_ref().map(|(host, _)| memory::idle(host));
        rows.push(
            Row::new(
                "wall/memory",
                "memory of an idle worker, private, behind every layer",
                "MiB",
            )
            .ours(memory::WORKERS.len(), Some(with?.private))
            .baseline(baseline, Some(without?.private)),
        );
    }
    Ok(())
}
