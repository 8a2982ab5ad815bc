//! Windows from Prometheus, or from what speaks its protocol.
//!
//! `increase()` misses the first sample of a series. The first failures of a canary make new series, so just they would be
//! missed. Therefore the series are asked for as they are at both ends of a window, and their difference is taken here,
//! each for itself.
//!
//! Sources: the HTTP API of Prometheus; metrics and labels of Istio's standard metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::cohorts::Cohorts;
use super::window::{CallCounts, FailureCriteria, NOWHERE, Window};

/// The labels and values of an instant.
pub type SeriesValues = BTreeMap<BTreeMap<String, String>, f64>;

#[derive(Deserialize)]
struct QueryResponse {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// The calls that clients' proxies finished, to these hosts.
pub fn calls_query(hosts: &BTreeSet<String>) -> String {
    format!("istio_requests_total{{reporter=\"source\",destination_service=~\"{}\"}}", any_of(hosts.iter()))
}

/// The canary's 99th percentile over the last so many seconds, in milliseconds.
pub fn p99_query(sides: &Cohorts, seconds: u64) -> String {
    let names: BTreeSet<&String> = sides.canary.workloads.iter().map(|(_, name)| name).collect();
    let namespaces: BTreeSet<&String> = sides.canary.workloads.iter().map(|(namespace, _)| namespace).collect();
    format!(
        "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{{reporter=\"source\",\
         destination_service=~\"{}\",destination_workload=~\"{}\",destination_workload_namespace=~\"{}\"}}[{seconds}s])))",
        any_of(sides.hosts.iter()),
        any_of(names.into_iter()),
        any_of(namespaces.into_iter())
    )
}

/// An expression that matches just these words, as it is written within quotes.
fn any_of<'a>(words: impl Iterator<Item = &'a String>) -> String {
    // Outside of brackets a hyphen stands for itself.
    let escaped = words.map(|word| regex::escape(word).replace("\\-", "-"));
    escaped.map(|word| word.replace('\\', "\\\\").replace('"', "\\\"")).collect::<Vec<_>>().join("|")
}

/// Reads the answer to an instant query.
///
/// # Errors
/// What Prometheus says, or why the answer is none of it.
pub fn read(text: &str) -> Result<SeriesValues, String> {
    let answer: QueryResponse =
        serde_json::from_str(text).map_err(|error| format!("no answer of Prometheus: {error}"))?;
    if answer.status != "success" {
        return Err(answer.error);
    }
    let number = |sample: Sample| Some((sample.metric, sample.value.1.parse().ok()?));
    Ok(answer.data.result.into_iter().filter_map(number).collect())
}

/// The only number of an answer, if it is one.
pub fn number(series: &SeriesValues) -> Option<f64> {
    series.values().next().copied().filter(|value| value.is_finite())
}

/// Labels that tell scraped processes apart, where there are such.
const PROCESS: [&str; 5] = ["instance", "pod", "namespace", "job", "cluster"];

fn process(labels: &BTreeMap<String, String>) -> Vec<&str> {
    PROCESS.iter().map(|name| labels.get(*name).map_or("", String::as_str)).collect()
}

/// Takes what was first seen of processes that were not there at a first reading into it: what they counted before is not
/// known.
pub fn adopt(before: &mut SeriesValues, after: &SeriesValues) {
    let known: BTreeSet<Vec<String>> =
        before.keys().map(|labels| process(labels).into_iter().map(str::to_owned).collect()).collect();
    let is_new = |labels: &BTreeMap<String, String>| {
        !known.contains(&process(labels).into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let new: Vec<_> =
        after.iter().filter(|(labels, _)| is_new(labels)).map(|(key, value)| (key.clone(), *value)).collect();
    before.extend(new);
}

/// What was counted between two moments. Of a process that was there before, a new series began with 0; of one that was
/// not, nothing is known ([`adopt`]).
pub fn window(sides: &Cohorts, faults: &FailureCriteria, before: &SeriesValues, after: &SeriesValues) -> Window {
    let mut window = Window::default();
    let known: BTreeSet<Vec<&str>> = before.keys().map(process).collect();
    for (labels, now) in after {
        if !known.contains(&process(labels)) {
            continue;
        }
        let then = before.get(labels).copied().unwrap_or(0.0);
        // Counters that fell began anew.
        let grown = if *now >= then { now - then } else { *now };
        let calls = whole(grown);
        if calls == 0 {
            continue;
        }
        let label = |name: &str| labels.get(name).map_or("", String::as_str);
        let flags = || label("response_flags").split(',');
        let is_fault =
            faults.is_fault(label("grpc_response_status").parse().ok(), label("response_code").parse().ok(), flags());
        let names = |side: &BTreeSet<(String, String)>, namespace: &str, name: &str| {
            side.iter().any(|(own, other)| own == label(namespace) && other == label(name))
        };
        let of = |side| names(side, "destination_workload_namespace", "destination_workload");
        let (is_canary, is_baseline) = (of(&sides.canary.workloads), of(&sides.baseline.workloads));
        let tally = CallCounts { calls, errors: if is_fault { calls } else { 0 } };
        if is_canary {
            window.canary = window.canary.and(tally);
        } else if is_baseline {
            window.baseline = window.baseline.and(tally);
        } else if flags().any(|flag| NOWHERE.contains(&flag)) {
            window.nowhere += calls;
        }
        if (is_canary || is_baseline) && names(&sides.obeying, "source_workload_namespace", "source_workload") {
            window.obeying += calls;
            window.obeying_canary += if is_canary { calls } else { 0 };
        }
    }
    window
}

/// Counters are whole numbers that are told as fractions.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is meant"
)]
fn whole(counted: f64) -> u64 {
    counted.round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohort;
    use super::*;

    fn name(text: &str) -> (String, String) {
        ("shop".to_owned(), text.to_owned())
    }

    fn sides() -> Cohorts {
        let side = |text: &str| Cohort { workloads: [name(text)].into(), ..Cohort::default() };
        Cohorts {
            canary: side("pay-v2"),
            baseline: side("pay-v1"),
            hosts: ["pay.shop.svc.cluster.local".to_owned()].into(),
            obeying: [("web".to_owned(), "web".to_owned())].into(),
            ..Cohorts::default()
        }
    }

    #[test]
    fn queries_are_as_documented() {
        let sides = sides();
        let documented = include_str!("../../docs/guard.md");
        for query in [calls_query(&sides.hosts), p99_query(&sides, 60)] {
            assert!(documented.contains(&query), "docs/guard.md lacks {query}");
        }
        let odd = ["a\"b.c".to_owned()].into();
        assert!(calls_query(&odd).contains(r#"=~"a\"b\\.c""#), "{}", calls_query(&odd));
    }

    fn sample(workload: &str, status: &str, flags: &str, source: &str, value: u32) -> String {
        format!(
            r#"{{"metric":{{"destination_workload":"{workload}","destination_workload_namespace":"shop","grpc_response_status":"{status}","response_code":"200","response_flags":"{flags}","source_workload":"{source}","source_workload_namespace":"web"}},"value":[1,"{value}"]}}"#
        )
    }

    fn series(samples: &[String]) -> SeriesValues {
        read(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, samples.join(",")))
            .unwrap()
    }

    #[test]
    fn windows_are_differences_of_each_series() {
        let before = series(&[
            sample("pay-v2", "0", "-", "web", 100),
            sample("pay-v1", "0", "-", "web", 900),
            sample("pay-v1", "0", "-", "job", 50),
        ]);
        let after = series(&[
            sample("pay-v2", "0", "-", "web", 110),
            // The first failures make a new series.
            sample("pay-v2", "14", "UF,URX", "web", 5),
            sample("pay-v2", "5", "-", "web", 5),
            // The caller was started anew.
            sample("pay-v1", "0", "-", "web", 60),
            sample("pay-v1", "0", "-", "job", 70),
            sample("unknown", "14", "UH", "web", 7),
            sample("other", "14", "-", "web", 9),
        ]);
        let window = window(&sides(), &FailureCriteria::default(), &before, &after);
        assert_eq!((window.canary.calls, window.canary.errors), (20, 5));
        assert_eq!((window.baseline.calls, window.baseline.errors, window.nowhere), (80, 0, 7));
        // The job's calls go another way: they say nothing of the split.
        assert_eq!((window.obeying_canary, window.obeying), (20, 80));
    }

    #[test]
    fn what_a_process_counted_before_it_was_seen_is_not_of_the_window() {
        let of = |instance: &str, value: u32| {
            sample("pay-v2", "14", "-", "web", value)
                .replace("\"metric\":{", &format!("\"metric\":{{\"instance\":\"{instance}\","))
        };
        let mut before = series(&[of("a", 10)]);
        let after = series(&[of("a", 12), of("b", 500)]);
        assert_eq!(
            window(&sides(), &FailureCriteria::default(), &before, &after).canary,
            CallCounts { calls: 2, errors: 2 }
        );
        adopt(&mut before, &after);
        let later = series(&[of("a", 12), of("b", 503)]);
        assert_eq!(
            window(&sides(), &FailureCriteria::default(), &before, &later).canary,
            CallCounts { calls: 5, errors: 5 }
        );
    }

    #[test]
    fn what_is_no_answer_is_said() {
        assert_eq!(read(r#"{"status":"error","errorType":"x","error":"too many"}"#).unwrap_err(), "too many");
        assert!(read("<html>").unwrap_err().starts_with("no answer of Prometheus"));
        let nan = read(r#"{"status":"success","data":{"result":[{"metric":{},"value":[1,"NaN"]}]}}"#).unwrap();
        assert_eq!(number(&nan), None);
    }
}
