//! What many tenants cost, drawn over how many there are.

use std::path::{Path, PathBuf};

use super::calls::Calls;
use super::starts::Starts;
use crate::chart::{COLOURS, Line, MARKERS, Panel, Plot, draw};
use crate::csv;
use crate::error::BenchError;
use crate::machine::Machine;
use crate::sample::Quantiles;

/// A curve: how many there are, and what was measured then.
pub(super) type Curve = Vec<(usize, Quantiles)>;

/// Writes plots and data into a directory; the files.
pub(super) fn write(
    directory: &Path,
    machine: &Machine,
    starts: &Starts,
    calls: &Calls,
) -> Result<Vec<PathBuf>, BenchError> {
    std::fs::create_dir_all(directory)
        .map_err(BenchError::system("making the directory for figures"))?;
    let files = ["scale-start.svg", "scale-call.svg", "scale.csv"];
    let files = files.map(|name| directory.join(name));
    let [pool, cold] = starts.curves();
    curves(
        &files[0],
        "Start of a worker beside idle ones",
        ("idle workers", "ms to the first answer"),
        [("from the pool", &pool), ("without the pool", &cold)],
    )?;
    let [queries, updates] = calls.curves();
    curves(
        &files[1],
        "An empty call to each tenant in turns",
        ("tenants, each with a worker", "µs"),
        [("query", &queries), ("update", &updates)],
    )?;
    let lines = [
        ("start_pool_ms", &pool),
        ("start_cold_ms", &cold),
        ("query_us", &queries),
        ("update_us", &updates),
    ]
    .into_iter()
    .flat_map(|(what, curve)| {
        curve
            .iter()
            .map(move |(count, found)| format!("{what},{count},{:.4},{:.4}", found.p50, found.p99))
    });
    csv::write(&files[2], machine, "what,tenants,p50,p99", lines)?;
    Ok(files.to_vec())
}

/// Two curves, each with its median and its slow end.
fn curves(
    path: &Path,
    title: &str,
    (x, y): (&str, &str),
    sides: [(&str, &Curve); 2],
) -> Result<(), BenchError> {
    let mut lines = Vec::new();
    for ((_, curve), colour) in sides.iter().zip(COLOURS) {
        let ends: [fn(&Quantiles) -> f64; 2] = [|found| found.p50, |found| found.p99];
        for (end, marker) in ends.into_iter().zip(MARKERS) {
            let point = |(count, found): &(usize, Quantiles)| (*count as f64, end(found));
            let points = curve.iter().map(point).collect();
            lines.push(Line {
                colour,
                marker,
                points,
            });
        }
    }
    draw(
        path,
        &Plot {
            x: (x, 10.0),
            y: (y, 2.0),
            panels: vec![Panel {
                title: title.to_owned(),
                lines,
            }],
            colours: sides.map(|(name, _)| name.to_owned()).to_vec(),
            markers: vec!["p50".into(), "p99".into()],
            target: None,
        },
    )
}
