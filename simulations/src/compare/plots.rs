//! The pictures of a report, as SVG.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::anyhow;
use berth_world::twin::Span;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::runs::Run;
use crate::experiment::Workload;

/// Size of a picture.
const SIZE: (u32, u32) = (960, 540);
/// Pixels left of a chart, for its labels.
const LEFT: u32 = 76;
/// Pixels of a row of names, and of a character of one, at most.
const ROW: i32 = 24;
const CHARACTER: i32 = 9;
/// Points of a distribution.
const CDF_POINTS: usize = 400;
/// Rows of a Gantt chart; GPUs beyond are left out.
const MAX_ROWS: usize = 128;
/// Bars of a Gantt chart; the time beyond is left out.
const MAX_BARS: usize = 8_000;
/// Colours that are told apart by most eyes (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A picture.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// For its file's name.
    pub(super) name: String,
    /// For people.
    pub(super) title: String,
    pub(super) svg: String,
}

/// A curve with its name.
type Curve = (String, Vec<(f64, f64)>);

/// All pictures. Curves are of the first seed, distributions of all seeds together.
pub(super) fn draw(
    policies: &[String],
    workload: &Workload,
    runs: &[Run],
) -> anyhow::Result<Vec<Picture>> {
    let first = |policy: &String| {
        runs.iter()
            .find(|run| run.policy == *policy && run.seed == 0)
    };
    let over_time = |value: fn(&(f64, f64, f64)) -> f64| {
        let shown = policies.iter().filter_map(|p| first(p).map(|run| (p, run)));
        let curves = shown.map(|(policy, run)| {
            let points = run
                .curves
                .series
                .iter()
                .map(|point| (point.0 / 3_600.0, value(point)));
            (policy.clone(), points.collect())
        });
        curves.collect::<Vec<Curve>>()
    };
    let mut pictures = vec![
        picture(
            "jct",
            "Time to completion: share of the jobs that take no longer",
            |title| distribution(title, &cdfs(policies, runs)),
        )?,
        picture("queue", "Jobs that wait, over time", |title| {
            lines(title, "hours", "jobs", &over_time(|point| point.1))
        })?,
        picture(
            "utilisation",
            "Share of the GPUs that is held, in percent, over time",
            |title| lines(title, "hours", "%", &over_time(|point| point.2 * 100.0)),
        )?,
    ];
    for policy in policies {
        let Some(run) = first(policy).filter(|run| !run.curves.timeline.is_empty()) else {
            continue;
        };
        let title = format!("Who holds which GPU under {policy}");
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name = format!("gantt-{}", policy.chars().map(plain).collect::<String>());
        pictures.push(picture(&name, &title, |title| {
            gantt(title, workload, &run.curves.timeline)
        })?);
    }
    Ok(pictures)
}

fn picture(
    name: &str,
    title: &str,
    draw: impl FnOnce(&str) -> anyhow::Result<String>,
) -> anyhow::Result<Picture> {
    Ok(Picture {
        name: name.to_owned(),
        title: title.to_owned(),
        svg: draw(title)?,
    })
}

fn wrong(error: impl Display) -> anyhow::Error {
    anyhow!("a picture could not be drawn: {error}")
}

/// By policy: time to completion in hours, and the share of the jobs that take no longer.
fn cdfs(policies: &[String], runs: &[Run]) -> Vec<Curve> {
    let curves = policies.iter().map(|policy| {
        let of = runs.iter().filter(|run| run.policy == *policy);
        let mut all: Vec<f64> = of
            .flat_map(|run| run.curves.jct_s.iter().copied())
            .collect();
        all.sort_by(f64::total_cmp);
        let last = all.len().saturating_sub(1);
        let points = (0..=CDF_POINTS).filter_map(|step| {
            let jct_s = all.get(last * step / CDF_POINTS)?;
            Some(((jct_s / 3_600.0).max(1e-4), step as f64 / CDF_POINTS as f64))
        });
        (policy.clone(), points.collect())
    });
    curves.collect()
}

/// The part of a picture above its chart: what it shows, and which line is whose.
fn heading<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    title: &str,
    names: &[&str],
) -> anyhow::Result<()> {
    let text = |text: &str, x: i32, y: i32, size: i32| {
        let style = ("sans-serif", size).into_font().color(&BLACK);
        let text = Text::new(text.to_owned(), (x, y), style);
        area.draw(&text).map_err(|_| wrong("its heading"))
    };
    text(title, LEFT as i32, 12, 20)?;
    for (index, (name, (x, y))) in names.iter().zip(places(names)).enumerate() {
        let stroke = style(index, names.len());
        let line = PathElement::new([(x, y + 8), (x + 24, y + 8)], stroke);
        area.draw(&line).map_err(|_| wrong("its heading"))?;
        text(name, x + 30, y, 15)?;
    }
    Ok(())
}

/// Where the names of lines stand, as many in a row as fit.
fn places(names: &[&str]) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (LEFT as i32, 42);
    let mut places = Vec::new();
    for name in names {
        let width = 56 + CHARACTER * i32::try_from(name.chars().count()).unwrap_or(i32::MAX / 64);
        if x > LEFT as i32 && x + width > SIZE.0 as i32 {
            (x, y) = (LEFT as i32, y + ROW);
        }
        places.push((x, y));
        x += width;
    }
    places
}

/// Pixels of the heading.
fn heading_height(names: &[&str]) -> u32 {
    let last = places(names).last().map_or(42 - ROW, |(_, y)| *y);
    u32::try_from(last + ROW + 4).unwrap_or(0)
}

/// Of a line. Those drawn first are wider, so that they show below others that run the same way.
fn style(index: usize, count: usize) -> ShapeStyle {
    let below = u32::try_from(count.saturating_sub(index + 1)).unwrap_or(0);
    COLOURS[index % COLOURS.len()].stroke_width(2 + below.min(3))
}

fn distribution(title: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let xs = curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.0));
    let (low, high) = range(xs, (1e-2, 1.0));
    let across = (low..high.max(low * 1.01)).log_scale();
    chart(
        title,
        ["hours (logarithmic)", "share of jobs"],
        across,
        1.0,
        curves,
    )
}

fn lines(title: &str, x: &str, y: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let points = || curves.iter().flat_map(|(_, points)| points.iter());
    let (left, right) = range(points().map(|point| point.0), (0.0, 1.0));
    let (_, top) = range(points().map(|point| point.1), (0.0, 1.0));
    let across = left..right.max(left + 1e-3);
    chart(title, [x, y], across, (top * 1.05).max(1e-3), curves)
}

/// Curves with a heading above them.
fn chart<X>(
    title: &str,
    [x, y]: [&str; 2],
    across: X,
    top: f64,
    curves: &[Curve],
) -> anyhow::Result<String>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let names: Vec<&str> = curves.iter().map(|(name, _)| name.as_str()).collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let (above, below) = root.split_vertically(heading_height(&names));
        heading(&above, title, &names)?;
        let mut chart = ChartBuilder::on(&below)
            .margin_left(14)
            .margin_right(24)
            .margin_bottom(8)
            .margin_top(8)
            .x_label_area_size(48)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(across, 0.0..top)
            .map_err(wrong)?;
        let small = if top <= 1.0 { 1 } else { 0 };
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_labels(12)
            .max_light_lines(0)
            .bold_line_style(BLACK.mix(0.15))
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 14))
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| format!("{value:.small$}"))
            .draw()
            .map_err(wrong)?;
        for (index, (_, points)) in curves.iter().enumerate() {
            let points = points.iter().copied();
            let style = style(index, curves.len());
            // Colours come again, lines do not.
            if index < COLOURS.len() {
                let line = LineSeries::new(points, style);
                chart.draw_series(line).map_err(wrong)?;
            } else {
                let line = DashedLineSeries::new(points, 8, 5, style);
                chart.draw_series(line).map_err(wrong)?;
            }
        }
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

/// Without digits that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// GPUs by node and number, in rows.
fn rows(workload: &Workload) -> BTreeMap<(usize, u16), usize> {
    let mut rows = BTreeMap::new();
    for (index, node) in workload.setting.cluster.all_nodes().enumerate() {
        for gpu in 0..node.gpus.len() {
            if rows.len() < MAX_ROWS {
                let row = rows.len();
                rows.insert((index, u16::try_from(gpu).unwrap_or(u16::MAX)), row);
            }
        }
    }
    rows
}

fn gantt(title: &str, workload: &Workload, timeline: &[Span]) -> anyhow::Result<String> {
    let rows = rows(workload);
    let mut bars: Vec<(&Span, usize)> = (timeline.iter())
        .filter_map(|span| Some((span, *rows.get(&(span.node, span.gpu))?)))
        .collect();
    bars.sort_by_key(|(span, _)| span.start_ms);
    let cut_ms = bars.get(MAX_BARS).map(|(span, _)| span.start_ms);
    bars.truncate(MAX_BARS);
    let from = bars.first().map_or(0.0, |(span, _)| hours(span.start_ms));
    let last_ms = bars.iter().map(|(span, _)| span.end_ms).max().unwrap_or(0);
    let to = hours(cut_ms.unwrap_or(last_ms)).max(from + 1e-3);
    let nodes = workload.setting.cluster.all_nodes();
    let all: usize = nodes.map(|node| node.gpus.len()).sum();
    let caption = match (rows.len() < all, cut_ms.is_some()) {
        (false, false) => title.to_owned(),
        (true, false) => format!("{title} (the first {} GPUs)", rows.len()),
        (false, true) => format!("{title} (the first {to:.1} h)"),
        (true, true) => format!(
            "{title} (the first {} GPUs, the first {to:.1} h)",
            rows.len()
        ),
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let (above, below) = root.split_vertically(heading_height(&[]));
        heading(&above, &caption, &[])?;
        let mut chart = ChartBuilder::on(&below)
            .margin_left(14)
            .margin_right(24)
            .margin_bottom(8)
            .margin_top(8)
            .x_label_area_size(48)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(from..to, 0.0..rows.len().max(1) as f64)
            .map_err(wrong)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh()
            .x_desc("hours; a colour is a job, and comes again")
            .y_desc("GPU, in the order of nodes")
            .x_labels(12)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 14))
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| format!("{value:.0}"));
        mesh.draw().map_err(wrong)?;
        let pixel = (to - from) / f64::from(SIZE.0);
        let bars = bars.iter().map(|(span, row)| bar(span, *row, to, pixel));
        chart.draw_series(bars).map_err(wrong)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

fn hours(ms: u64) -> f64 {
    ms as f64 / 3_600_000.0
}

/// What a job holds of a GPU, up to `to`. With a gap between one job and the next, unless nothing would be left of it.
fn bar(span: &Span, row: usize, to: f64, pixel: f64) -> Rectangle<(f64, f64)> {
    let height = f64::from(span.milligpu.min(1_000)) / 1_000.0;
    let low = row as f64;
    let (start, end) = (hours(span.start_ms), hours(span.end_ms).min(to));
    let gap = if end - start > 4.0 * pixel {
        pixel
    } else {
        0.0
    };
    let colour = COLOURS[span.job % COLOURS.len()].mix(0.85);
    Rectangle::new([(start, low), (end - gap, low + height)], colour.filled())
}

/// Least and most of the values, or `otherwise` if there are none.
fn range(values: impl Iterator<Item = f64>, otherwise: (f64, f64)) -> (f64, f64) {
    let least_and_most = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if least_and_most.0.is_finite() {
        least_and_most
    } else {
        otherwise
    }
}
