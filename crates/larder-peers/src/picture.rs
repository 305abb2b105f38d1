//! The rates as horizontal bars, a group for each workload, on its own scale.

use std::fmt::Write;

use clap::ValueEnum;

use crate::table::{Results, median};

const WIDTH: f64 = 860.0;
const LABEL_WIDTH: f64 = 150.0;
const FIGURE_WIDTH: f64 = 150.0;
const BAR: f64 = 15.0;
const STEP: f64 = 20.0;
const HEADING: f64 = 34.0;
const OWN: &str = "#c2410c";
const LIMIT: &str = "#94a3b8";
const OTHERS: &str = "#2563eb";

/// What rates are rates of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Per {
    /// A second that went by.
    Second,
    /// A second of the process's processor time, its background threads' included: on a machine that others use too.
    CpuSecond,
}

/// An SVG of everything that has a rate. Medians; a thin line goes from the least to the greatest.
pub fn picture(results: &Results, per: Per) -> String {
    let (figure, of) = match per {
        Per::Second => ("ops_per_s", "a second"),
        Per::CpuSecond => ("ops_per_cpu_s", "a second of processor time"),
    };
    let peers = results.names("peer");
    let mut body = String::new();
    let mut y = 10.0;
    for workload in results.names("workload") {
        let rates: Vec<_> = peers.iter().map(|peer| results.figures(&workload, peer, figure, None)).collect();
        let most = rates.iter().flatten().copied().fold(0.0, f64::max);
        // A restart has times; they are in the tables.
        if most == 0.0 || matches!(workload.as_str(), "restart" | "kill" | "ttl" | "failed") {
            continue;
        }
        // A `String` takes whatever is written to it.
        let _ = writeln!(
            body,
            "<text x=\"0\" y=\"{:.0}\" font-weight=\"bold\">{workload}, thousand operations {of}</text>",
            y + 18.0
        );
        y += HEADING;
        for (peer, rates) in peers.iter().zip(&rates) {
            let Some(middle) = median(rates) else { continue };
            bar(&mut body, peer, middle, (rates[0], rates[rates.len() - 1]), most, y);
            y += STEP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-10 0 {:.0} {:.0}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect x=\"-10\" width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        WIDTH + 20.0,
        y + 10.0
    )
}

fn bar(body: &mut String, peer: &str, middle: f64, spread: (f64, f64), most: f64, y: f64) {
    let x = |rate: f64| LABEL_WIDTH + rate / most * (WIDTH - LABEL_WIDTH - FIGURE_WIDTH);
    let colour = match peer {
        "raw" | "none" => LIMIT,
        _ if peer.starts_with("larder") => OWN,
        _ => OTHERS,
    };
    let text_y = y + BAR - 3.0;
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{peer}</text>\
         <rect x=\"{LABEL_WIDTH}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
         <path d=\"M{:.1} {line:.1}H{:.1}\" stroke=\"black\"/>\
         <text x=\"{:.1}\" y=\"{text_y:.0}\">{:.1}</text>",
        LABEL_WIDTH - 6.0,
        x(middle) - LABEL_WIDTH,
        x(spread.0),
        x(spread.1),
        x(spread.1) + 6.0,
        middle / 1e3,
        line = y + BAR / 2.0,
    );
}
