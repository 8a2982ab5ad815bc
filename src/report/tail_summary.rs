//! The summary of `tail`: many calls in numbers, in memory that does not grow with them.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::tail::{short, show_time, text};
use crate::accesslog::{Access, Kind};
use crate::verdict::{Grade, Known, Verdict, grpc};

/// Durations in buckets of about 3 %, so that memory does not grow with the number of calls.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    /// Counts by bucket; as long as the longest duration asks.
    buckets: Vec<u64>,
    count: u64,
}

impl Durations {
    /// Counts one, in milliseconds.
    pub fn add(&mut self, millis: u64) {
        let at = bucket(millis);
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets[at] += 1;
        self.count += 1;
    }

    /// Takes in what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
    }

    /// The duration below which a share of the calls stays, in milliseconds.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= wanted).then(|| rounded(middle(bucket)))
        })
    }

    /// Where most cases stand together, with how many: a time limit shows itself so.
    pub fn cluster(&self) -> Option<(u64, u64)> {
        let at = self.quantile(0.5)?;
        let buckets = self.buckets.iter().enumerate();
        Some((at, buckets.filter(|(bucket, _)| middle(*bucket).abs_diff(at) * 20 <= at).map(|(_, count)| count).sum()))
    }
}

/// 32 buckets for each doubling; exact below 32 ms.
fn bucket(millis: u64) -> usize {
    if millis < 32 {
        return usize::try_from(millis).unwrap_or(0);
    }
    let exponent = millis.ilog2();
    let mantissa = (millis >> (exponent - 5)) & 31;
    usize::try_from((u64::from(exponent) - 4) * 32 + mantissa).unwrap_or(usize::MAX)
}

/// To two digits: a bucket says no more, and limits are round.
fn rounded(millis: u64) -> u64 {
    if millis < 100 {
        return millis;
    }
    let unit = 10_u64.pow(millis.ilog10() - 1);
    (millis + unit / 2) / unit * unit
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 32 {
        return bucket;
    }
    let exponent = bucket / 32 + 4;
    let step = 1_u64 << (exponent - 5);
    (1_u64 << exponent) + bucket % 32 * step + step / 2
}

/// Kinds of outcomes beyond this number are counted together.
const GROUPS_MAX: usize = 2_000;
/// No time limit is named below so many cases.
const CLUSTER_MIN: u64 = 10;

/// Counts calls as they come.
#[derive(Debug, Default)]
pub struct Counter {
    /// Calls before any filter.
    seen: u64,
    calls: u64,
    faults: u64,
    notices: u64,
    ambiguous: u64,
    other: HashMap<Kind, u64>,
    groups: HashMap<Group, Cases>,
    beyond: u64,
    all: Durations,
    first: Option<i64>,
    last: Option<i64>,
}

/// In the order in which the fields put them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    grade: &'static str,
    flags: String,
    method: String,
    destination: String,
    status: String,
    what: String,
}

/// What is kept of calls that ended alike.
#[derive(Debug)]
struct Cases {
    /// Details of the first.
    details: String,
    durations: Durations,
}

impl Counter {
    /// Notes that there was a call, whether or not the filters let it through.
    pub fn see(&mut self) {
        self.seen += 1;
    }

    /// Calls before any filter.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Counts a call.
    pub fn add(&mut self, access: &Access<'_>, verdict: &Verdict) {
        self.calls += 1;
        self.ambiguous += u64::from(access.ambiguous);
        if let Some(start) = access.start {
            self.first = Some(self.first.map_or(start, |first| first.min(start)));
            self.last = Some(self.last.map_or(start, |last| last.max(start)));
        }
        let duration = access.duration.unwrap_or(0);
        self.all.add(duration);
        match verdict.grade {
            Grade::Normal => return,
            Grade::Fault => self.faults += 1,
            Grade::Notice => self.notices += 1,
        }
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
        let group = Group {
            grade: verdict.grade.word(),
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
        let cases = self.groups.entry(group).or_insert_with(|| Cases {
            details: text(&access.details).unwrap_or_default(),
            durations: Durations::default(),
        });
        cases.durations.add(duration);
    }

    /// Takes in what was counted elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.seen += other.seen;
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
        for (group, Cases { details, durations }) in other.groups {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
                self.beyond += durations.count;
                continue;
            }
            let cases = self.groups.entry(group).or_insert_with(|| Cases { details, durations: Durations::default() });
            cases.durations.merge(&durations);
        }
    }

    /// Counts a line that is no access line.
    pub fn other(&mut self, kind: Kind) {
        *self.other.entry(kind).or_default() += 1;
    }

    /// Share of all calls that are faults that the filters let through, 0 to 1.
    pub fn fault_rate(&self) -> f64 {
        if self.seen == 0 { 0.0 } else { self.faults as f64 / self.seen as f64 }
    }

    /// Number of calls.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The summary.
    pub fn report(&self) -> TailSummary {
        let mut groups: Vec<(&Group, &Cases)> = self.groups.iter().collect();
        groups.sort_by_key(|(group, cases)| (group.grade, std::cmp::Reverse(cases.durations.count), *group));
        let groups: Vec<GroupReport> = groups
            .into_iter()
            .map(|(group, Cases { details, durations })| GroupReport {
                grade: group.grade,
                flags: group.flags.clone(),
                grpc_status: group.status.clone(),
                destination: group.destination.clone(),
                method: group.method.clone(),
                details: details.clone(),
                what: group.what.clone(),
                calls: durations.count,
                p50_ms: durations.quantile(0.5).unwrap_or_default(),
                p99_ms: durations.quantile(0.99).unwrap_or_default(),
                consistent_with: consistent_with(group, durations),
            })
            .collect();
        let mut other: Vec<(&'static str, u64)> =
            self.other.iter().map(|(kind, count)| (kind.word(), *count)).collect();
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
pub fn show_status(verdict: &Verdict) -> String {
    match verdict.status {
        Some(status) => match (status.code, status.known) {
            (Some(code), Known::Inferred) => format!("~{code} {}", grpc::name(code)),
            (Some(code), _) => format!("{code} {}", grpc::name(code)),
            (None, _) => "?".to_owned(),
        },
        None => String::new(),
    }
}

/// A time limit that the durations of a kind of failure point at.
fn consistent_with(group: &Group, durations: &Durations) -> Option<String> {
    let (at, near) = durations.cluster()?;
    if durations.count < CLUSTER_MIN || near * 10 < durations.count * 8 || at < 100 {
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
    let show = crate::schema::duration::show(std::time::Duration::from_millis(at));
    Some(format!("{near} of {} within 5% of about {show}: consistent with {what}", durations.count))
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
    pub groups: Vec<GroupReport>,
    /// Faults and notices that were counted without their kind, because there were too many kinds.
    pub beyond: u64,
    /// Lines that a client's text made readable in several ways.
    pub ambiguous: u64,
    /// Lines that are no access lines, by kind.
    pub other_lines: std::collections::BTreeMap<String, u64>,
}

/// Calls that ended alike.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupReport {
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
