//! A bar chart as SVG, readable on light and dark pages.

use std::fmt::Write;

/// Bars of one quantity.
pub struct Panel {
    /// What is measured, and its unit.
    pub title: String,
    /// The name and the value of each bar.
    pub bars: Vec<(String, f64)>,
}

const WIDTH: usize = 760;
const NAMES: usize = 230;
const VALUES: usize = 70;
const ROW: usize = 22;
const TITLE: usize = 34;

/// Draws the panels below each other. The bars of those whose names begin with `highlighted` stand
/// out; a shorter bar is better everywhere.
pub fn draw(panels: &[Panel], highlighted: &str) -> String {
    let height: usize = panels.iter().map(|panel| TITLE + ROW * panel.bars.len()).sum::<usize>() + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n\
         <style>text {{ fill: #1f2328 }} rect {{ fill: #8c959f }} .ours {{ fill: #1a7f37 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} rect {{ fill: #6e7681 }} \
         .ours {{ fill: #3fb950 }} }}</style>\n"
    );
    let mut top = 0;
    for panel in panels {
        let largest = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        text(&mut svg, 0, top + 22, "font-weight=\"600\"", &panel.title);
        top += TITLE;
        for (name, value) in &panel.bars {
            text(&mut svg, NAMES - 8, top + 14, "text-anchor=\"end\"", name);
            let length = ((WIDTH - NAMES - VALUES) as f64 * value / largest).max(1.0);
            let class = if name.starts_with(highlighted) { " class=\"ours\"" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<rect{class} x=\"{NAMES}\" y=\"{}\" width=\"{length:.1}\" height=\"14\" rx=\"2\"/>",
                top + 3
            );
            let shown = if *value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
            text(&mut svg, NAMES + length as usize + 6, top + 14, "", &shown);
            top += ROW;
        }
    }
    svg + "</svg>\n"
}

fn text(svg: &mut String, x: usize, y: usize, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>");
}
