//! JSON lines: Istio's default set of keys, and the other records that come as JSON.

use std::borrow::Cow;
use std::fmt;

use bumpalo::Bump;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::OtherLine;
use super::entry::{AccessEntry, LogOperator};
use super::format::JsonTemplate;

/// Istio's default keys with the operators behind them, and the names that people give to gRPC's status.
/// Source: `pilot/pkg/model/telemetry_logging.go` (`EnvoyJSONLogFormatIstio`).
pub(super) fn operator(key: &str) -> LogOperator {
    use LogOperator as O;
    match key {
        "start_time" => O::StartTime,
        "method" => O::Method,
        "path" => O::Path,
        "protocol" => O::Protocol,
        "response_code" => O::ResponseCode,
        "response_flags" => O::ResponseFlags,
        "response_code_details" => O::ResponseCodeDetails,
        "connection_termination_details" => O::TerminationDetails,
        "upstream_transport_failure_reason" => O::TransportFailure,
        "bytes_received" => O::BytesReceived,
        "bytes_sent" => O::BytesSent,
        "duration" => O::Duration,
        "upstream_service_time" => O::UpstreamTime,
        "x_forwarded_for" => O::ForwardedFor,
        "user_agent" => O::UserAgent,
        "request_id" => O::RequestId,
        "authority" => O::Authority,
        "upstream_host" => O::UpstreamHost,
        "upstream_cluster" => O::Cluster,
        "upstream_local_address" => O::UpstreamLocal,
        "downstream_local_address" => O::DownstreamLocal,
        "downstream_remote_address" => O::DownstreamRemote,
        "requested_server_name" => O::ServerName,
        "route_name" => O::RouteName,
        "grpc_status" | "grpc_status_number" => O::GrpcStatus,
        "upstream_request_attempt_count" | "attempts" => O::Attempts,
        _ => O::Unknown,
    }
}

/// Reads a line that begins with a brace.
pub(super) fn read<'a>(line: &'a [u8], arena: &'a Bump, access: &mut AccessEntry<'a>) -> Result<(), OtherLine> {
    let mut record = Record { access, arena, labels: None, seen: FieldCounts::default(), keys: 0, matched: 0 };
    if !record.fill(line) {
        return Err(OtherLine::UnknownJson);
    }
    let FieldCounts { start, flags, log, envoy, outlier } = record.seen;
    match (start && flags, outlier == 2, log == 2) {
        (true, ..) => Ok(()),
        (false, true, _) => Err(OtherLine::OutlierEvent),
        (false, false, true) => Err(if envoy { OtherLine::Envoy } else { OtherLine::Agent }),
        (false, false, false) => Err(OtherLine::UnknownJson),
    }
}

/// Reads a line whose keys are told by a custom format.
pub(super) fn read_labels<'a>(line: &'a [u8], labels: &JsonTemplate, arena: &'a Bump) -> Option<AccessEntry<'a>> {
    let mut access = AccessEntry::default();
    let mut record =
        Record { access: &mut access, arena, labels: Some(labels), seen: FieldCounts::default(), keys: 0, matched: 0 };
    // A record of another log has few of the keys, if any, and more of its own. Where a format leaves out what is absent,
    // a record has few of the keys, too, and none of its own.
    let is_ours = |matched: usize, keys: usize| matched * 2 >= labels.len() || (matched >= 3 && matched * 2 > keys);
    let fits = record.fill(line) && is_ours(record.matched, record.keys);
    fits.then_some(access)
}

#[derive(Default)]
struct FieldCounts {
    start: bool,
    flags: bool,
    log: u8,
    envoy: bool,
    outlier: u8,
}

struct Record<'a, 'l> {
    access: &'l mut AccessEntry<'a>,
    arena: &'a Bump,
    labels: Option<&'l JsonTemplate>,
    seen: FieldCounts,
    /// Keys that were there.
    keys: usize,
    /// Of them keys of the format.
    matched: usize,
}

impl<'a> Record<'a, '_> {
    fn fill(&mut self, line: &'a [u8]) -> bool {
        // Text that is known to be UTF-8 is read a third faster than bytes, of which each string would be checked.
        let Ok(text) = std::str::from_utf8(line) else { return false };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = Object { record: self, path: String::new() }.deserialize(&mut json);
        read.is_ok() && json.end().is_ok()
    }

    /// As [`Self::take`]. A number for one of Istio's own keys needs no text in between.
    fn take_number(&mut self, path: &str, number: u64) {
        if self.labels.is_some() || !self.access.set_number(operator(path), number) {
            self.show(path, number);
        }
    }

    /// As [`Self::take`], for what is no text.
    fn show(&mut self, path: &str, value: impl fmt::Display) {
        let text = self.arena.alloc_str(&value.to_string());
        self.take(path, Some(text.as_bytes()));
    }

    /// Takes the value of a key; `None` for null.
    fn take(&mut self, path: &str, text: Option<&'a [u8]>) {
        self.keys += 1;
        self.matched += usize::from(self.labels.is_some_and(|labels| labels.knows(path)));
        let Some(text) = text else { return };
        match self.labels {
            Some(labels) => {
                if let Some((operator, text)) = labels.read(path, text) {
                    self.access.set(operator, text, self.arena);
                }
            }
            None => {
                match path {
                    "start_time" => self.seen.start = true,
                    "response_flags" => self.seen.flags = true,
                    "level" | "msg" => self.seen.log += 1,
                    "scope" => self.seen.envoy = text.starts_with(b"envoy "),
                    "upstream_url" | "action" => self.seen.outlier += 1,
                    _ => {}
                }
                self.access.set(operator(path), text, self.arena);
            }
        }
    }
}

/// An object whose scalar values are taken, nested ones under `outer.inner`.
struct Object<'r, 'a, 'l> {
    record: &'r mut Record<'a, 'l>,
    path: String,
}

impl<'a> DeserializeSeed<'a> for Object<'_, 'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { record, path } = self;
        while let Some(Key(key)) = map.next_key::<Key<'a>>()? {
            let full = if path.is_empty() { key } else { Cow::Owned(format!("{path}.{key}")) };
            map.next_value_seed(Field { record: &mut *record, path: full })?;
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The value of one key.
struct Field<'r, 'a, 'l> {
    record: &'r mut Record<'a, 'l>,
    path: Cow<'a, str>,
}

impl<'a> DeserializeSeed<'a> for Field<'_, 'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Field<'_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.record.take(&self.path, Some(text.as_bytes()));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.record.show(&self.path, text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.record.take_number(&self.path, number);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.record.show(&self.path, number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.record.show(&self.path, number);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.record.take(&self.path, None);
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        Object { record: self.record, path: self.path.into_owned() }.visit_map(map)
    }
}
