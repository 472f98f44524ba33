//! Rows of text in columns that are as wide as they must be.

use crate::output::TITLE;

/// A line for the titles and one for each row, without line breaks.
pub(crate) fn columns<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = titles
        .iter()
        .enumerate()
        .map(|(column, title)| title.len().max(width(column)))
        .collect();
    let line = |row: &[String]| {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = format!("{TITLE}{}{TITLE:#}", line(&titles.map(str::to_owned)));
    std::iter::once(head)
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}
