//! The plots: what is drawn over what.

use std::path::Path;

use super::start::Size;
use super::updates::{Order, Point};
use crate::chart::{COLOURS, Line, MARKERS, Panel, Plot, draw};
use crate::error::BenchError;

/// Ours divided by the baseline, over the pages written.
pub(super) fn ratios(path: &Path, points: &[Point]) -> Result<(), BenchError> {
    let panels = by_heap(points, |points| {
        lines(points, |point| (point.stride, point.order as usize))
            .map(|((stride, order), points)| Line {
                colour: COLOURS[rank(STRIDES, stride)],
                marker: MARKERS[order % MARKERS.len()],
                points: curve(&points, Point::ratio),
            })
            .collect()
    });
    draw(
        path,
        &Plot {
            x: ("pages written by the update", 4.0),
            y: ("update, committed ÷ fresh in-process instance", 2.0),
            panels,
            colours: STRIDES.map(stride_name).to_vec(),
            markers: Order::ALL.map(|order| order.name().to_owned()).to_vec(),
            target: Some((1.0, "to reach from 100 pages on: at most 1.0")),
        },
    )
}

/// One of a point's times.
type Time = fn(&Point) -> f64;

/// Microseconds a page, over the pages written, ascending.
pub(super) fn times(path: &Path, points: &[Point]) -> Result<(), BenchError> {
    let forward: Vec<Point> = points
        .iter()
        .filter(|point| point.order == Order::Forward)
        .copied()
        .collect();
    let sides: [(&str, Time); 3] = [
        ("update, committed to the page cache", |point| {
            point.ours.p50
        }),
        ("and put on disk (checkpoint)", |point| point.on_disk.p50),
        ("fresh in-process instance, keeps nothing", |point| {
            point.baseline.p50
        }),
    ];
    let panels = by_heap(&forward, |points| {
        let mut all = Vec::new();
        for (stride, points) in lines(points, |point| point.stride) {
            for ((_, time), colour) in sides.iter().zip(COLOURS) {
                all.push(Line {
                    colour,
                    marker: MARKERS[rank(STRIDES, stride)],
                    points: curve(&points, |point| time(point) / point.pages as f64),
                });
            }
        }
        all
    });
    draw(
        path,
        &Plot {
            x: ("pages written by the update, ascending", 4.0),
            y: ("µs a page", 10.0),
            panels,
            colours: sides.map(|(name, _)| name.to_owned()).to_vec(),
            markers: STRIDES.map(stride_name).to_vec(),
            target: None,
        },
    )
}

/// Microseconds of a first call and of a query, over the state's size.
pub(super) fn starts(path: &Path, sizes: &[Size]) -> Result<(), BenchError> {
    let line = |which: usize, time: fn(&Size) -> f64| Line {
        colour: COLOURS[which],
        marker: MARKERS[which],
        points: sizes
            .iter()
            .map(|size| (size.mib as f64, time(size)))
            .collect(),
    };
    draw(
        path,
        &Plot {
            x: ("state, MiB", 4.0),
            y: ("µs", 10.0),
            panels: vec![Panel {
                title: "Calls by the size of the state".to_owned(),
                lines: vec![
                    line(0, |size| size.first.p50),
                    line(1, |size| size.query.p50),
                ],
            }],
            colours: vec!["first call, no worker yet".into(), "query after it".into()],
            markers: Vec::new(),
            target: None,
        },
    )
}

const STRIDES: [u64; 3] = [4 << 10, 8 << 10, 64 << 10];

fn stride_name(stride: u64) -> String {
    match stride >> 10 {
        4 => "every page (4 KiB)".to_owned(),
        8 => "every other page (8 KiB)".to_owned(),
        kib => format!("a page in {kib} KiB"),
    }
}

fn rank(of: [u64; 3], value: u64) -> usize {
    of.iter().position(|one| *one == value).unwrap_or(0)
}

/// The points in groups of equal `key`, in the order in which they come.
fn lines<K: PartialEq>(
    points: &[Point],
    key: impl Fn(&Point) -> K,
) -> impl Iterator<Item = (K, Vec<Point>)> {
    let mut groups: Vec<(K, Vec<Point>)> = Vec::new();
    for point in points {
        let key = key(point);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(*point),
            None => groups.push((key, vec![*point])),
        }
    }
    groups.into_iter()
}

fn by_heap(points: &[Point], make: impl Fn(&[Point]) -> Vec<Line>) -> Vec<Panel> {
    lines(points, |point| point.heap)
        .map(|(heap, points)| Panel {
            title: match heap >> 20 {
                mib @ 0..1024 => format!("heap of {mib} MiB"),
                mib => format!("heap of {} GiB", mib >> 10),
            },
            lines: make(&points),
        })
        .collect()
}

fn curve(points: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    points
        .iter()
        .map(|point| (point.pages as f64, value(point)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_titles_units_and_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("start.svg");
        let quantiles = |p50| crate::Quantiles { p50, p99: p50 };
        let sizes = [1, 16, 1024].map(|mib| Size {
            mib,
            n: 3,
            first: quantiles(3000.0),
            query: quantiles(1.7),
        });
        starts(&path, &sizes).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for words in ["state, MiB", "µs", "first call", "<polyline", "</svg>"] {
            assert!(text.contains(words), "{words} is missing in {text}");
        }
        assert!(matches!(
            starts(Path::new("/proc/nowhere/x.svg"), &sizes),
            Err(BenchError::Plot { .. })
        ));
    }
}
