//! Windows from Prometheus, or from a server that speaks its protocol.
//!
//! `increase()` misses the first sample of a series. The first failures of a canary create new series, so it would miss
//! exactly those. Therefore the raw series are queried at both ends of a window and subtracted here, series by series.
//!
//! Sources: the HTTP API of Prometheus; metrics and labels of Istio's standard metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::cohorts::Cohorts;
use super::window::{CallCounts, FailureCriteria, NO_UPSTREAM_FLAGS, Window};

/// The result of an instant query: value by labels.
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

/// A query for the calls to these hosts, as counted by the callers' proxies.
pub fn calls_query(hosts: &BTreeSet<String>) -> String {
    format!("istio_requests_total{{reporter=\"source\",destination_service=~\"{}\"}}", alternatives(hosts.iter()))
}

/// A query for the canary's 99th percentile over the last `seconds`, in milliseconds.
pub fn p99_query(cohorts: &Cohorts, seconds: u64) -> String {
    let names: BTreeSet<&String> = cohorts.canary.workloads.iter().map(|(_, name)| name).collect();
    let namespaces: BTreeSet<&String> = cohorts.canary.workloads.iter().map(|(namespace, _)| namespace).collect();
    format!(
        "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{{reporter=\"source\",\
         destination_service=~\"{}\",destination_workload=~\"{}\",destination_workload_namespace=~\"{}\"}}[{seconds}s])))",
        alternatives(cohorts.hosts.iter()),
        alternatives(names.into_iter()),
        alternatives(namespaces.into_iter())
    )
}

/// A regular expression that matches exactly these values, escaped for a quoted PromQL string.
fn alternatives<'a>(values: impl Iterator<Item = &'a String>) -> String {
    // A hyphen needs no escape outside of brackets.
    let escaped = values.map(|value| regex::escape(value).replace("\\-", "-"));
    escaped.map(|value| value.replace('\\', "\\\\").replace('"', "\\\"")).collect::<Vec<_>>().join("|")
}

/// Parses the response to an instant query.
///
/// # Errors
/// The error message of Prometheus, or why the text is not a response of its API.
pub fn parse_response(text: &str) -> Result<SeriesValues, String> {
    let response: QueryResponse =
        serde_json::from_str(text).map_err(|error| format!("not a Prometheus response: {error}"))?;
    if response.status != "success" {
        return Err(response.error);
    }
    let labeled_value = |sample: Sample| Some((sample.metric, sample.value.1.parse().ok()?));
    Ok(response.data.result.into_iter().filter_map(labeled_value).collect())
}

/// The value of a query that yields one number; `None` for no series and for NaN.
pub fn scalar_value(series: &SeriesValues) -> Option<f64> {
    series.values().next().copied().filter(|value| value.is_finite())
}

/// Labels that identify the scraped process, where they are present.
const PROCESS_LABELS: [&str; 5] = ["instance", "pod", "namespace", "job", "cluster"];

fn process_key(labels: &BTreeMap<String, String>) -> Vec<&str> {
    PROCESS_LABELS.iter().map(|name| labels.get(*name).map_or("", String::as_str)).collect()
}

/// Copies the series of processes that `before` does not have from `after` into it. Their counts from before this
/// reading are unknown, so they count from here on.
pub fn add_new_processes(before: &mut SeriesValues, after: &SeriesValues) {
    let processes: BTreeSet<Vec<String>> =
        before.keys().map(|labels| process_key(labels).into_iter().map(str::to_owned).collect()).collect();
    let is_new = |labels: &BTreeMap<String, String>| {
        !processes.contains(&process_key(labels).into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let new: Vec<_> =
        after.iter().filter(|(labels, _)| is_new(labels)).map(|(key, value)| (key.clone(), *value)).collect();
    before.extend(new);
}

/// The calls between two readings. A new series of a process in `before` started at 0; a process that is not in
/// `before` is skipped (see [`add_new_processes`]).
pub fn window_between(
    cohorts: &Cohorts,
    criteria: &FailureCriteria,
    before: &SeriesValues,
    after: &SeriesValues,
) -> Window {
    let mut window = Window::default();
    let processes: BTreeSet<Vec<&str>> = before.keys().map(process_key).collect();
    for (labels, now) in after {
        if !processes.contains(&process_key(labels)) {
            continue;
        }
        let then = before.get(labels).copied().unwrap_or(0.0);
        // A counter that fell was reset.
        let increase = if *now >= then { now - then } else { *now };
        let calls = to_count(increase);
        if calls == 0 {
            continue;
        }
        let label = |name: &str| labels.get(name).map_or("", String::as_str);
        let flags = || label("response_flags").split(',');
        let is_failure = criteria.is_failure(
            label("grpc_response_status").parse().ok(),
            label("response_code").parse().ok(),
            flags(),
        );
        let contains = |workloads: &BTreeSet<(String, String)>, namespace_label: &str, name_label: &str| {
            workloads.iter().any(|(namespace, name)| namespace == label(namespace_label) && name == label(name_label))
        };
        let goes_to = |workloads| contains(workloads, "destination_workload_namespace", "destination_workload");
        let (is_canary, is_baseline) = (goes_to(&cohorts.canary.workloads), goes_to(&cohorts.baseline.workloads));
        let counts = CallCounts { calls, errors: if is_failure { calls } else { 0 } };
        if is_canary {
            window.canary = window.canary.plus(counts);
        } else if is_baseline {
            window.baseline = window.baseline.plus(counts);
        } else if flags().any(|flag| NO_UPSTREAM_FLAGS.contains(&flag)) {
            window.no_upstream += calls;
        }
        let is_affected = contains(&cohorts.affected_workloads, "source_workload_namespace", "source_workload");
        if (is_canary || is_baseline) && is_affected {
            window.affected_calls += calls;
            window.affected_canary_calls += if is_canary { calls } else { 0 };
        }
    }
    window
}

/// Prometheus sends counters, which are whole numbers, as floats.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as it should")]
fn to_count(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohort;
    use super::*;

    fn in_shop(name: &str) -> (String, String) {
        ("shop".to_owned(), name.to_owned())
    }

    fn cohorts() -> Cohorts {
        let cohort = |workload: &str| Cohort { workloads: [in_shop(workload)].into(), ..Cohort::default() };
        Cohorts {
            canary: cohort("pay-v2"),
            baseline: cohort("pay-v1"),
            hosts: ["pay.shop.svc.cluster.local".to_owned()].into(),
            affected_workloads: [("web".to_owned(), "web".to_owned())].into(),
            ..Cohorts::default()
        }
    }

    #[test]
    fn the_documented_queries_are_the_ones_sent() {
        let cohorts = cohorts();
        let documented = include_str!("../../docs/canary-analysis.md");
        for query in [calls_query(&cohorts.hosts), p99_query(&cohorts, 60)] {
            assert!(documented.contains(&query), "docs/canary-analysis.md lacks {query}");
        }
        let quoted = ["a\"b.c".to_owned()].into();
        assert!(calls_query(&quoted).contains(r#"=~"a\"b\\.c""#), "{}", calls_query(&quoted));
    }

    fn sample(workload: &str, status: &str, flags: &str, source: &str, value: u32) -> String {
        format!(
            r#"{{"metric":{{"destination_workload":"{workload}","destination_workload_namespace":"shop","grpc_response_status":"{status}","response_code":"200","response_flags":"{flags}","source_workload":"{source}","source_workload_namespace":"web"}},"value":[1,"{value}"]}}"#
        )
    }

    fn series(samples: &[String]) -> SeriesValues {
        parse_response(&format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
            samples.join(",")
        ))
        .unwrap()
    }

    #[test]
    fn a_window_is_the_difference_of_each_series() {
        let before = series(&[
            sample("pay-v2", "0", "-", "web", 100),
            sample("pay-v1", "0", "-", "web", 900),
            sample("pay-v1", "0", "-", "job", 50),
        ]);
        let after = series(&[
            sample("pay-v2", "0", "-", "web", 110),
            // The first failures create a new series.
            sample("pay-v2", "14", "UF,URX", "web", 5),
            sample("pay-v2", "5", "-", "web", 5),
            // The caller restarted.
            sample("pay-v1", "0", "-", "web", 60),
            sample("pay-v1", "0", "-", "job", 70),
            sample("unknown", "14", "UH", "web", 7),
            sample("other", "14", "-", "web", 9),
        ]);
        let window = window_between(&cohorts(), &FailureCriteria::default(), &before, &after);
        assert_eq!((window.canary.calls, window.canary.errors), (20, 5));
        assert_eq!((window.baseline.calls, window.baseline.errors, window.no_upstream), (80, 0, 7));
        // The job does not use the rule: its calls say nothing about the split.
        assert_eq!((window.affected_canary_calls, window.affected_calls), (20, 80));
    }

    #[test]
    fn calls_from_before_a_process_was_first_read_are_not_counted() {
        let from_instance = |instance: &str, value: u32| {
            sample("pay-v2", "14", "-", "web", value)
                .replace("\"metric\":{", &format!("\"metric\":{{\"instance\":\"{instance}\","))
        };
        let mut before = series(&[from_instance("a", 10)]);
        let after = series(&[from_instance("a", 12), from_instance("b", 500)]);
        assert_eq!(
            window_between(&cohorts(), &FailureCriteria::default(), &before, &after).canary,
            CallCounts { calls: 2, errors: 2 }
        );
        add_new_processes(&mut before, &after);
        let later = series(&[from_instance("a", 12), from_instance("b", 503)]);
        assert_eq!(
            window_between(&cohorts(), &FailureCriteria::default(), &before, &later).canary,
            CallCounts { calls: 5, errors: 5 }
        );
    }

    #[test]
    fn reports_error_responses_and_other_texts() {
        assert_eq!(parse_response(r#"{"status":"error","errorType":"x","error":"too many"}"#).unwrap_err(), "too many");
        assert!(parse_response("<html>").unwrap_err().starts_with("not a Prometheus response"));
        let nan =
            parse_response(r#"{"status":"success","data":{"result":[{"metric":{},"value":[1,"NaN"]}]}}"#).unwrap();
        assert_eq!(scalar_value(&nan), None);
    }
}
