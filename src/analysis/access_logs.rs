//! Windows from the callers' access logs. Each line is one call and names the cluster that the call went to.

use super::cohorts::Cohorts;
use super::window::{FailureCriteria, NO_UPSTREAM_FLAGS, Window};
use crate::accesslog::{AccessEntry, Direction};
use crate::diagnosis::{self, StatusSource};

/// Counts access-log entries as they are read.
#[derive(Debug, Default)]
pub struct LoggedCalls {
    window: Window,
    /// Durations of the canary's calls, in milliseconds.
    durations_ms: Vec<u64>,
}

impl LoggedCalls {
    /// Counts an outbound call that a caller's proxy logged. Inbound entries are ignored.
    pub fn add(&mut self, access: &AccessEntry<'_>, cohorts: &Cohorts, criteria: &FailureCriteria) {
        if access.direction() == Some(Direction::Inbound) {
            return;
        }
        let status = diagnosis::diagnose(access).status;
        let code = status.and_then(|status| status.code);
        let is_failure = criteria.is_failure(code, access.http_status, access.flags.iter());
        let destination = access.destination();
        let (is_canary, is_baseline) = destination.map_or((false, false), |(_, subset, host)| {
            (cohorts.canary.contains_destination(subset, host), cohorts.baseline.contains_destination(subset, host))
        });
        if is_canary {
            self.window.canary.add(1, is_failure);
            // An inferred success may be a stream whose trailers carry another status.
            self.window.unknown_status +=
                u64::from(!is_failure && status.is_some_and(|status| status.source != Some(StatusSource::Logged)));
            self.window.affected_canary_calls += 1;
            self.durations_ms.extend(access.duration_ms);
        } else if is_baseline {
            self.window.baseline.add(1, is_failure);
        } else if NO_UPSTREAM_FLAGS.iter().any(|flag| access.flags.contains(flag))
            && cohorts.hosts.iter().any(|host| access.is_for_host(host))
        {
            self.window.no_upstream += 1;
        }
        self.window.affected_calls += u64::from(is_canary || is_baseline);
    }

    /// The counted window; `with_p99` adds the canary's 99th percentile.
    pub fn into_window(mut self, with_p99: bool) -> Window {
        if with_p99 && !self.durations_ms.is_empty() {
            self.durations_ms.sort_unstable();
            let index = (self.durations_ms.len() * 99).div_ceil(100) - 1;
            self.window.p99_ms = self.durations_ms.get(index).map(|millis| *millis as f64);
        }
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohort;
    use super::*;
    use crate::accesslog::{LogLine, LogReader};

    fn line(cluster: &str, status: &str, flags: &str, millis: u32) -> String {
        format!(
            r#"{{"start_time":"2026-11-21T09:00:00.000Z","method":"POST","path":"/a.B/C","protocol":"HTTP/2","response_code":200,"response_flags":"{flags}","grpc_status":"{status}","duration":{millis},"upstream_cluster":"{cluster}","authority":"a.b:1","bytes_sent":1,"bytes_received":1}}"#
        )
    }

    #[test]
    fn a_call_belongs_to_the_cohort_of_the_cluster_in_its_log_line() {
        let cohort = |subset: &str| Cohort {
            destinations: [(subset.to_owned(), "a.b.svc".to_owned())].into(),
            ..Cohort::default()
        };
        let hosts = ["a.b.svc".to_owned()].into();
        let cohorts = Cohorts { canary: cohort("v2"), baseline: cohort("v1"), hosts, ..Cohorts::default() };
        let mut calls = LoggedCalls::default();
        let mut reader = LogReader::default();
        let v2 = "outbound|1|v2|a.b.svc";
        for (cluster, status, flags, millis) in [
            (v2, "Unavailable", "-", 10),
            (v2, "OK", "-", 30),
            (v2, "NotFound", "-", 20),
            (v2, "-", "-", 1),
            (v2, "14", "UH", 1),
            ("outbound|1|v1|a.b.svc", "OK", "-", 5000),
            ("outbound|1|v1|other", "14", "-", 1),
            ("-", "-", "NC", 0),
        ] {
            let text = line(cluster, status, flags, millis);
            let LogLine::Access(access) = reader.read(text.as_bytes()) else { panic!("{text}") };
            calls.add(&access, &cohorts, &FailureCriteria::default());
        }
        let window = calls.into_window(true);
        assert_eq!((window.canary.calls, window.canary.errors, window.unknown_status), (5, 2, 1), "{window:?}");
        assert_eq!((window.baseline.calls, window.no_upstream, window.p99_ms), (1, 1, Some(30.0)));
    }
}
