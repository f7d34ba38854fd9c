//! Figures for people and for programs.

use super::load::Figures;
use super::{Arguments, Workload};
use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::ValueEnum;
use serde_json::json;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Prints them.
pub fn print(arguments: &Arguments, figures: &Figures) -> Result<(), Failure> {
    let count = figures.latency.len();
    let per_second = count as f64 / figures.window.as_secs_f64();
    let per_operation =
        |cpu: Option<f64>| cpu.filter(|_| count > 0).map(|s| s * 1e6 / count as f64);
    let name =
        arguments.workload.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
    let errors: u64 = figures.errors.values().sum();
    let ms = |us: u64| us as f64 / 1_000.0;
    if arguments.output == Output::Json {
        let mut latency = serde_json::Map::new();
        for (label, q) in QUANTILES {
            latency.insert(label.to_owned(), json!(ms(figures.latency.value_at_quantile(q))));
        }
        latency.insert("mean".to_owned(), json!(figures.latency.mean() / 1_000.0));
        latency.insert("max".to_owned(), json!(ms(figures.latency.max())));
        return print_json(&json!({
            "workload": name,
            "endpoints": arguments.endpoints,
            "connections": arguments.connections,
            "clients": arguments.clients,
            "watchers": (arguments.workload == Workload::Watch).then_some(arguments.watchers),
            "value_size": arguments.value_size,
            "seconds": figures.window.as_secs_f64(),
            "operations": count,
            "per_second": per_second,
            "latency_ms": latency,
            "ended_unix": figures.ended_unix,
            "pauses": pauses(figures),
            "errors": figures.errors,
            "server_pids": figures.server_pids,
            "server_cpu_seconds": figures.server_cpu,
            "server_cpu_us_per_operation": per_operation(figures.server_cpu),
            "client_cpu_seconds": figures.own_cpu,
        }));
    }
    let unit = if arguments.workload == Workload::Watch { "events" } else { "operations" };
    let mut rows = table(&[&name, ""]);
    let mut row = |what: &str, value: String| {
        rows.add_row([what.to_owned(), value]);
    };
    row(unit, format!("{count} in {:.1} s", figures.window.as_secs_f64()));
    row("throughput", format!("{per_second:.0} /s"));
    for (label, q) in QUANTILES {
        row(label, format!("{:.2} ms", ms(figures.latency.value_at_quantile(q))));
    }
    if let Some(longest) = figures.pauses.iter().map(|pause| pause.length).max() {
        row("longest pause", format!("{:.0} ms without a success", longest.as_secs_f64() * 1e3));
    }
    row("longest", format!("{:.2} ms", ms(figures.latency.max())));
    if let (Some(cpu), Some(each)) = (figures.server_cpu, per_operation(figures.server_cpu)) {
        row("servers' CPU", format!("{cpu:.2} s, {each:.1} µs for each of the {unit}"));
    }
    if let Some(cpu) = figures.own_cpu {
        row("this client's CPU", format!("{cpu:.2} s"));
    }
    row("failures", errors.to_string());
    say!("{rows}");
    for (text, n) in &figures.errors {
        say!("{n} × {text}");
    }
    Ok(())
}

/// The periods without a success, for programs.
fn pauses(figures: &Figures) -> Vec<serde_json::Value> {
    let mut told = Vec::new();
    for pause in &figures.pauses {
        let seconds = pause.length.as_secs_f64();
        told.push(json!({ "began_unix": pause.began_unix, "seconds": seconds }));
    }
    told
}
