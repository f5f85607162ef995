//! Plot: curves or bars as an SVG that is read in light and in dark. Knows no bench.

use plotters::coord::Shift;
use plotters::coord::ranged1d::KeyPointHint;
use plotters::coord::ranged1d::NoDefaultFormatting;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use plotters::style::text_anchor::Pos;
use plotters::style::text_anchor::VPos;
use std::ops::Range;

use crate::read;

/// Points of one peer: x, median, and what the rounds span.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<[f64; 4]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Linear,
    Log,
    /// Percentiles, with as much room for the last percent as for the ten before.
    Percentile,
}

pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_title: &'a str,
    pub(crate) y_title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) x_axis: Axis,
    pub(crate) y_axis: Axis,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Curves over a parameter.
pub(crate) fn curves(frame: &Frame<'_>, curves: &[Curve]) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&GROUND).expect("a string takes it");
        let (left, right) = area.split_horizontally(SIZE.0 - LEGEND);
        lines(&left, frame, curves);
        legend(&right, curves.iter().map(|curve| curve.name.as_str()));
        area.present().expect("a string takes it");
    }
    themed(svg)
}

fn lines(area: &Area<'_>, frame: &Frame<'_>, curves: &[Curve]) {
    let at = |point: &[f64; 4]| scaled(frame.x_axis, point[0]);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x = Scale::over(frame.x_axis, points().map(at));
    let y = Scale::over(frame.y_axis, points().flat_map(|point| [point[1], point[2], point[3]]).map(|y| scaled(frame.y_axis, y)));
    let unit = frame.unit.to_owned();
    let (x, y) = (x.named(read::value), y.named(move |value| read::print(&unit, value)));
    let mut chart = ChartBuilder::on(area)
        .caption(frame.title, ("sans-serif", 19).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(82)
        .build_cartesian_2d(x, y)
        .expect("room for it");
    chart
        .configure_mesh()
        .x_desc(frame.x_title)
        .y_desc(frame.y_title)
        .axis_style(AXIS)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_desc_style(("sans-serif", 15).into_font().color(&INK))
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .draw()
        .expect("room for it");
    for (number, curve) in curves.iter().enumerate() {
        let (color, width) = style(&curve.name, number);
        for point in &curve.points {
            let span = [(at(point), scaled(frame.y_axis, point[2])), (at(point), scaled(frame.y_axis, point[3]))];
            chart.draw_series(LineSeries::new(span, color.mix(0.45).stroke_width(width + 1))).expect("room for it");
        }
        let medians = curve.points.iter().map(|point| (at(point), scaled(frame.y_axis, point[1])));
        chart.draw_series(LineSeries::new(medians.clone(), color.stroke_width(width))).expect("room for it");
        chart.draw_series(medians.map(|point| Circle::new(point, width + 1, color.filled()))).expect("room for it");
    }
}

fn legend<'a>(area: &Area<'_>, names: impl Iterator<Item = &'a str>) {
    for (number, name) in names.enumerate() {
        let (color, width) = style(name, number);
        let y = 60 + 21 * number as i32;
        area.draw(&PathElement::new([(0, y), (20, y)], color.stroke_width(width))).expect("room for it");
        area.draw(&Circle::new((10, y), width + 1, color.filled())).expect("room for it");
        area.draw(&Text::new(shortened(name), (27, y), label(HPos::Left))).expect("room for it");
    }
}

/// Groups of bars that lie on their sides: for each name a value in each group, and what the rounds span.
pub(crate) fn bars(frame: &Frame<'_>, groups: &[&str], rows: &[(String, Vec<[f64; 3]>)]) -> String {
    let height = 92 + rows.len() as u32 * (10 + 15 * groups.len() as u32) + 22;
    let (names, top, right) = (190, 52, WIDTH - 110);
    let most = rows.iter().flat_map(|(_, values)| values).map(|value| value[2]).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let length = |value: f64| names + ((f64::from(right - names)) * value / most) as i32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        let draw_text = |text: &str, at, style| area.draw(&Text::new(text.to_owned(), at, style)).expect("room for it");
        area.fill(&GROUND).expect("a string takes it");
        let title = ("sans-serif", 19).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
        draw_text(frame.title, (WIDTH / 2, 22), title);
        let mut y = top;
        for (name, values) in rows {
            draw_text(name, (names - 8, y + 7 * values.len() as i32), label(HPos::Right));
            for (group, [median, least, most]) in values.iter().enumerate() {
                let color = BARS[group % BARS.len()];
                let body = Rectangle::new([(names, y), (length(*median), y + 12)], color.filled());
                area.draw(&body).expect("room for it");
                let span = [(length(*least), y + 6), (length(*most), y + 6)];
                area.draw(&PathElement::new(span, INK.stroke_width(1))).expect("room for it");
                draw_text(&read::print(frame.unit, *median), (length(*most) + 6, y + 6), label(HPos::Left));
                y += 15;
            }
            y += 10;
        }
        area.draw(&PathElement::new([(names, top - 6), (names, y)], AXIS.stroke_width(1))).expect("room for it");
        let mut x = names;
        for (group, name) in groups.iter().enumerate() {
            let swatch = Rectangle::new([(x, y + 12), (x + 12, y + 24)], BARS[group % BARS.len()].filled());
            area.draw(&swatch).expect("room for it");
            draw_text(name, (x + 18, y + 18), label(HPos::Left));
            x += 40 + 8 * name.len() as i32;
        }
        draw_text(frame.y_title, (right + 100, y + 18), label(HPos::Right));
        area.present().expect("a string takes it");
    }
    themed(svg)
}

fn label(side: HPos) -> TextStyle<'static> {
    ("sans-serif", 15).into_font().color(&INK).pos(Pos::new(side, VPos::Center))
}

/// On a log axis: the decades.
fn scaled(axis: Axis, value: f64) -> f64 {
    match axis {
        Axis::Linear => value,
        Axis::Log => value.max(f64::MIN_POSITIVE).log10(),
        Axis::Percentile => -(1.0 - value.min(99.99) / 100.0).log10(),
    }
}

/// From where to where an axis goes, and where it is labelled.
struct Scale {
    axis: Axis,
    range: Range<f64>,
}

/// The same with what its labels say.
struct Named {
    scale: Scale,
    name: Box<dyn Fn(f64) -> String>,
}

impl Scale {
    fn over(axis: Axis, values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let range = match axis {
            Axis::Linear => 0.0..(most * 1.05).max(f64::MIN_POSITIVE),
            Axis::Log => (least - 0.1)..(most + 0.1),
            Axis::Percentile => 0.0..(most + 0.05),
        };
        Self { axis, range }
    }

    fn named(self, name: impl Fn(f64) -> String + 'static) -> Named {
        Named { scale: self, name: Box::new(name) }
    }

    /// On a log axis every power of ten; if there are few, twice and five times them, too.
    fn marks(&self, most: usize) -> Vec<f64> {
        let Range { start, end } = self.range;
        match self.axis {
            Axis::Linear => {
                let step = 10f64.powf(((end - start) / most.clamp(2, 6) as f64).log10().ceil());
                let step =
                    [5.0, 2.0].into_iter().map(|part| step / part).find(|step| (end - start) / step <= 8.0).unwrap_or(step);
                (0..=((end - start) / step) as usize).map(|at| start + at as f64 * step).collect()
            }
            Axis::Log => {
                let parts: &[f64] = if end - start < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let decades = (start.floor() as i32)..=(end.ceil() as i32);
                let all = decades.flat_map(|decade| parts.iter().map(move |part| f64::from(decade) + part.log10()));
                all.filter(|mark| (start..=end).contains(mark)).collect()
            }
            Axis::Percentile => [0.0, 50.0, 90.0, 99.0, 99.9]
                .map(|mark| scaled(self.axis, mark))
                .into_iter()
                .filter(|mark| *mark <= end)
                .collect(),
        }
    }
}

impl Ranged for Named {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = self.scale.range;
        let share = (value - start) / (end - start);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.scale.marks(hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.scale.range.clone()
    }
}

impl ValueFormatter<f64> for Named {
    fn format_ext(&self, value: &f64) -> String {
        match self.scale.axis {
            Axis::Linear => (self.name)(*value),
            // Powers of ten are not quite.
            Axis::Log => (self.name)((10f64.powf(*value) * 1e6).round() / 1e6),
            Axis::Percentile => format!("p{}", (100.0 * (100.0 - 100.0 * 10f64.powf(-value))).round() / 100.0),
        }
    }
}

/// Ours stands out, and Elixir is the same in all.
fn style(name: &str, number: usize) -> (RGBColor, u32) {
    match name {
        "actix-pubsub" | "store" | "ours, WebSocket" => (OURS, 3),
        "actix-pubsub, not subscribed" => (OURS_PALE, 2),
        "Elixir Registry, not subscribed" => (ELIXIR_PALE, 2),
        name if name.starts_with("Elixir") => (ELIXIR, 2),
        // An engine has one colour, and ours on it the thicker line.
        name if name.starts_with("cluster on ") => (engine(name), 4),
        name if name.starts_with("bare ") => (engine(name), 1),
        _ => (COLORS[number % COLORS.len()], 2),
    }
}

fn engine(name: &str) -> RGBColor {
    let place = ["redis", "nats", "zenoh"].iter().position(|engine| name.contains(engine));
    place.map_or(GREY, |place| [COLORS[3], COLORS[1], COLORS[0]][place])
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= 31 { name.to_owned() } else { name.chars().take(30).chain(['…']).collect() }
}

/// Colours of ink, lines and ground by what the reader prefers; those of the curves are seen on both.
fn themed(svg: String) -> String {
    const STYLE: &str = "<style>[fill=\"#010203\"]{fill:#24292f}[stroke=\"#010203\"]{stroke:#24292f}[stroke=\"#808182\"]{stroke:#8c959f}[stroke=\"#D0D1D2\"]{stroke:#d8dee4}[fill=\"#FEFDFC\"]{fill:#fff}\
        @media(prefers-color-scheme:dark){[fill=\"#010203\"]{fill:#e6edf3}[stroke=\"#010203\"]{stroke:#e6edf3}[stroke=\"#808182\"]{stroke:#8b949e}[stroke=\"#D0D1D2\"]{stroke:#30363d}[fill=\"#FEFDFC\"]{fill:#0d1117}}</style>\n";
    match svg.find(">\n").or_else(|| svg.find('>')) {
        Some(at) => format!("{}>\n{STYLE}{}", &svg[..at], svg[at + 1..].trim_start()),
        None => svg,
    }
}

const SIZE: (u32, u32) = (900, 420);
const WIDTH: i32 = SIZE.0.cast_signed();
const LEGEND: u32 = 235;
/// Stand-ins, see [`themed`].
const INK: RGBColor = RGBColor(1, 2, 3);
const AXIS: RGBColor = RGBColor(0x80, 0x81, 0x82);
const GRID: RGBColor = RGBColor(0xD0, 0xD1, 0xD2);
const GROUND: RGBColor = RGBColor(0xFE, 0xFD, 0xFC);

const OURS: RGBColor = RGBColor(0xE8, 0x59, 0x0C);
const ELIXIR: RGBColor = RGBColor(0xAE, 0x3E, 0xC9);
const OURS_PALE: RGBColor = RGBColor(0xFF, 0xC0, 0x78);
const ELIXIR_PALE: RGBColor = RGBColor(0xE5, 0xBC, 0xF0);
const GREY: RGBColor = RGBColor(0x86, 0x8E, 0x96);
const COLORS: [RGBColor; 8] = [
    RGBColor(0x22, 0x8B, 0xE6),
    RGBColor(0x2F, 0x9E, 0x44),
    GREY,
    RGBColor(0xE0, 0x31, 0x31),
    RGBColor(0x10, 0x98, 0xAD),
    RGBColor(0xC9, 0x9A, 0x06),
    RGBColor(0x5C, 0x7C, 0xFA),
    RGBColor(0xE6, 0x49, 0x80),
];
const BARS: [RGBColor; 3] = [OURS, RGBColor(0x22, 0x8B, 0xE6), RGBColor(0x2F, 0x9E, 0x44)];
