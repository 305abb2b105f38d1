//! The same figures for people.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

fn us(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"))
}

fn ratio(value: &Value) -> String {
    value.as_f64().filter(|it| it.is_finite()).map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"))
}

/// A table of the reads, then what the bars are about.
pub fn table(told: &Value) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "get, us",
        "idle",
        "busy threads, no store",
        "writes, unmaintained",
        "maintained",
        "all / idle",
        "all / unmaintained",
        "all / busy",
    ]);
    for (name, reads) in [("from due", &told["reads_due"]), ("call", &told["reads_call"])] {
        for quantile in ["p50", "p99", "p999", "max"] {
            let row = &reads[quantile];
            table.add_row([
                format!("{name} {quantile}"),
                us(&row["idle_us"]),
                us(&row["control_us"]),
                us(&row["unmaintained_us"]),
                us(&row["maintained_us"]),
                ratio(&row["ratio"]),
                ratio(&row["collector_ratio"]),
                ratio(&row["control_ratio"]),
            ]);
        }
    }
    for column in 1..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let number = |name: &str| told[name].as_f64().unwrap_or(0.0);
    let mut text = format!(
        "{table}\nsustained {:.1} MB/s, written at {:.1} MB/s; garbage at most {:.3} of {:.3}; longest insert {:.1} ms; \
         {} wrong\n",
        number("sustained_mb_s"),
        number("write_mb_s"),
        number("garbage_max"),
        number("high_trigger"),
        number("insert_stall_max_ms"),
        told["wrong"],
    );
    for phase in told["maintained"].as_array().into_iter().flatten() {
        let gauges = &phase["gauges"];
        text.push_str(&format!(
            "compacting {} of the time, {} a second, {} MB/s reclaimed; garbage {} to {}, insert p99.9 {} us\n",
            ratio(&gauges["compacting_share"]),
            ratio(&gauges["compactions_a_second"]),
            us(&gauges["reclaimed_mb_s"]),
            ratio(&gauges["garbage_first"]),
            ratio(&gauges["garbage_max"]),
            us(&phase["writes_call"]["p999_us"]),
        ));
    }
    text.push_str(&format!("met: {}", told["met"]));
    text
}
