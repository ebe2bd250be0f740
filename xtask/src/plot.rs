//! A plot on logarithmic axes, as SVG that any browser shows.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that can be told apart with any eyes.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// One figure over sizes.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) label: &'a str,
    /// Both above 0.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot with at least one line of at least one point.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_axis: &'a str,
    pub(crate) y_axis: &'a str,
    pub(crate) lines: Vec<Line<'a>>,
}

/// Where values lie on one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// Decimal logarithms of its ends.
    from: f64,
    to: f64,
    /// Pixels of its ends.
    start: f64,
    end: f64,
}

impl Axis {
    /// Ends at whole powers of ten, or at halves of them, around all values.
    fn around(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10();
        let most = values.fold(0.0, f64::max).log10();
        let from = (least - 0.05).floor();
        let to = (most + 0.05).ceil().max(from + 1.0);
        Self {
            from,
            to,
            start,
            end,
        }
    }

    fn at(self, value: f64) -> f64 {
        let part = (value.log10() - self.from) / (self.to - self.from);
        self.start + part * (self.end - self.start)
    }

    /// Powers of ten, and 2 and 5 times them where there is room.
    fn marks(self) -> Vec<f64> {
        let steps: &[f64] = if self.to - self.from > 2.5 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let powers = self.from as i32..=self.to as i32;
        let marks =
            powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        marks
            .filter(|mark| mark.log10() <= self.to + 1e-9)
            .collect()
    }
}

impl Plot<'_> {
    pub(crate) fn svg(&self) -> String {
        let all = || {
            self.lines
                .iter()
                .flat_map(|line| line.points.iter().copied())
        };
        let x = Axis::around(all().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::around(all().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        text(&mut out, (LEFT, 20.0), "start", "14", self.title);
        self.axes(x, y, &mut out);
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            draw(line, (x, y), colour, &mut out);
            let at = (LEFT + 12.0, TOP + 16.0 + 16.0 * index as f64);
            let label = format!("<tspan fill=\"{colour}\">●</tspan> {}", line.label);
            text(&mut out, at, "start", "12", &label);
        }
        out += "</svg>\n";
        out
    }

    fn axes(&self, x: Axis, y: Axis, out: &mut String) {
        let mut line = |x1: f64, y1: f64, x2: f64, y2: f64| {
            let _ = writeln!(
                out,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
                 stroke=\"#ddd\"/>"
            );
        };
        for mark in x.marks() {
            line(x.at(mark), TOP, x.at(mark), HEIGHT - BOTTOM);
        }
        for mark in y.marks() {
            line(LEFT, y.at(mark), WIDTH - RIGHT, y.at(mark));
        }
        for mark in x.marks() {
            let at = (x.at(mark), HEIGHT - BOTTOM + 18.0);
            text(out, at, "middle", "12", &number(mark));
        }
        for mark in y.marks() {
            text(
                out,
                (LEFT - 8.0, y.at(mark) + 4.0),
                "end",
                "12",
                &number(mark),
            );
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(out, (middle, HEIGHT - 12.0), "middle", "12", self.x_axis);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let _ = writeln!(
            out,
            "<text transform=\"translate(16 {middle}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            self.y_axis
        );
    }
}

fn draw(line: &Line<'_>, (x, y): (Axis, Axis), colour: &str, out: &mut String) {
    let places = line.points.iter().map(|&(px, py)| (x.at(px), y.at(py)));
    let path: Vec<String> = places
        .clone()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for ((x, y), (_, figure)) in places.zip(&line.points) {
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
        text(out, (x, y - 7.0), "middle", "10", &number(*figure));
    }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: &str, what: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" \
         font-size=\"{size}\">{what}</text>"
    );
}

/// As few digits as tell it apart.
fn number(value: f64) -> String {
    match value {
        ..0.0995 => format!("{value:.3}"),
        ..0.995 => format!("{value:.2}"),
        ..9.95 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        ..9_999.5 => format!("{value:.0}"),
        ..999_999.5 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.0}M", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_within_the_axes() {
        let line = Line {
            label: "cost",
            points: vec![(1.0, 0.3), (1_000.0, 0.31), (1e7, 47.0)],
        };
        let x = Axis::around(line.points.iter().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::around(
            line.points.iter().map(|point| point.1),
            HEIGHT - BOTTOM,
            TOP,
        );
        for &(px, py) in &line.points {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.at(px)), "{px}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.at(py)), "{py}");
        }
        let plot = Plot {
            title: "Costs",
            x_axis: "size",
            y_axis: "us",
            lines: vec![line],
        };
        let svg = plot.svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(">10M</text>") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn numbers_are_short() {
        let found: Vec<String> = [0.05, 0.31, 2.0, 47.3, 1_000.0, 20_000.0, 1e7]
            .map(number)
            .into();
        assert_eq!(found, ["0.050", "0.31", "2", "47", "1000", "20k", "10M"]);
    }
}
