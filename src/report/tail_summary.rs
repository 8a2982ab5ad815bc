//! `tail --summary -o json`: aggregates any number of calls in bounded memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::durations::Durations;
use super::tail::{format_time, short_host, text};
use crate::accesslog::{AccessEntry, OtherLine};
use crate::diagnosis::{CallDiagnosis, CallStatus, FaultLevel, StatusSource};
use crate::vocabulary::duration;

/// Limit for the number of groups, and so for memory.
const GROUPS_MAX: usize = 2_000;
/// Fewer calls than this do not suggest a time limit.
const CLUSTER_MIN: u64 = 10;

/// Counts calls as they are read.
#[derive(Debug, Default)]
pub struct SummaryCounter {
    /// Calls in the requested time range, before filters.
    in_range: u64,
    /// Calls before the requested time range, or without a start time.
    out_of_range: u64,
    /// Calls without a start time.
    without_time: u64,
    /// gRPC calls in the range whose status the log does not contain.
    without_logged_status: u64,
    /// Calls that pass the filters.
    calls: u64,
    faults: u64,
    notices: u64,
    ambiguous: u64,
    other_lines: BTreeMap<OtherLine, u64>,
    groups: HashMap<CallGroup, GroupCalls>,
    ungrouped: u64,
    durations: Durations,
    first_ms: Option<i64>,
    last_ms: Option<i64>,
}

/// The properties that the calls of a group share. Groups of equal size are sorted by the fields in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct CallGroup {
    level: FaultLevel,
    flags: String,
    method: String,
    destination: String,
    is_grpc: bool,
    grpc_status: Option<u8>,
    grpc_status_from: Option<StatusSource>,
    what: String,
}

/// Level, flags and destination: calls of several methods may fail for the same cause.
type GroupCause<'a> = (FaultLevel, &'a str, &'a str);

impl CallGroup {
    fn cause(&self) -> GroupCause<'_> {
        (self.level, &self.flags, &self.destination)
    }
}

#[derive(Debug)]
struct GroupCalls {
    /// Response code details of the first call.
    details: String,
    durations: Durations,
}

impl SummaryCounter {
    /// Counts a call in the requested time range, whether or not it passes the filters.
    #[inline]
    pub fn count_in_range(&mut self, diagnosis: &CallDiagnosis) {
        self.in_range += 1;
        let is_logged = |status: CallStatus| status.source == Some(StatusSource::Logged);
        self.without_logged_status += u64::from(diagnosis.status.is_some_and(|status| !is_logged(status)));
    }

    /// Counts a call before the requested time range, or without a start time.
    pub fn count_out_of_range(&mut self, access: &AccessEntry<'_>) {
        self.out_of_range += 1;
        self.without_time += u64::from(access.start_ms.is_none());
    }

    /// Calls in the requested time range, before filters.
    pub fn in_range(&self) -> u64 {
        self.in_range
    }

    /// Calls before the requested time range, or without a start time.
    pub fn out_of_range(&self) -> u64 {
        self.out_of_range
    }

    /// Calls without a start time; [`Self::out_of_range`] includes them.
    pub fn without_time(&self) -> u64 {
        self.without_time
    }

    /// gRPC calls in the time range whose status the log does not contain.
    pub fn without_logged_status(&self) -> u64 {
        self.without_logged_status
    }

    /// Counts a call that passes the filters.
    #[inline]
    pub fn add(&mut self, access: &AccessEntry<'_>, diagnosis: &CallDiagnosis) {
        self.calls += 1;
        self.ambiguous += u64::from(access.ambiguous);
        if let Some(start) = access.start_ms {
            self.first_ms = Some(self.first_ms.map_or(start, |first| first.min(start)));
            self.last_ms = Some(self.last_ms.map_or(start, |last| last.max(start)));
        }
        let duration = access.duration_ms.unwrap_or(0);
        self.durations.add(duration);
        match diagnosis.level {
            FaultLevel::Normal => return,
            FaultLevel::Fault => self.faults += 1,
            FaultLevel::Notice => self.notices += 1,
        }
        self.add_to_group(access, diagnosis, duration);
    }

    fn add_to_group(&mut self, access: &AccessEntry<'_>, diagnosis: &CallDiagnosis, duration: u64) {
        // Groups ignore the order of flags and the endpoint's address. They keep the cause of a connection failure.
        let mut flags: Vec<&str> = access.flags.iter().collect();
        flags.sort_unstable();
        let destination = match access.destination() {
            Some((_, subset, host)) => format!("{} {subset}", short_host(host)).trim().to_owned(),
            None => text(&access.authority).map(|name| short_host(&name).to_owned()).unwrap_or_default(),
        };
        let what = match text(&access.upstream_host) {
            Some(host) => diagnosis.what.replace(&format!(" {host}"), ""),
            None => diagnosis.what.to_string(),
        };
        let group = CallGroup {
            level: diagnosis.level,
            flags: flags.join(","),
            method: text(&access.path)
                .map(|path| path.split('?').next().unwrap_or_default().to_owned())
                .unwrap_or_default(),
            destination,
            is_grpc: diagnosis.status.is_some(),
            grpc_status: diagnosis.status.and_then(|status| status.code),
            grpc_status_from: diagnosis.status.and_then(|status| status.source),
            what,
        };
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            self.ungrouped += 1;
            return;
        }
        let calls = self.groups.entry(group).or_insert_with(|| GroupCalls {
            details: text(&access.details).unwrap_or_default(),
            durations: Durations::default(),
        });
        calls.durations.add(duration);
    }

    /// Adds the counts of another reader.
    pub fn merge(&mut self, other: Self) {
        self.in_range += other.in_range;
        self.out_of_range += other.out_of_range;
        self.without_time += other.without_time;
        self.without_logged_status += other.without_logged_status;
        self.calls += other.calls;
        self.faults += other.faults;
        self.notices += other.notices;
        self.ambiguous += other.ambiguous;
        self.ungrouped += other.ungrouped;
        self.durations.merge(&other.durations);
        for (kind, count) in other.other_lines {
            *self.other_lines.entry(kind).or_default() += count;
        }
        self.first_ms = self.first_ms.into_iter().chain(other.first_ms).min();
        self.last_ms = self.last_ms.max(other.last_ms);
        for (group, GroupCalls { details, durations }) in other.groups {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
                self.ungrouped += durations.count();
                continue;
            }
            let calls =
                self.groups.entry(group).or_insert_with(|| GroupCalls { details, durations: Durations::default() });
            calls.durations.merge(&durations);
        }
    }

    /// Counts a line that is not an access log line.
    pub fn count_other_line(&mut self, kind: OtherLine) {
        *self.other_lines.entry(kind).or_default() += 1;
    }

    /// Faults that pass the filters, divided by all calls in the time range: 0 to 1.
    pub fn fault_ratio(&self) -> f64 {
        if self.in_range == 0 { 0.0 } else { self.faults as f64 / self.in_range as f64 }
    }

    /// Whether any line was read.
    pub fn has_lines(&self) -> bool {
        self.in_range + self.out_of_range > 0 || !self.other_lines.is_empty()
    }

    /// Calls that pass the filters.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    fn durations_by_cause(&self) -> HashMap<GroupCause<'_>, Durations> {
        let mut causes: HashMap<GroupCause<'_>, Durations> = HashMap::new();
        for (group, calls) in &self.groups {
            causes.entry(group.cause()).or_default().merge(&calls.durations);
        }
        causes
    }

    /// Builds the summary: faults before notices, each with the largest group first.
    pub fn report(&self) -> TailSummary {
        let mut groups: Vec<(&CallGroup, &GroupCalls)> = self.groups.iter().collect();
        groups.sort_by_key(|(group, calls)| (group.level, Reverse(calls.durations.count()), *group));
        let mut by_cause = self.durations_by_cause();
        let groups: Vec<CallGroupReport> = groups
            .into_iter()
            .map(|(group, calls)| {
                // A server that closes connections affects every method: the first group of the cause reports it, once.
                let all_methods = by_cause.remove(&group.cause());
                group_report(group, calls, all_methods.as_ref())
            })
            .collect();
        TailSummary {
            kind: "TailSummary",
            version: 1,
            from: self.first_ms.and_then(format_time),
            to: self.last_ms.and_then(format_time),
            calls: self.calls,
            faults: self.faults,
            notices: self.notices,
            p50_ms: self.durations.quantile(0.5).unwrap_or_default(),
            p99_ms: self.durations.quantile(0.99).unwrap_or_default(),
            groups,
            ungrouped: self.ungrouped,
            ambiguous: self.ambiguous,
            other_lines: self.other_lines.clone(),
        }
    }
}

/// `all_methods` has the durations of every group with the same cause.
fn group_report(group: &CallGroup, calls: &GroupCalls, all_methods: Option<&Durations>) -> CallGroupReport {
    let GroupCalls { details, durations } = calls;
    CallGroupReport {
        level: group.level,
        flags: group.flags.split(',').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
        is_grpc: group.is_grpc,
        grpc_status: group.grpc_status,
        grpc_status_from: group.grpc_status_from,
        destination: group.destination.clone(),
        method: group.method.clone(),
        details: details.clone(),
        what: group.what.clone(),
        calls: durations.count(),
        p50_ms: durations.quantile(0.5).unwrap_or_default(),
        p99_ms: durations.quantile(0.99).unwrap_or_default(),
        consistent_with: match (consistent_with(group, durations), all_methods) {
            (None, Some(all)) if all.count() > durations.count() => {
                consistent_with(group, all).map(|explanation| format!("across all methods, {explanation}"))
            }
            (explanation, _) => explanation,
        },
    }
}

/// The time limit that durations close to each other suggest.
fn consistent_with(group: &CallGroup, durations: &Durations) -> Option<String> {
    let (center_ms, count) = durations.median_cluster()?;
    if durations.count() < CLUSTER_MIN || count * 10 < durations.count() * 8 || center_ms < 100 {
        return None;
    }
    let flag = group.flags.split(',').find(|flag| !matches!(*flag, "URX" | "DI")).unwrap_or_default();
    let limit = match flag {
        "UT" => "a route timeout, a per-try timeout, or a deadline of the callers",
        "UR" | "UC" => "a server that closes connections at a maximum age or idle time",
        "DR" => "a deadline of the callers",
        "DC" => "callers, or a proxy in front of them, that close connections after a fixed time",
        "SI" => "an idle timeout",
        "UF" => "a connect timeout",
        _ => return None,
    };
    let center = duration::format(Duration::from_millis(center_ms));
    Some(format!("{count} of {} calls within 5% of {center}: consistent with {limit}", durations.count()))
}

/// Aggregated calls.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailSummary")]
pub struct TailSummary {
    /// Always `TailSummary`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Start of the first call, RFC 3339.
    pub from: Option<String>,
    /// Start of the last call, RFC 3339.
    pub to: Option<String>,
    /// Calls and TCP connections that pass the filters.
    pub calls: u64,
    /// Calls that are faults.
    pub faults: u64,
    /// Calls that the caller ended, that the application answered with an error, or whose outcome the log does not show.
    pub notices: u64,
    /// Median duration in milliseconds, accurate to 3%.
    pub p50_ms: u64,
    /// 99th percentile of the duration in milliseconds, accurate to 3%.
    pub p99_ms: u64,
    /// Faults, then notices, largest group first.
    pub groups: Vec<CallGroupReport>,
    /// Faults and notices beyond the limit for the number of groups.
    pub ungrouped: u64,
    /// Lines that text sent by a client allows to read in several ways.
    pub ambiguous: u64,
    /// Number of lines that are not access log lines, by kind.
    pub other_lines: BTreeMap<OtherLine, u64>,
}

/// Calls with the same outcome.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CallGroupReport {
    /// `fault` or `notice`.
    pub level: FaultLevel,
    /// Response flags, sorted.
    pub flags: Vec<String>,
    /// Whether the calls are gRPC calls.
    pub is_grpc: bool,
    /// gRPC status as a number; null if it is not known or the calls are not gRPC.
    pub grpc_status: Option<u8>,
    /// How `grpc_status` is known; null if `grpc_status` is null.
    pub grpc_status_from: Option<StatusSource>,
    /// Host and subset.
    pub destination: String,
    /// Path without its query.
    pub method: String,
    /// Response code details of the first call.
    pub details: String,
    /// The diagnosis in one sentence.
    pub what: String,
    /// Number of calls.
    pub calls: u64,
    /// Median duration in milliseconds, accurate to 3%.
    pub p50_ms: u64,
    /// 99th percentile of the duration in milliseconds, accurate to 3%.
    pub p99_ms: u64,
    /// The time limit that the durations suggest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_with: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accesslog::LogReader;
    use crate::diagnosis::diagnose;

    #[test]
    fn reports_a_time_limit_across_methods_once() {
        let mut counter = SummaryCounter::default();
        for number in 0..42 {
            let (method, duration) = (number % 6, if number < 38 { 299_500 + number * 30 } else { 10 });
            let line = format!(
                "[2026-11-21T09:00:00.000Z] \"POST /a.B/C{method} HTTP/2\" 200 UR upstream_reset_after_response_started - \"-\" 0 0 {duration} - \
                 \"-\" \"grpc-go/1\" \"id\" \"echo:50051\" \"10.0.0.1:1\" outbound|50051||echo - 10.0.0.3:2 10.0.0.4:3 - default"
            );
            let (mut reader, mut access) = (LogReader::default(), AccessEntry::default());
            reader.read_into(line.as_bytes(), &mut access).unwrap();
            counter.add(&access, &diagnose(&access));
        }
        let explanations: Vec<String> =
            counter.report().groups.into_iter().filter_map(|group| group.consistent_with).collect();
        assert_eq!(explanations.len(), 1, "{explanations:?}");
        assert!(explanations[0].starts_with("across all methods, 38 of 42 calls within 5% of 5m:"), "{explanations:?}");
    }

    #[test]
    fn groups_of_equal_size_have_a_stable_order() {
        let mut counter = SummaryCounter::default();
        for policy in ["g", "c", "a", "f", "b", "h", "e", "d"] {
            let line = format!(
                "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 403 - rbac_access_denied_matched_policy[{policy}] - \"-\" 0 0 1 - \
                 \"-\" \"grpc-go/1\" \"id\" \"echo:50051\" \"-\" inbound|50051|| - 10.0.0.3:2 10.0.0.4:3 - default"
            );
            let (mut reader, mut access) = (LogReader::default(), AccessEntry::default());
            reader.read_into(line.as_bytes(), &mut access).unwrap();
            counter.add(&access, &diagnose(&access));
        }
        let what: Vec<String> = counter.report().groups.into_iter().map(|group| group.what).collect();
        assert!(what.len() == 8 && what.is_sorted(), "{what:?}");
    }
}
