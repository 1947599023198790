//! The pictures of a report, as SVG.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::anyhow;
use berth_world::twin::Span;
use plotters::prelude::*;

use super::runs::Run;
use crate::experiment::Workload;

/// Size of a picture.
const SIZE: (u32, u32) = (960, 540);
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

fn distribution(title: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let xs = curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.0));
    let (low, high) = range(xs, (1e-2, 1.0));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((low..high.max(low * 1.01)).log_scale(), 0.0..1.0)
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .x_desc("hours")
            .y_desc("share of jobs")
            .draw()
            .map_err(wrong)?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            let drawn = chart.draw_series(line).map_err(wrong)?;
            drawn
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        (chart.configure_series_labels())
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(wrong)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

fn lines(title: &str, x: &str, y: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let points = || curves.iter().flat_map(|(_, points)| points.iter());
    let (left, right) = range(points().map(|point| point.0), (0.0, 1.0));
    let (_, top) = range(points().map(|point| point.1), (0.0, 1.0));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(left..right.max(left + 1e-3), 0.0..(top * 1.05).max(1e-3))
            .map_err(wrong)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .draw()
            .map_err(wrong)?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(1));
            let drawn = chart.draw_series(line).map_err(wrong)?;
            drawn
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        (chart.configure_series_labels())
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(wrong)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

fn gantt(title: &str, workload: &Workload, timeline: &[Span]) -> anyhow::Result<String> {
    let mut rows: BTreeMap<(usize, u16), usize> = BTreeMap::new();
    for (index, node) in workload.setting.cluster.nodes.iter().enumerate() {
        for gpu in 0..node.gpus.len() {
            if rows.len() < MAX_ROWS {
                let row = rows.len();
                rows.insert((index, u16::try_from(gpu).unwrap_or(u16::MAX)), row);
            }
        }
    }
    let mut bars: Vec<(&Span, usize)> = (timeline.iter())
        .filter_map(|span| Some((span, *rows.get(&(span.node, span.gpu))?)))
        .collect();
    bars.sort_by_key(|(span, _)| span.start_ms);
    let cut_ms = bars.get(MAX_BARS).map(|(span, _)| span.start_ms);
    bars.truncate(MAX_BARS);
    let hours = |ms: u64| ms as f64 / 3_600_000.0;
    let from = bars.first().map_or(0.0, |(span, _)| hours(span.start_ms));
    let last_ms = bars.iter().map(|(span, _)| span.end_ms).max().unwrap_or(0);
    let to = hours(cut_ms.unwrap_or(last_ms)).max(from + 1e-3);
    let all: usize = workload
        .setting
        .cluster
        .nodes
        .iter()
        .map(|node| node.gpus.len())
        .sum();
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
        let mut chart = ChartBuilder::on(&root)
            .caption(caption, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(from..to, 0.0..rows.len().max(1) as f64)
            .map_err(wrong)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_mesh()
            .x_desc("hours")
            .y_desc("GPU, in the order of nodes");
        mesh.draw().map_err(wrong)?;
        let bars = bars.iter().map(|(span, row)| {
            let height = f64::from(span.milligpu.min(1_000)) / 1_000.0;
            let low = *row as f64;
            let corners = [
                (hours(span.start_ms), low),
                (hours(span.end_ms).min(to), low + height * 0.95),
            ];
            Rectangle::new(
                corners,
                COLOURS[span.job % COLOURS.len()].mix(0.85).filled(),
            )
        });
        chart.draw_series(bars).map_err(wrong)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
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
