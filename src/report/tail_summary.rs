//! The summary of `tail`: many calls in numbers, in memory that does not grow with them.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::durations::Durations;
use super::tail::{short, show_time, text};
use crate::accesslog::{AccessEntry, OtherLine};
use crate::diagnosis::{CallDiagnosis, FaultLevel, StatusSource};
use crate::vocabulary::grpc_status;

/// Kinds of outcomes beyond this number are counted together.
const GROUPS_MAX: usize = 2_000;
/// No time limit is named below so many cases.
const CLUSTER_MIN: u64 = 10;

/// Counts calls as they come.
#[derive(Debug, Default)]
pub struct SummaryCounter {
    /// Calls before any filter, but for those before the time that was asked for.
    seen: u64,
    /// Calls before that time, or without one.
    early: u64,
    /// Of them those without one.
    timeless: u64,
    /// Of those that were seen, gRPC calls whose status the log does not have.
    without_status: u64,
    calls: u64,
    faults: u64,
    notices: u64,
    ambiguous: u64,
    other: HashMap<OtherLine, u64>,
    groups: HashMap<CallGroup, GroupCalls>,
    beyond: u64,
    all: Durations,
    first: Option<i64>,
    last: Option<i64>,
}

/// In the order in which the fields put them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct CallGroup {
    grade: &'static str,
    flags: String,
    method: String,
    destination: String,
    status: String,
    what: String,
}

/// Grade, flags and destination.
type GroupCause<'a> = (&'static str, &'a str, &'a str);

impl CallGroup {
    fn cause(&self) -> GroupCause<'_> {
        (self.grade, &self.flags, &self.destination)
    }
}

/// What is kept of calls that ended alike.
#[derive(Debug)]
struct GroupCalls {
    /// Details of the first.
    details: String,
    durations: Durations,
}

impl SummaryCounter {
    /// Notes that there was a call, whether or not the filters let it through.
    #[inline]
    pub fn see(&mut self, verdict: &CallDiagnosis) {
        self.seen += 1;
        self.without_status += u64::from(verdict.status.is_some_and(|status| status.known != StatusSource::Logged));
    }

    /// Notes that there was a call before the time that was asked for, or without a time.
    pub fn see_early(&mut self, access: &AccessEntry<'_>) {
        self.early += 1;
        self.timeless += u64::from(access.start.is_none());
    }

    /// Calls before any filter, but for those before the time that was asked for.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls before the time that was asked for, or without a time.
    pub fn early(&self) -> u64 {
        self.early
    }

    /// Of [`Self::early`] those without a time.
    pub fn timeless(&self) -> u64 {
        self.timeless
    }

    /// Of those that were seen, gRPC calls whose status the log does not have.
    pub fn without_status(&self) -> u64 {
        self.without_status
    }

    /// Counts a call.
    #[inline]
    pub fn add(&mut self, access: &AccessEntry<'_>, verdict: &CallDiagnosis) {
        self.calls += 1;
        self.ambiguous += u64::from(access.ambiguous);
        if let Some(start) = access.start {
            self.first = Some(self.first.map_or(start, |first| first.min(start)));
            self.last = Some(self.last.map_or(start, |last| last.max(start)));
        }
        let duration = access.duration.unwrap_or(0);
        self.all.add(duration);
        match verdict.grade {
            FaultLevel::Normal => return,
            FaultLevel::Fault => self.faults += 1,
            FaultLevel::Notice => self.notices += 1,
        }
        self.add_to_group(access, verdict, duration);
    }

    /// Counts a call that did not go well among those that ended alike.
    fn add_to_group(&mut self, access: &AccessEntry<'_>, verdict: &CallDiagnosis, duration: u64) {
        // Sets print their members in any order; reasons inside braces stay apart, addresses do not.
        let mut flags: Vec<&str> = access.flags.iter().collect();
        flags.sort_unstable();
        let destination = match access.destination() {
            Some((_, subset, host)) => format!("{} {subset}", short(host)).trim().to_owned(),
            None => text(&access.authority).map(|name| short(&name).to_owned()).unwrap_or_default(),
        };
        let what = match text(&access.upstream_host) {
            Some(host) => verdict.what.replace(&format!(" {host}"), ""),
            None => verdict.what.to_string(),
        };
        let group = CallGroup {
            grade: verdict.grade.as_str(),
            flags: flags.join(","),
            status: show_status(verdict),
            method: text(&access.path)
                .map(|path| path.split('?').next().unwrap_or_default().to_owned())
                .unwrap_or_default(),
            destination,
            what,
        };
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            self.beyond += 1;
            return;
        }
        let cases = self.groups.entry(group).or_insert_with(|| GroupCalls {
            details: text(&access.details).unwrap_or_default(),
            durations: Durations::default(),
        });
        cases.durations.add(duration);
    }

    /// Takes in what was counted elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.seen += other.seen;
        self.early += other.early;
        self.timeless += other.timeless;
        self.without_status += other.without_status;
        self.calls += other.calls;
        self.faults += other.faults;
        self.notices += other.notices;
        self.ambiguous += other.ambiguous;
        self.beyond += other.beyond;
        self.all.merge(&other.all);
        for (kind, count) in other.other {
            *self.other.entry(kind).or_default() += count;
        }
        let least = |a: Option<i64>, b: Option<i64>| a.into_iter().chain(b).min();
        (self.first, self.last) = (least(self.first, other.first), self.last.max(other.last));
        for (group, GroupCalls { details, durations }) in other.groups {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
                self.beyond += durations.count();
                continue;
            }
            let cases =
                self.groups.entry(group).or_insert_with(|| GroupCalls { details, durations: Durations::default() });
            cases.durations.merge(&durations);
        }
    }

    /// Counts a line that is no access line.
    pub fn other(&mut self, kind: OtherLine) {
        *self.other.entry(kind).or_default() += 1;
    }

    /// Share of all calls that are faults that the filters let through, 0 to 1.
    pub fn fault_rate(&self) -> f64 {
        if self.seen == 0 { 0.0 } else { self.faults as f64 / self.seen as f64 }
    }

    /// Whether there was a line at all.
    pub fn has_read(&self) -> bool {
        self.seen + self.early > 0 || !self.other.is_empty()
    }

    /// Number of calls.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Durations of the groups that flags and destination have in common.
    fn durations_by_cause(&self) -> HashMap<GroupCause<'_>, Durations> {
        let mut causes: HashMap<GroupCause<'_>, Durations> = HashMap::new();
        for (group, cases) in &self.groups {
            causes.entry(group.cause()).or_default().merge(&cases.durations);
        }
        causes
    }

    /// The summary.
    pub fn report(&self) -> TailSummary {
        let mut groups: Vec<(&CallGroup, &GroupCalls)> = self.groups.iter().collect();
        groups.sort_by_key(|(group, cases)| (group.grade, std::cmp::Reverse(cases.durations.count()), *group));
        let mut whole = self.durations_by_cause();
        let groups: Vec<CallGroupReport> = groups
            .into_iter()
            .map(|(group, GroupCalls { details, durations })| CallGroupReport {
                grade: group.grade,
                flags: group.flags.clone(),
                grpc_status: group.status.clone(),
                destination: group.destination.clone(),
                method: group.method.clone(),
                details: details.clone(),
                what: group.what.clone(),
                calls: durations.count(),
                p50_ms: durations.quantile(0.5).unwrap_or_default(),
                p99_ms: durations.quantile(0.99).unwrap_or_default(),
                // What a server does to its connections, it does whatever is called: told once, with the first group.
                consistent_with: match (consistent_with(group, durations), whole.remove(&group.cause())) {
                    (None, Some(all)) if all.count() > durations.count() => {
                        consistent_with(group, &all).map(|said| format!("over all methods {said}"))
                    }
                    (said, _) => said,
                },
            })
            .collect();
        let mut other: Vec<(&'static str, u64)> =
            self.other.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        other.sort_unstable();
        TailSummary {
            kind: "TailSummary",
            version: 1,
            from: self.first.and_then(show_time),
            to: self.last.and_then(show_time),
            calls: self.calls,
            faults: self.faults,
            notices: self.notices,
            p50_ms: self.all.quantile(0.5).unwrap_or_default(),
            p99_ms: self.all.quantile(0.99).unwrap_or_default(),
            groups,
            beyond: self.beyond,
            ambiguous: self.ambiguous,
            other_lines: other.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        }
    }
}

/// `~14 UNAVAILABLE`, `5 NOT_FOUND`, `?`.
pub fn show_status(verdict: &CallDiagnosis) -> String {
    match verdict.status {
        Some(status) => match (status.code, status.known) {
            (Some(code), StatusSource::Inferred) => format!("~{code} {}", grpc_status::name(code)),
            (Some(code), _) => format!("{code} {}", grpc_status::name(code)),
            (None, _) => "?".to_owned(),
        },
        None => String::new(),
    }
}

/// A time limit that the durations of a kind of failure point at.
fn consistent_with(group: &CallGroup, durations: &Durations) -> Option<String> {
    let (at, near) = durations.cluster()?;
    if durations.count() < CLUSTER_MIN || near * 10 < durations.count() * 8 || at < 100 {
        return None;
    }
    let main = group.flags.split(',').find(|flag| !matches!(*flag, "URX" | "DI")).unwrap_or_default();
    let what = match main {
        "UT" => "a timeout of the route, a limit of each try, or a deadline of the clients",
        "UR" | "UC" => "a server that closes connections by age or after being idle",
        "DR" => "a deadline of the clients",
        "DC" => "clients, or something before them, that close connections after a fixed time",
        "SI" => "an idle timeout",
        "UF" => "a limit for making connections",
        _ => return None,
    };
    let show = crate::vocabulary::duration::show(std::time::Duration::from_millis(at));
    Some(format!("{near} of {} within 5% of about {show}: consistent with {what}", durations.count()))
}

/// Many calls in numbers.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailSummary")]
pub struct TailSummary {
    /// Always `TailSummary`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// Start of the first call.
    pub from: Option<String>,
    /// Start of the last call.
    pub to: Option<String>,
    /// Calls and connections.
    pub calls: u64,
    /// Of them faults.
    pub faults: u64,
    /// Of them neither faults nor plainly normal.
    pub notices: u64,
    /// Median duration in milliseconds, to within 3 %.
    pub p50_ms: u64,
    /// Duration below which 99 % stay, in milliseconds, to within 3 %.
    pub p99_ms: u64,
    /// What went wrong, most frequent first.
    pub groups: Vec<CallGroupReport>,
    /// Faults and notices that were counted without their kind, because there were too many kinds.
    pub beyond: u64,
    /// Lines that a client's text made readable in several ways.
    pub ambiguous: u64,
    /// Lines that are no access lines, by kind.
    pub other_lines: std::collections::BTreeMap<String, u64>,
}

/// Calls that ended alike.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CallGroupReport {
    /// `fault` or `notice`.
    pub grade: &'static str,
    /// Flags, sorted.
    pub flags: String,
    /// gRPC status; `~` marks an inferred one.
    pub grpc_status: String,
    /// Host and subset.
    pub destination: String,
    /// Path without its query.
    pub method: String,
    /// Response code details of the first such call.
    pub details: String,
    /// What happened.
    pub what: String,
    /// How many.
    pub calls: u64,
    /// Median duration in milliseconds.
    pub p50_ms: u64,
    /// 99th percentile in milliseconds.
    pub p99_ms: u64,
    /// A time limit that the durations point at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_with: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accesslog::LogReader;
    use crate::diagnosis::diagnose;

    #[test]
    fn a_limit_shows_itself_whatever_is_called() {
        let mut counter = SummaryCounter::default();
        for number in 0..42 {
            let (method, duration) = (number % 6, if number < 38 { 299_500 + number * 30 } else { 10 });
            let line = format!(
                "[2026-11-21T09:00:00.000Z] \"POST /a.B/C{method} HTTP/2\" 200 UR upstream_reset_after_response_started - \"-\" 0 0 {duration} - \
                 \"-\" \"grpc-go/1\" \"id\" \"echo:50051\" \"10.0.0.1:1\" outbound|50051||echo - 10.0.0.3:2 10.0.0.4:3 - default"
            );
            let (mut reader, mut access) = (LogReader::default(), AccessEntry::default());
            reader.fill(line.as_bytes(), &mut access).unwrap();
            counter.add(&access, &diagnose(&access));
        }
        let said: Vec<String> = counter.report().groups.into_iter().filter_map(|group| group.consistent_with).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("over all methods 38 of 42 within 5% of about 5m:"), "{said:?}");
    }

    #[test]
    fn groups_that_tie_stand_in_one_order() {
        let mut counter = SummaryCounter::default();
        for policy in ["g", "c", "a", "f", "b", "h", "e", "d"] {
            let line = format!(
                "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 403 - rbac_access_denied_matched_policy[{policy}] - \"-\" 0 0 1 - \
                 \"-\" \"grpc-go/1\" \"id\" \"echo:50051\" \"-\" inbound|50051|| - 10.0.0.3:2 10.0.0.4:3 - default"
            );
            let (mut reader, mut access) = (LogReader::default(), AccessEntry::default());
            reader.fill(line.as_bytes(), &mut access).unwrap();
            counter.add(&access, &diagnose(&access));
        }
        let what: Vec<String> = counter.report().groups.into_iter().map(|group| group.what).collect();
        assert!(what.len() == 8 && what.is_sorted(), "{what:?}");
    }
}
