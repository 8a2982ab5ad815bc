//! `tail --join`: groups the lines that several proxies wrote for one request by its request id.
//!
//! Lines arrive in order of their start, and a proxy writes a line when the call ends. A request is therefore complete
//! when a line arrives whose call started well after the request ended, or at the end of the logs. The number of
//! pending requests is bounded.

use std::collections::{HashMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

use super::tail::{ProxySide, TailLine};

/// Limit for requests that wait for further lines.
const PENDING_MAX: usize = 20_000;
/// How long a request waits after its last line ended, for clocks that differ between nodes.
const GRACE_MS: i64 = 5_000;

/// One request with the lines of all proxies that logged it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailCall")]
pub struct TailCall {
    /// Always `TailCall`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Request id; null for a line without one, which is reported alone.
    pub request_id: Option<String>,
    /// The lines in order of their start; of equal starts the client's first.
    pub lines: Vec<TailLine>,
}

/// Groups lines by request id.
#[derive(Debug, Default)]
pub struct CallJoiner {
    pending: HashMap<String, PendingCall>,
    /// Request ids in the order of their first line.
    order: VecDeque<String>,
    newest_start_ms: i64,
}

#[derive(Debug)]
struct PendingCall {
    lines: Vec<(i64, TailLine)>,
    /// Whether one of the lines passes the filters.
    is_selected: bool,
    /// End of the last line.
    end_ms: i64,
}

impl CallJoiner {
    /// Adds a line whose call started at `start_ms`, and returns the requests that are complete. Requests of which no
    /// line is selected are dropped.
    pub fn add(&mut self, line: TailLine, start_ms: i64, is_selected: bool) -> Vec<TailCall> {
        let Some(id) = line.request_id.clone() else {
            return if is_selected { vec![joined_call(None, vec![(start_ms, line)])] } else { Vec::new() };
        };
        self.newest_start_ms = self.newest_start_ms.max(start_ms);
        let end_ms = start_ms.saturating_add(i64::try_from(line.duration_ms.unwrap_or(0)).unwrap_or(0));
        let call = self.pending.entry(id.clone()).or_insert_with(|| {
            self.order.push_back(id);
            PendingCall { lines: Vec::new(), is_selected: false, end_ms }
        });
        call.lines.push((start_ms, line));
        call.is_selected |= is_selected;
        call.end_ms = call.end_ms.max(end_ms);
        let newest_start_ms = self.newest_start_ms;
        let mut calls = self.pop_while(|call| call.end_ms.saturating_add(GRACE_MS) < newest_start_ms);
        while self.pending.len() > PENDING_MAX {
            calls.extend(self.pop());
        }
        calls
    }

    /// Returns the requests that are still pending.
    pub fn finish(&mut self) -> Vec<TailCall> {
        self.pop_while(|_| true)
    }

    /// Removes requests, oldest first, as long as they are complete.
    fn pop_while(&mut self, is_complete: impl Fn(&PendingCall) -> bool) -> Vec<TailCall> {
        let mut calls = Vec::new();
        while self.order.front().and_then(|id| self.pending.get(id)).is_some_and(&is_complete) {
            calls.extend(self.pop());
        }
        calls
    }

    /// Removes the oldest request; returns it if one of its lines is selected.
    fn pop(&mut self) -> Option<TailCall> {
        let id = self.order.pop_front()?;
        let PendingCall { lines, is_selected, .. } = self.pending.remove(&id)?;
        is_selected.then(|| joined_call(Some(id), lines))
    }
}

fn joined_call(request_id: Option<String>, mut lines: Vec<(i64, TailLine)>) -> TailCall {
    lines.sort_by_key(|(start, line)| (*start, line.side == Some(ProxySide::Server)));
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
    fn joins_the_lines_of_a_request_with_the_client_first() {
        let mut joiner = CallJoiner::default();
        assert!(joiner.add(line("a", "inbound|50051||"), 1_000, true).is_empty());
        assert!(joiner.add(line("a", "outbound|50051||echo.shop.svc.cluster.local"), 1_000, false).is_empty());
        assert!(joiner.add(line("b", "outbound|50051||echo.shop.svc.cluster.local"), 1_001, false).is_empty());
        // Long after both requests ended, the first is reported; the second has no selected line and is dropped.
        let calls = joiner.add(line("c", "inbound|50051||"), 60_000, true);
        let sides: Vec<_> = calls.iter().flat_map(|call| &call.lines).map(|line| line.side.unwrap()).collect();
        assert_eq!(sides, [ProxySide::Client, ProxySide::Server]);
        assert_eq!(joiner.finish().len(), 1);
        // A line without a request id is reported alone and at once.
        assert_eq!(joiner.add(line("-", "inbound|50051||"), 60_001, true).len(), 1);
    }

    #[test]
    fn the_number_of_pending_requests_is_bounded() {
        let mut joiner = CallJoiner::default();
        let reported: usize =
            (0..PENDING_MAX + 10).map(|id| joiner.add(line(&id.to_string(), "inbound|1||"), 5, true).len()).sum();
        assert_eq!((reported, joiner.pending.len()), (10, PENDING_MAX));
    }
}
