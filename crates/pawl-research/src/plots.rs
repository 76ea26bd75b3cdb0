//! A small plot: one SVG that fills the width of its page and keeps its text and marks at their size.
//!
//! Positions across are percentages, positions down are pixels, and lines live in a nested drawing that
//! is stretched without stretching its strokes; so one drawing is sharp on a wide page, a phone and paper.
//! Colours come from the style names of the page. It computes scales and ticks, no statistics.

use std::fmt::Write;

/// Room below the plot for tick labels and the name of the axis, pixels.
const BOTTOM: f64 = 40.0;
/// Width of the nested drawing of lines, in its own units.
const STRETCH: f64 = 1000.0;

/// A linear scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Value at the left or bottom end.
    pub low: f64,
    /// Value at the right or top end.
    pub high: f64,
}

impl Scale {
    /// A scale over these values with `pad` of the range to spare at both ends. Values that are not finite
    /// are left out; a single value gets a range around it.
    pub fn around(values: impl IntoIterator<Item = f64>, pad: f64) -> Scale {
        let mut scale = Scale { low: f64::INFINITY, high: f64::NEG_INFINITY };
        for value in values.into_iter().filter(|value| value.is_finite()) {
            scale.low = scale.low.min(value);
            scale.high = scale.high.max(value);
        }
        if scale.low > scale.high {
            return Scale { low: 0.0, high: 1.0 };
        }
        let range = scale.high - scale.low;
        let spare = if range > 0.0 { range * pad } else { scale.low.abs().max(1.0) * 0.05 };
        Scale { low: scale.low - spare, high: scale.high + spare }
    }

    /// Place of a value: 0 at the low end, 1 at the high end, beyond for values outside.
    pub fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Whether a value is within the scale.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Round values inside the scale, at most `most` of them, 1, 2 or 5 times a power of ten apart; and
    /// the number of decimals that tells them apart.
    pub fn ticks(&self, most: usize) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / most.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        // The tolerance lets a range that is a whole number of steps up to rounding use that step.
        let fits = |factor: &&f64| **factor * power >= rough * (1.0 - 1e-9);
        let step = [1.0, 2.0, 5.0].iter().find(fits).unwrap_or(&10.0) * power;
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
        // Integer multiples: adding up a step would drift. `+ 0.0` turns -0 into 0.
        ((first..=last).map(|n| n as f64 * step + 0.0).take(most + 1).collect(), decimals)
    }
}

/// The form of a mark: shapes differ as colours do, so that neither alone is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Filled.
    Circle,
    /// An outline.
    Ring,
    /// An outline.
    Diamond,
    /// Filled.
    SolidDiamond,
    /// Two strokes.
    Cross,
    /// Two strokes, upright.
    Plus,
    /// Filled, points down.
    Triangle,
    /// A short stroke.
    Dash,
    /// An outline.
    Square,
    /// Two steps of a stair.
    Stair,
    /// Three strokes.
    Star,
}

impl Shape {
    /// The mark about the origin, `r` pixels in radius.
    fn draw(self, r: f64) -> String {
        let (filled, path) = match self {
            Shape::Circle => return format!("<circle class=\"fill\" r=\"{r}\"/>"),
            Shape::Ring => return format!("<circle class=\"line\" r=\"{r}\"/>"),
            Shape::Diamond => (false, format!("M0 {0}L{r} 0L0 {r}L{0} 0Z", -r)),
            Shape::SolidDiamond => (true, format!("M0 {0}L{r} 0L0 {r}L{0} 0Z", -r)),
            Shape::Cross => (false, format!("M{0} {0}L{r} {r}M{0} {r}L{r} {0}", -r)),
            Shape::Plus => (false, format!("M0 {0}L0 {r}M{0} 0L{r} 0", -r)),
            Shape::Triangle => (true, format!("M{0} {0}L{r} {0}L0 {r}Z", -r)),
            Shape::Dash => (false, format!("M{} 0L{r} 0", -r)),
            Shape::Stair => (false, format!("M{0} {r}L{0} 0L0 0L0 {0}L{r} {0}", -r)),
            Shape::Star => {
                let (x, y) = (0.87 * r, 0.5 * r);
                (false, format!("M0 {0}L0 {r}M{1} {2}L{x} {y}M{1} {y}L{x} {2}", -r, -x, -y))
            }
            Shape::Square => (false, format!("M{0} {0}L{r} {0}L{r} {r}L{0} {r}Z", -r)),
        };
        format!("<path class=\"{}\" d=\"{path}\"/>", if filled { "fill" } else { "line" })
    }
}

/// Where a text is tied to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

impl Anchor {
    fn word(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A plot under construction. Styles are names for the page's style sheet.
#[derive(Debug)]
pub struct Plot {
    x: Scale,
    y: Scale,
    height: f64,
    title: String,
    lines: String,
    marks: String,
}

impl Plot {
    /// An empty plot, `height` pixels high without its axis; `title` is read to those who cannot see it.
    pub fn new(title: &str, x: Scale, y: Scale, height: f64) -> Plot {
        Plot { x, y, height, title: escape(title), lines: String::new(), marks: String::new() }
    }

    /// Place across, percent.
    pub fn across(&self, x: f64) -> f64 {
        100.0 * self.x.place(x)
    }

    /// Place down, pixels.
    pub fn down(&self, y: f64) -> f64 {
        self.height * (1.0 - self.y.place(y))
    }

    /// Grid lines and labels of the vertical axis.
    pub fn y_axis(&mut self, most: usize) {
        let (ticks, decimals) = self.y.ticks(most);
        for tick in ticks {
            let y = self.down(tick);
            let label = minus(format!("{tick:.decimals$}"));
            let _ = write!(
                self.marks,
                "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                y + 4.0
            );
        }
    }

    /// Ticks, labels and name of the horizontal axis. Ticks between the coarse ones are styled `fine`, so
    /// that a narrow page can leave them out.
    pub fn x_axis(&mut self, most: usize, name: &str, whole: bool) {
        let (fine, decimals) = self.x.ticks(most);
        let step = fine.get(1).map_or(1.0, |second| second - fine[0]);
        let is_crowded = fine.len() > 6;
        let height = self.height;
        let ticks = fine.into_iter().filter(|tick| !whole || (tick - tick.round()).abs() < 1e-9);
        for tick in ticks {
            let is_coarse = !is_crowded || (tick / step).round() as i64 % 2 == 0;
            let x = self.across(tick);
            let decimals = if whole { 0 } else { decimals };
            let label = minus(format!("{tick:.decimals$}"));
            let _ = write!(
                self.marks,
                "<g class=\"{}\"><line class=\"axis\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"{height}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{x:.3}%\" y=\"{}\" text-anchor=\"middle\">{label}</text></g>",
                if is_coarse { "coarse" } else { "fine" },
                height + 5.0,
                height + 18.0
            );
        }
        let _ = write!(
            self.marks,
            "<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"{height}\" y2=\"{height}\"/>\
             <text class=\"name\" x=\"50%\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            height + 36.0,
            escape(name)
        );
    }

    /// A straight line.
    pub fn line(&mut self, style: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (self.across(from.0), self.down(from.1), self.across(to.0), self.down(to.1));
        let _ = write!(
            self.marks,
            "<line class=\"{style}\" x1=\"{x1:.3}%\" y1=\"{y1:.1}\" x2=\"{x2:.3}%\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A filled box between two corners.
    pub fn band(&mut self, style: &str, from: (f64, f64), to: (f64, f64)) {
        let (left, right) = (self.across(from.0.min(to.0)), self.across(from.0.max(to.0)));
        let (top, bottom) = (self.down(from.1.max(to.1)), self.down(from.1.min(to.1)));
        let _ = write!(
            self.marks,
            "<rect class=\"{style}\" x=\"{left:.3}%\" y=\"{top:.1}\" width=\"{:.3}%\" height=\"{:.1}\"/>",
            right - left,
            bottom - top
        );
    }

    /// A line through points.
    pub fn path(&mut self, style: &str, points: &[(f64, f64)]) {
        let place = |(x, y): &(f64, f64)| format!("{:.2},{:.2}", self.x.place(*x) * STRETCH, self.down(*y));
        let text = points.iter().map(place).collect::<Vec<_>>().join(" ");
        let _ = write!(self.lines, "<polyline class=\"{style}\" points=\"{text}\"/>");
    }

    /// A mark with a text that a pointer shows.
    pub fn mark(&mut self, style: &str, shape: Shape, radius: f64, at: (f64, f64), text: &str) {
        let (x, y) = (self.across(at.0), self.down(at.1));
        let _ = write!(
            self.marks,
            "<svg class=\"mark {style}\" x=\"{x:.3}%\" y=\"{y:.1}\"><title>{}</title>{}</svg>",
            escape(text),
            shape.draw(radius)
        );
    }

    /// A text `shift` pixels right and down of its place.
    pub fn text(&mut self, style: &str, at: (f64, f64), shift: (f64, f64), anchor: Anchor, text: &str) {
        let (x, y) = (self.across(at.0), self.down(at.1) + shift.1);
        let _ = write!(
            self.marks,
            "<text class=\"{style}\" x=\"{x:.3}%\" dx=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{}\">{}</text>",
            shift.0,
            anchor.word(),
            escape(text)
        );
    }

    /// The finished drawing.
    pub fn finish(self) -> String {
        let Plot { height, title, lines, marks, .. } = self;
        let stretched = if lines.is_empty() {
            String::new()
        } else {
            format!(
                "<svg class=\"lines\" width=\"100%\" height=\"{height}\" viewBox=\"0 0 {STRETCH} {height}\" \
                 preserveAspectRatio=\"none\">{lines}</svg>"
            )
        };
        format!(
            "<svg class=\"plot\" role=\"img\" aria-label=\"{title}\" height=\"{}\">{stretched}{marks}</svg>",
            height + BOTTOM
        )
    }
}

/// One row of a forest plot: an interval on a scale that all rows share, as wide as its cell.
pub fn interval_cell(
    scale: Scale,
    band: f64,
    style: &str,
    intervals: &[(Shape, f64, f64)],
    text: &str,
) -> String {
    const HEIGHT: f64 = 22.0;
    let place = |value: f64| 100.0 * scale.place(value).clamp(0.0, 1.0);
    let zero = place(0.0);
    let (low, high) = (place(-band), place(band));
    let mut out = format!(
        "<svg class=\"forest {style}\" height=\"{HEIGHT}\"><title>{}</title>\
         <rect class=\"noise\" x=\"{low:.2}%\" width=\"{:.2}%\" y=\"0\" height=\"{HEIGHT}\"/>\
         <line class=\"zero\" x1=\"{zero:.2}%\" x2=\"{zero:.2}%\" y1=\"0\" y2=\"{HEIGHT}\"/>",
        escape(text),
        high - low
    );
    let rows = intervals.len() as f64;
    for (row, (shape, mean, half_width)) in intervals.iter().enumerate() {
        let y = HEIGHT * (row as f64 + 1.0) / (rows + 1.0);
        let (left, right) = (place(mean - half_width), place(mean + half_width));
        let _ = write!(
            out,
            "<line class=\"whisker\" x1=\"{left:.2}%\" x2=\"{right:.2}%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
        // An arrow where the interval leaves the scale.
        let arrow = |x: f64, sign: f64| {
            let d = format!("M{} -3.5L0 0L{} 3.5", 4.0 * sign, 4.0 * sign);
            format!("<svg class=\"mark\" x=\"{x:.2}%\" y=\"{y:.1}\"><path class=\"line\" d=\"{d}\"/></svg>")
        };
        if mean - half_width < scale.low {
            out.push_str(&arrow(0.0, 1.0));
        }
        if mean + half_width > scale.high {
            out.push_str(&arrow(100.0, -1.0));
        }
        if scale.holds(*mean) {
            let x = place(*mean);
            let _ = write!(out, "<svg class=\"mark\" x=\"{x:.2}%\" y=\"{y:.1}\">{}</svg>", shape.draw(4.0));
        }
    }
    out.push_str("</svg>");
    out
}

/// The axis above the rows of a forest plot.
pub fn interval_axis(scale: Scale) -> String {
    let (ticks, decimals) = scale.ticks(5);
    let mut out = String::from("<svg class=\"forest\" height=\"18\">");
    for tick in ticks {
        let x = 100.0 * scale.place(tick);
        let label = if tick == 0.0 { "0".into() } else { minus(format!("{tick:+.decimals$}")) };
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{x:.2}%\" y=\"10\" text-anchor=\"middle\">{label}</text>\
             <line class=\"axis\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"13\" y2=\"18\"/>"
        );
    }
    out.push_str("</svg>");
    out
}

/// A mark alone, for a legend or a table.
pub fn swatch(style: &str, shape: Shape) -> String {
    format!(
        "<svg class=\"swatch {style}\" width=\"14\" height=\"14\" viewBox=\"-7 -7 14 14\">{}</svg>",
        shape.draw(4.5)
    )
}

/// Text made safe for HTML and SVG, in content and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if is_treacherous(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that no document may hold, and those that reverse the text around them.
pub fn is_treacherous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn minus(number: String) -> String {
    number.replace('-', "−")
}
