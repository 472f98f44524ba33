//! The table of what was measured.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::sample::Quantiles;

/// What was measured in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Where.
    pub machine: Machine,
    /// What.
    pub rows: Vec<Row>,
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// A name that doesn't change, to filter and to compare runs by.
    pub key: String,
    /// What was measured, in words.
    pub what: String,
    /// The unit of every number in the row but the ratio.
    pub unit: String,
    /// How many times ours was measured.
    pub n: usize,
    /// Ours; nothing if it could not be measured (the notes say why).
    pub ours: Option<Quantiles>,
    /// What ours is compared with.
    pub baseline: Option<Baseline>,
    /// Ours divided by the baseline, both at the median.
    pub ratio: Option<f64>,
    /// What was to reach.
    pub target: Option<Target>,
    /// Whether it was reached.
    pub met: Option<bool>,
    /// Parts, circumstances, what was left out and why.
    pub notes: Vec<String>,
}

/// What ours is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What it is.
    pub name: String,
    /// Its numbers; nothing if it could not be measured (the notes say why).
    pub measured: Option<Quantiles>,
}

/// What is to reach, at the median.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At most so many times the baseline.
    Ratio(f64),
    /// At most so many units.
    Value(f64),
}

impl Row {
    pub(crate) fn new(key: &str, what: impl Into<String>, unit: &str) -> Self {
        Self {
            key: key.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            n: 0,
            ours: None,
            baseline: None,
            ratio: None,
            target: None,
            met: None,
            notes: Vec::new(),
        }
    }

    pub(crate) fn ours(mut self, n: usize, ours: Option<Quantiles>) -> Self {
        (self.n, self.ours) = (n, ours);
        self.judged()
    }

    pub(crate) fn baseline(mut self, name: &str, measured: Option<Quantiles>) -> Self {
        self.baseline = Some(Baseline {
            name: name.to_owned(),
            measured,
        });
        self.judged()
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self.judged()
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn judged(mut self) -> Self {
        let ours = self.ours.map(|ours| ours.p50);
        let baseline = self
            .baseline
            .as_ref()
            .and_then(|baseline| baseline.measured)
            .map(|measured| measured.p50);
        self.ratio = ours
            .zip(baseline)
            .filter(|(_, baseline)| *baseline > 0.0)
            .map(|(ours, baseline)| ours / baseline);
        self.met = match self.target {
            Some(Target::Ratio(most)) => self.ratio.map(|ratio| ratio <= most),
            Some(Target::Value(most)) => ours.map(|ours| ours <= most),
            None => None,
        };
        self
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "<= {most} x"),
            Self::Value(most) => write!(f, "<= {most}"),
        }
    }
}

/// Three figures that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

const HEADS: [&str; 9] = [
    "what",
    "unit",
    "p50",
    "p99",
    "baseline p50",
    "p99",
    "ratio",
    "target",
    "",
];

impl Row {
    fn cells(&self) -> [String; HEADS.len()] {
        let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        let theirs = self
            .baseline
            .as_ref()
            .and_then(|baseline| baseline.measured);
        [
            self.what.clone(),
            self.unit.clone(),
            or_dash(self.ours.map(|ours| ours.p50)),
            or_dash(self.ours.map(|ours| ours.p99)),
            or_dash(theirs.map(|theirs| theirs.p50)),
            or_dash(theirs.map(|theirs| theirs.p99)),
            or_dash(self.ratio),
            self.target
                .map_or_else(|| "-".to_owned(), |target| target.to_string()),
            self.met
                .map_or("", |met| if met { "met" } else { "MISSED" })
                .to_owned(),
        ]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let cells: Vec<_> = self.rows.iter().map(Row::cells).collect();
        let heads = HEADS.map(str::to_owned);
        let mut widths = [0; HEADS.len()];
        for line in cells.iter().chain([&heads]) {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let write = |f: &mut fmt::Formatter<'_>, line: &[String]| {
            let mut text = String::new();
            for (index, (cell, width)) in line.iter().zip(widths).enumerate() {
                // Words to the left, numbers to the right.
                let cell = if matches!(index, 0 | 1 | 7 | 8) {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                };
                text.push_str(&cell);
            }
            writeln!(f, "{}", text.trim_end())
        };
        write(f, &heads)?;
        for line in &cells {
            write(f, line)?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{}: n = {}", row.key, row.n)?;
            if let Some(baseline) = &row.baseline {
                write!(f, "; baseline: {}", baseline.name)?;
            }
            writeln!(f)?;
            for note in &row.notes {
                writeln!(f, "    {note}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row::new("a/b", "a thing", "us")
            .ours(10, Some(Quantiles { p50: 2.0, p99: 3.0 }))
            .baseline("another", Some(Quantiles { p50: 8.0, p99: 9.0 }))
    }

    #[test]
    fn a_target_is_judged_at_the_median() {
        assert_eq!(row().met, None);
        assert_eq!(row().ratio, Some(0.25));
        assert_eq!(row().target(Target::Ratio(0.25)).met, Some(true));
        assert_eq!(row().target(Target::Ratio(0.2)).met, Some(false));
        assert_eq!(row().target(Target::Value(1.9)).met, Some(false));
        let without = Row::new("a", "a", "us")
            .ours(1, None)
            .target(Target::Ratio(1.0));
        assert_eq!((without.met, without.ratio), (None, None));
    }

    #[test]
    fn columns_line_up() {
        let mut long = row();
        long.what = "a thing with a much longer name".to_owned();
        let table = Table {
            machine: Machine::look(),
            rows: vec![row(), long.target(Target::Ratio(0.5)).note("why")],
        };
        let text = table.to_string();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("a thing") || line.starts_with("what"))
            .collect();
        assert_eq!(lines.len(), 3);
        let column = |line: &str| line.find(" us ").or(line.find(" unit"));
        assert!(
            lines.iter().all(|line| column(line) == column(lines[0])),
            "{text}"
        );
        assert!(
            text.contains("<= 0.5 x  met") && text.contains("    why"),
            "{text}"
        );
    }
}
