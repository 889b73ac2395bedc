//! The table of budgets: reads the final lines of many runs, each labelled with its row, and prints every value, the median, the floor
//! of the same runs, the ratio, and whether the budget is met. No measuring here.

use crate::error::LoadError;
use crate::procfs::round;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Which side of a budget is good.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What is compared with the bound.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Judged {
    /// The value itself.
    Value,
    /// The ratio to the floor, at this place of the report.
    Ratio(&'static str),
}

/// One row: which runs, where the value stands in their reports, where the floor does, and what is asked.
struct Budget {
    row: &'static str,
    title: &'static str,
    /// Value; with `less`, that is taken off it.
    value: &'static str,
    less: Option<&'static str>,
    /// (mode of the floor, its field).
    floor: Option<(&'static str, &'static str)>,
    judged: Judged,
    bound: Bound,
}

/// A row judged by its value.
const fn plain(row: &'static str, title: &'static str, value: &'static str, bound: Bound) -> Budget {
    Budget { row, title, value, less: None, floor: None, judged: Judged::Value, bound }
}

/// A row judged by the ratio of `value` to `field` of the floor `mode`; the ratio stands at `ratio` of the report.
const fn against(
    row: &'static str,
    title: &'static str,
    value: &'static str,
    floor: (&'static str, &'static str),
    ratio: &'static str,
    bound: Bound,
) -> Budget {
    Budget { row, title, value, less: None, floor: Some(floor), judged: Judged::Ratio(ratio), bound }
}

const DELIVERIES: &str = "/deliveriesPerS";
const TO_COALESCED: (&str, &str) = ("coalesced", "deliveriesPerS");
const TO_DATABASE: (&str, &str) = ("database", "rowsPerS");
const ACKED: &str = "/ackedPerS";

/// The budgets that this generator measures, in the order they are printed.
const BUDGETS: [Budget; 14] = [
    against(
        "fanout-32",
        "1,000 members, 32 in flight: deliveries/s",
        DELIVERIES,
        TO_COALESCED,
        "/ratios/coalesced/deliveries",
        Bound::AtLeast(0.7),
    ),
    against(
        "fanout-4",
        "1,000 members, 4 in flight: deliveries/s",
        DELIVERIES,
        TO_COALESCED,
        "/ratios/coalesced/deliveries",
        Bound::AtLeast(0.8),
    ),
    against(
        "rooms-64",
        "100 threads of 10, 64 in flight: deliveries/s",
        DELIVERIES,
        ("one-write", "deliveriesPerS"),
        "/ratios/one-write/deliveries",
        Bound::AtLeast(0.9),
    ),
    against(
        "paced",
        "5,000 sockets, paced: server CPU a delivery, µs",
        "/processes/haus/cpuUsPerDelivery",
        ("one-write", "cpuUsPerDelivery"),
        "/ratios/one-write/cpuPerDelivery",
        Bound::AtMost(1.15),
    ),
    against(
        "sends",
        "sends, 2,000 threads of 2: acked/s against the call",
        ACKED,
        TO_DATABASE,
        "/ratios/database/sends",
        Bound::AtLeast(0.6),
    ),
    plain("sends", "sends, 2,000 threads of 2: acked/s", ACKED, Bound::AtLeast(20_000.0)),
    plain("sends", "sends, 2,000 threads of 2: ack p99, ms", "/ackMs/p99", Bound::AtMost(25.0)),
    against(
        "hot",
        "sends, one hot thread: acked/s against the call",
        ACKED,
        TO_DATABASE,
        "/ratios/database/sends",
        Bound::AtLeast(0.6),
    ),
    plain("hot", "sends, one hot thread: acked/s", ACKED, Bound::AtLeast(20_000.0)),
    plain("idle", "memory an idle socket with 20 threads, KiB", "/memory/haus/perSocketKiB", Bound::AtMost(2.0)),
    plain("delivery-100k", "delivery p99 at 100,000 deliveries/s, ms", "/deliveryMs/p99", Bound::AtMost(10.0)),
    Budget {
        less: Some("/deliveryMs/p99"),
        ..plain("cross-node", "cross-node delivery: p99 added, ms", "/deliveryOtherUrlMs/p99", Bound::AtMost(3.0))
    },
    plain("resume", "sockets of a killed node resumed on another, s", "/resumedS", Bound::AtMost(5.0)),
    plain("connect", "connect + auth + ready: sockets/s", "/readyPerS", Bound::AtLeast(8_000.0)),
];

/// Prints the table of `file` (`-`: standard input); true when every measured budget is met and every run was clean.
pub fn print(file: &Path) -> Result<bool, LoadError> {
    let mut text = String::new();
    let failed = |e: std::io::Error| LoadError::Usage(format!("{}: {e}", file.display()));
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
    } else {
        text = std::fs::read_to_string(file).map_err(failed)?;
    }
    let runs = parse(&text)?;
    let rows: Vec<Row> = BUDGETS.iter().map(|budget| judge(budget, &runs)).collect();
    println!("{:<52} {:<44} {:>10} {:>10} {:>7} {:>9}  met", "budget", "values", "median", "floor", "ratio", "asked");
    for row in &rows {
        println!("{row}");
    }
    Ok(rows.iter().all(|row| row.verdict != Verdict::Missed && row.verdict != Verdict::Unclean))
}

fn parse(text: &str) -> Result<Vec<(String, Value)>, LoadError> {
    let mut runs = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut run: Value =
            serde_json::from_str(line).map_err(|e| LoadError::Usage(format!("line {}: {e}", number + 1)))?;
        let row =
            run["row"].as_str().ok_or_else(|| LoadError::Usage(format!("line {}: no row", number + 1)))?.to_owned();
        runs.push((row, run["report"].take()));
    }
    Ok(runs)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    /// A run lost, doubled or reordered something: its figures do not count.
    Unclean,
    NotMeasured,
}

/// A line of the table.
struct Row {
    title: &'static str,
    values: Vec<f64>,
    median: Option<f64>,
    floor: Option<f64>,
    ratio: Option<f64>,
    bound: Bound,
    verdict: Verdict,
}

fn judge(budget: &Budget, runs: &[(String, Value)]) -> Row {
    let reports: Vec<&Value> = runs.iter().filter(|(row, _)| row == budget.row).map(|(_, report)| report).collect();
    let at = |report: &Value, place: &str| report.pointer(place).and_then(Value::as_f64);
    let value =
        |report: &&Value| Some(at(report, budget.value)? - budget.less.map_or(Some(0.0), |less| at(report, less))?);
    let values: Vec<f64> = reports.iter().filter_map(value).collect();
    let floors = |(mode, field): (&str, &str)| {
        let all = reports.iter().filter_map(|report| report["floors"].as_array()).flatten();
        median(all.filter(|floor| floor["mode"] == mode).filter_map(|floor| floor[field].as_f64()).collect())
    };
    let ratio = match budget.judged {
        Judged::Value => None,
        Judged::Ratio(place) => median(reports.iter().filter_map(|report| at(report, place)).collect()),
    };
    let median = median(values.clone());
    let judged = if budget.judged == Judged::Value { median } else { ratio };
    let met = judged.map(|judged| match budget.bound {
        Bound::AtLeast(least) => judged >= least,
        Bound::AtMost(most) => judged <= most,
    });
    let verdict = match met {
        _ if reports.iter().any(|report| report["clean"] != true) => Verdict::Unclean,
        None => Verdict::NotMeasured,
        Some(true) => Verdict::Met,
        Some(false) => Verdict::Missed,
    };
    Row {
        title: budget.title,
        values,
        median,
        floor: budget.floor.and_then(floors),
        ratio,
        bound: budget.bound,
        verdict,
    }
}

/// The middle value; of an even number the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figure =
            |value: f64| if value.abs() >= 1000.0 { format!("{value:.0}") } else { round(value, 3).to_string() };
        let maybe = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        let values: Vec<String> = self.values.iter().map(|value| figure(*value)).collect();
        let asked = match self.bound {
            Bound::AtLeast(least) => format!("≥ {least}"),
            Bound::AtMost(most) => format!("≤ {most}"),
        };
        let met = match self.verdict {
            Verdict::Met => "yes",
            Verdict::Missed => "NO",
            Verdict::Unclean => "UNCLEAN",
            Verdict::NotMeasured => "not measured",
        };
        let (median, floor, ratio) = (maybe(self.median), maybe(self.floor), maybe(self.ratio));
        write!(f, "{:<52} {:<44} {median:>10} {floor:>10} {ratio:>7} {asked:>9}  {met}", self.title, values.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::{BUDGETS, Verdict, judge, median, parse};

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_row_is_judged_by_the_median_ratio_and_not_at_all_when_unclean() {
        let line = |ratio: f64, clean: bool| {
            format!(
                "{{\"row\":\"fanout-32\",\"report\":{{\"clean\":{clean},\"deliveriesPerS\":70,\"ratios\":{{\"coalesced\":{{\"deliveries\":{ratio}}}}},\
                 \"floors\":[{{\"mode\":\"coalesced\",\"deliveriesPerS\":100}},{{\"mode\":\"one-write\",\"deliveriesPerS\":9}}]}}}}\n"
            )
        };
        let verdict = |text: String| judge(&BUDGETS[0], &parse(&text).unwrap_or_default()).verdict;
        assert_eq!(verdict(line(0.1, true) + &line(0.71, true) + &line(0.9, true)), Verdict::Met);
        assert_eq!(verdict(line(0.69, true)), Verdict::Missed);
        assert_eq!(verdict(line(0.9, true) + &line(0.9, false)), Verdict::Unclean);
        assert_eq!(verdict(String::new()), Verdict::NotMeasured);
        let row = judge(&BUDGETS[0], &parse(&line(0.7, true)).unwrap_or_default());
        assert_eq!((row.values, row.floor, row.ratio), (vec![70.0], Some(100.0), Some(0.7)));
        assert!(parse("{\"report\":{}}").is_err());
    }
}
