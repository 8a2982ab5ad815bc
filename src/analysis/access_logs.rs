//! Windows from the callers' access logs: each line is one call, with the cluster that it went to.

use super::cohorts::Cohorts;
use super::window::{FailureCriteria, NOWHERE, Window};
use crate::accesslog::{AccessEntry, Direction};
use crate::diagnosis::{self, StatusSource};

/// Counts lines as they come.
#[derive(Debug, Default)]
pub struct LoggedCalls {
    window: Window,
    /// Milliseconds of the canary's calls.
    durations: Vec<u64>,
}

impl LoggedCalls {
    /// Counts a call that a caller's proxy logged.
    pub fn count(&mut self, access: &AccessEntry<'_>, sides: &Cohorts, faults: &FailureCriteria) {
        if access.direction() == Some(Direction::Inbound) {
            return;
        }
        let status = diagnosis::diagnose(access).status;
        let code = status.and_then(|status| status.code);
        let is_fault = faults.is_fault(code, access.code, access.flags.iter());
        let destination = access.destination();
        let (is_canary, is_baseline) = destination.map_or((false, false), |(_, subset, host)| {
            (sides.canary.has(subset, host), sides.baseline.has(subset, host))
        });
        if is_canary {
            self.window.canary.count(1, is_fault);
            // What is only inferred may be a stream whose trailers say otherwise.
            self.window.untold +=
                u64::from(!is_fault && status.is_some_and(|status| status.known != StatusSource::Logged));
            self.window.obeying_canary += 1;
            self.durations.extend(access.duration);
        } else if is_baseline {
            self.window.baseline.count(1, is_fault);
        } else if NOWHERE.iter().any(|flag| access.flags.has(flag))
            && sides.hosts.iter().any(|host| access.goes_to(host))
        {
            self.window.nowhere += 1;
        }
        self.window.obeying += u64::from(is_canary || is_baseline);
    }

    /// The window. With `latencies` the canary's 99th percentile, too.
    pub fn window(mut self, latencies: bool) -> Window {
        if latencies && !self.durations.is_empty() {
            self.durations.sort_unstable();
            let at = (self.durations.len() * 99).div_ceil(100) - 1;
            self.window.p99 = Some(self.durations[at] as f64);
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
    fn lines_belong_to_the_cluster_that_they_name() {
        let side = |subset: &str| Cohort {
            destinations: [(subset.to_owned(), "a.b.svc".to_owned())].into(),
            ..Cohort::default()
        };
        let hosts = ["a.b.svc".to_owned()].into();
        let sides = Cohorts { canary: side("v2"), baseline: side("v1"), hosts, ..Cohorts::default() };
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
            calls.count(&access, &sides, &FailureCriteria::default());
        }
        let window = calls.window(true);
        assert_eq!((window.canary.calls, window.canary.errors, window.untold), (5, 2, 1), "{window:?}");
        assert_eq!((window.baseline.calls, window.nowhere, window.p99), (1, 1, Some(30.0)));
    }
}
