//! `tail --join`: the lines of one request, of all the proxies that saw it, brought together by its id.
//!
//! Lines come in the order of their start, and a proxy writes one when the call ends. So a request is told when calls
//! that began well after all its lines have come, or at the end. What waits is bounded.

use std::collections::{HashMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

use super::tail::TailLine;

/// Requests that may wait for their other lines.
const WAITING_MAX: usize = 20_000;
/// Milliseconds for which a request waits beyond its longest line, for clocks that differ.
const GRACE: i64 = 5_000;

/// One request as all proxies saw it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailCall")]
pub struct TailCall {
    /// Always `TailCall`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// The id, if it has one.
    pub request_id: Option<String>,
    /// Its lines, earliest first; the caller's before the server's.
    pub lines: Vec<TailLine>,
}

/// Brings lines together.
#[derive(Debug, Default)]
pub struct CallJoiner {
    open: HashMap<String, OpenCall>,
    /// Ids in the order of their first line.
    order: VecDeque<String>,
    newest: i64,
}

#[derive(Debug)]
struct OpenCall {
    lines: Vec<(i64, TailLine)>,
    /// Whether one of its lines is to be shown.
    shown: bool,
    /// When its last line ended.
    end: i64,
}

impl CallJoiner {
    /// Takes a line that began at `start` milliseconds; gives the requests that are complete.
    pub fn add(&mut self, line: TailLine, start: i64, shown: bool) -> Vec<TailCall> {
        let Some(id) = line.request_id.clone() else {
            return if shown { vec![call(None, vec![(start, line)])] } else { Vec::new() };
        };
        self.newest = self.newest.max(start);
        let end = start.saturating_add(i64::try_from(line.duration_ms.unwrap_or(0)).unwrap_or(0));
        let open = self.open.entry(id.clone()).or_insert_with(|| {
            self.order.push_back(id);
            OpenCall { lines: Vec::new(), shown: false, end }
        });
        open.lines.push((start, line));
        open.shown |= shown;
        open.end = open.end.max(end);
        let newest = self.newest;
        let mut calls = self.take(|open| open.end.saturating_add(GRACE) < newest);
        while self.open.len() > WAITING_MAX {
            calls.extend(self.pop());
        }
        calls
    }

    /// Gives all that waits.
    pub fn finish(&mut self) -> Vec<TailCall> {
        self.take(|_| true)
    }

    /// Gives what waits from the front, as long as it is done.
    fn take(&mut self, done: impl Fn(&OpenCall) -> bool) -> Vec<TailCall> {
        let mut calls = Vec::new();
        while self.order.front().and_then(|id| self.open.get(id)).is_some_and(&done) {
            calls.extend(self.pop());
        }
        calls
    }

    /// The request that waits longest, if anything of it is to be shown.
    fn pop(&mut self) -> Option<TailCall> {
        let id = self.order.pop_front()?;
        let OpenCall { lines, shown, .. } = self.open.remove(&id)?;
        shown.then(|| call(Some(id), lines))
    }
}

fn call(request_id: Option<String>, mut lines: Vec<(i64, TailLine)>) -> TailCall {
    lines.sort_by_key(|(start, line)| (*start, line.side == Some("server")));
    TailCall { kind: "TailCall", version: 1, request_id, lines: lines.into_iter().map(|(_, line)| line).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accesslog::{LogLine, LogReader};
    use crate::diagnosis::diagnose;
    use crate::report::tail::{AddressNames, LogOrigin};

    fn line(id: &str, cluster: &str) -> TailLine {
        let text = format!(
            "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 200 - via_upstream - \"-\" 1 2 10 9 \"-\" \"grpc-go/1\" \"{id}\" \
             \"echo:50051\" \"10.0.0.1:50051\" {cluster} 10.0.0.2:1 10.0.0.3:2 10.0.0.4:3 - default"
        );
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(text.as_bytes()) else { panic!("{text}") };
        TailLine::new(&access, &diagnose(&access), &LogOrigin::default(), &AddressNames::default())
    }

    #[test]
    fn lines_of_a_request_come_together_caller_first() {
        let mut join = CallJoiner::default();
        assert!(join.add(line("a", "inbound|50051||"), 1_000, true).is_empty());
        assert!(join.add(line("a", "outbound|50051||echo.shop.svc.cluster.local"), 1_000, false).is_empty());
        assert!(join.add(line("b", "outbound|50051||echo.shop.svc.cluster.local"), 1_001, false).is_empty());
        // Well after both have ended the first is told, and the second, of which nothing is to be shown, is not.
        let calls = join.add(line("c", "inbound|50051||"), 60_000, true);
        let sides: Vec<_> = calls.iter().flat_map(|call| &call.lines).map(|line| line.side.unwrap()).collect();
        assert_eq!(sides, ["client", "server"]);
        assert_eq!(join.finish().len(), 1);
        // Without an id a line stands alone, at once.
        assert_eq!(join.add(line("-", "inbound|50051||"), 60_001, true).len(), 1);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut join = CallJoiner::default();
        let told: usize =
            (0..WAITING_MAX + 10).map(|at| join.add(line(&at.to_string(), "inbound|1||"), 5, true).len()).sum();
        assert_eq!((told, join.open.len()), (10, WAITING_MAX));
    }
}
