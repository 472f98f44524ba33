//! Drawing: panels beside one another, logarithmic on both axes, in colours that
//! can be seen on light and on dark, and a legend below.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::BenchError;

const GREY: RGBColor = RGBColor(0x80, 0x8a, 0x95);
const RED: RGBColor = RGBColor(0xd6, 0x4b, 0x4b);
/// For what the colour of a line says.
pub(crate) const COLOURS: [RGBColor; 3] = [
    RGBColor(0x3a, 0x86, 0xd0),
    RGBColor(0xdb, 0x82, 0x22),
    RGBColor(0x36, 0xa3, 0x6f),
];

/// Pixels.
const PANEL: (u32, u32) = (400, 400);
const TEXT: i32 = 14;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What the points of a line look like.
#[derive(Clone, Copy)]
pub(crate) enum Marker {
    Dot,
    Triangle,
    Cross,
}

pub(crate) const MARKERS: [Marker; 3] = [Marker::Dot, Marker::Triangle, Marker::Cross];

pub(crate) struct Line {
    pub colour: RGBColor,
    pub marker: Marker,
    pub points: Vec<(f64, f64)>,
}

pub(crate) struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// One file: panels beside one another with the same axes, and a legend below.
pub(crate) struct Plot<'a> {
    /// What an axis is, and the base of its logarithm.
    pub x: (&'a str, f64),
    pub y: (&'a str, f64),
    pub panels: Vec<Panel>,
    /// What the colours mean, and what the markers.
    pub colours: Vec<String>,
    pub markers: Vec<String>,
    /// A line across, and its name.
    pub target: Option<(f64, &'a str)>,
}

/// From the least to the largest of some values, with a little room, such that a
/// logarithm can be taken.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for value in values.filter(|value| value.is_finite() && *value > 0.0) {
        (least, most) = (least.min(value), most.max(value));
    }
    match least <= most {
        true => least * 0.8..most * 1.25,
        false => 0.5..2.0,
    }
}

/// A number on an axis: no more digits than it has.
fn number(value: &f64) -> String {
    match *value {
        value if value >= 10_000.0 && (value / 1024.0).fract() == 0.0 => {
            format!("{} Ki", value / 1024.0)
        }
        value => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

pub(crate) fn draw(path: &Path, plot: &Plot<'_>) -> Result<(), BenchError> {
    let fail = |error: &dyn Display| BenchError::Plot {
        path: path.to_path_buf(),
        message: error.to_string(),
    };
    let count = plot.panels.len().max(1);
    let width = PANEL.0 * count as u32;
    let size = (width, PANEL.1 + legend_height(plot, width));
    // Nothing is drawn behind it: the page that shows it has its own background.
    let root = SVGBackend::new(path, size).into_drawing_area();
    let (panels, below) = root.split_vertically(PANEL.1);
    let all = || plot.panels.iter().flat_map(|panel| &panel.lines);
    let x = span(all().flat_map(|line| line.points.iter().map(|point| point.0)));
    let y = span(
        all()
            .flat_map(|line| line.points.iter().map(|point| point.1))
            .chain(plot.target.map(|target| target.0)),
    );
    for (area, panel) in panels.split_evenly((1, count)).iter().zip(&plot.panels) {
        draw_panel(area, plot, panel, x.clone(), y.clone()).map_err(|error| fail(&error))?;
    }
    legend(&below, plot).map_err(|error| fail(&error))?;
    root.present().map_err(|error| fail(&error))
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_panel(
    area: &Area<'_>,
    plot: &Plot<'_>,
    panel: &Panel,
    x: Range<f64>,
    y: Range<f64>,
) -> Drawn {
    let text = ("sans-serif", TEXT).into_font().color(&GREY);
    let mut chart = ChartBuilder::on(area)
        .caption(
            &panel.title,
            ("sans-serif", TEXT + 3).into_font().color(&GREY),
        )
        .margin(8)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(
            x.clone().log_scale().base(plot.x.1),
            y.log_scale().base(plot.y.1),
        )?;
    chart
        .configure_mesh()
        .x_desc(plot.x.0)
        .y_desc(plot.y.0)
        .x_labels(10)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(text.clone())
        .axis_desc_style(text)
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.3))
        .light_line_style(TRANSPARENT)
        .draw()?;
    if let Some((target, _)) = plot.target {
        let across = [(x.start, target), (x.end, target)];
        chart.draw_series(LineSeries::new(across, RED.stroke_width(2)))?;
    }
    for line in &panel.lines {
        let points = || line.points.iter().copied();
        chart.draw_series(LineSeries::new(points(), line.colour.stroke_width(2)))?;
        let style = line.colour.filled();
        match line.marker {
            Marker::Dot => {
                chart.draw_series(points().map(|point| Circle::new(point, 3, style)))?;
            }
            Marker::Triangle => {
                chart.draw_series(points().map(|point| TriangleMarker::new(point, 5, style)))?;
            }
            Marker::Cross => {
                let style = line.colour.stroke_width(2);
                chart.draw_series(points().map(|point| Cross::new(point, 4, style)))?;
            }
        }
    }
    Ok(())
}

/// Where the legend's entries go: beside one another while there is room.
struct Places {
    width: i32,
    next: (i32, i32),
}

const INDENT: i32 = 24;
const ROW: i32 = 24;

impl Places {
    fn new(width: u32) -> Self {
        Self {
            width: width as i32,
            next: (INDENT, ROW / 2),
        }
    }

    fn take(&mut self, name: &str) -> (i32, i32) {
        // About as wide as the letters are.
        let wide = 60 + name.chars().count() as i32 * TEXT / 2;
        if self.next.0 > INDENT && self.next.0 + wide > self.width {
            self.begin_row();
        }
        let place = self.next;
        self.next.0 += wide;
        place
    }

    fn begin_row(&mut self) {
        self.next = (INDENT, self.next.1 + ROW);
    }
}

/// As many rows as the entries take.
fn legend_height(plot: &Plot<'_>, width: u32) -> u32 {
    let mut places = Places::new(width);
    let mut last = 0;
    for name in &plot.colours {
        last = places.take(name).1;
    }
    places.begin_row();
    let target = plot.target.map(|(_, name)| name.to_owned());
    for name in plot.markers.iter().chain(&target) {
        last = places.take(name).1;
    }
    (last + ROW) as u32
}

/// What the colours mean, then what the markers, then the target.
fn legend(area: &Area<'_>, plot: &Plot<'_>) -> Drawn {
    let text = TextStyle::from(("sans-serif", TEXT).into_font())
        .color(&GREY)
        .pos(Pos::new(HPos::Left, VPos::Center));
    let mut places = Places::new(area.dim_in_pixel().0);
    let stroke = |(x, y): (i32, i32), style| PathElement::new([(x, y), (x + 24, y)], style);
    let write =
        |name: &str, (x, y)| area.draw(&Text::new(name.to_owned(), (x + 32, y), text.clone()));
    for (index, (name, colour)) in plot.colours.iter().zip(COLOURS).enumerate() {
        let (x, y) = places.take(name);
        area.draw(&stroke((x, y), colour.stroke_width(3)))?;
        if plot.markers.is_empty() {
            draw_marker(area, (x + 12, y), MARKERS[index % MARKERS.len()], colour)?;
        }
        write(name, (x, y))?;
    }
    places.begin_row();
    for (name, marker) in plot.markers.iter().zip(MARKERS) {
        let (x, y) = places.take(name);
        draw_marker(area, (x + 12, y), marker, GREY)?;
        write(name, (x, y))?;
    }
    if let Some((_, name)) = plot.target {
        let at = places.take(name);
        area.draw(&stroke(at, RED.stroke_width(2)))?;
        write(name, at)?;
    }
    Ok(())
}

fn draw_marker(area: &Area<'_>, at: (i32, i32), marker: Marker, colour: RGBColor) -> Drawn {
    match marker {
        Marker::Dot => area.draw(&Circle::new(at, 3, colour.filled())),
        Marker::Triangle => area.draw(&TriangleMarker::new(at, 5, colour.filled())),
        Marker::Cross => area.draw(&Cross::new(at, 4, colour.stroke_width(2))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_spans_what_can_be_shown() {
        assert_eq!(span([1.0, f64::NAN, 0.0, 4.0].into_iter()), 0.8..5.0);
        assert_eq!(span(std::iter::empty()), 0.5..2.0);
        assert_eq!(number(&65536.0), "64 Ki");
        assert_eq!(number(&0.25), "0.25");
    }
}
