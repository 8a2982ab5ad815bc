//! Parses JSON lines: Istio's default keys, custom formats, and the JSON logs of Envoy and of the agent.

use std::borrow::Cow;
use std::fmt;

use bumpalo::Bump;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::OtherLine;
use super::entry::{AccessEntry, LogOperator};
use super::format::JsonTemplate;

/// The operator that a key of Istio's default format stands for, or a common name for the gRPC status or the attempts.
/// Source: `pilot/pkg/model/telemetry_logging.go` (`EnvoyJSONLogFormatIstio`).
pub(super) fn operator_for_key(key: &str) -> LogOperator {
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

/// Parses or classifies a line that starts with a brace.
pub(super) fn parse<'a>(line: &'a [u8], arena: &'a Bump, access: &mut AccessEntry<'a>) -> Result<(), OtherLine> {
    let mut record = Record { access, arena, template: None, indicators: Indicators::default(), keys: 0, matched: 0 };
    if !record.parse(line) {
        return Err(OtherLine::UnknownJson);
    }
    let Indicators { has_start, has_flags, log_keys, has_envoy_scope, outlier_keys } = record.indicators;
    match (has_start && has_flags, outlier_keys == 2, log_keys == 2) {
        (true, ..) => Ok(()),
        (false, true, _) => Err(OtherLine::OutlierEvent),
        (false, false, true) => Err(if has_envoy_scope { OtherLine::EnvoyLog } else { OtherLine::AgentLog }),
        (false, false, false) => Err(OtherLine::UnknownJson),
    }
}

/// Parses a line in a custom format; `None` if it has too few of the format's keys.
pub(super) fn parse_custom<'a>(line: &'a [u8], template: &JsonTemplate, arena: &'a Bump) -> Option<AccessEntry<'a>> {
    let mut access = AccessEntry::default();
    let mut record = Record {
        access: &mut access,
        arena,
        template: Some(template),
        indicators: Indicators::default(),
        keys: 0,
        matched: 0,
    };
    // Records of other logs have few of the keys, if any, and keys of their own. With `omit_empty_values` a record has
    // few of the keys, too, but no other ones.
    let is_custom_format =
        |matched: usize, keys: usize| matched * 2 >= template.len() || (matched >= 3 && matched * 2 > keys);
    let is_match = record.parse(line) && is_custom_format(record.matched, record.keys);
    is_match.then_some(access)
}

/// Keys that identify the kind of a record.
#[derive(Default)]
struct Indicators {
    has_start: bool,
    has_flags: bool,
    /// `level` and `msg`.
    log_keys: u8,
    has_envoy_scope: bool,
    /// `upstream_url` and `action`.
    outlier_keys: u8,
}

struct Record<'a, 'l> {
    access: &'l mut AccessEntry<'a>,
    arena: &'a Bump,
    template: Option<&'l JsonTemplate>,
    indicators: Indicators,
    keys: usize,
    /// Keys that the template contains.
    matched: usize,
}

impl<'a> Record<'a, '_> {
    /// `false` if the line is not a JSON object.
    fn parse(&mut self, line: &'a [u8]) -> bool {
        // One UTF-8 check of the line is a third faster than a check of each string.
        let Ok(text) = std::str::from_utf8(line) else { return false };
        let mut json = serde_json::Deserializer::from_str(text);
        let result = Object { record: self, path: String::new() }.deserialize(&mut json);
        result.is_ok() && json.end().is_ok()
    }

    /// Sets a number; for Istio's own keys without a conversion to text.
    fn set_number(&mut self, path: &str, number: u64) {
        if self.template.is_some() || !self.access.set_number(operator_for_key(path), number) {
            self.set_formatted(path, number);
        }
    }

    /// Sets a value that cannot be borrowed from the line.
    fn set_formatted(&mut self, path: &str, value: impl fmt::Display) {
        let text = self.arena.alloc_str(&value.to_string());
        self.set(path, Some(text.as_bytes()));
    }

    /// Sets the value of a key; `None` for null.
    fn set(&mut self, path: &str, text: Option<&'a [u8]>) {
        self.keys += 1;
        self.matched += usize::from(self.template.is_some_and(|template| template.contains(path)));
        let Some(text) = text else { return };
        match self.template {
            Some(template) => {
                if let Some((operator, text)) = template.extract(path, text) {
                    self.access.set(operator, text, self.arena);
                }
            }
            None => {
                match path {
                    "start_time" => self.indicators.has_start = true,
                    "response_flags" => self.indicators.has_flags = true,
                    "level" | "msg" => self.indicators.log_keys += 1,
                    "scope" => self.indicators.has_envoy_scope = text.starts_with(b"envoy "),
                    "upstream_url" | "action" => self.indicators.outlier_keys += 1,
                    _ => {}
                }
                self.access.set(operator_for_key(path), text, self.arena);
            }
        }
    }
}

/// An object whose scalar values go into the record, nested ones as `outer.inner`.
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
            let full_path = if path.is_empty() { key } else { Cow::Owned(format!("{path}.{key}")) };
            map.next_value_seed(Field { record: &mut *record, path: full_path })?;
        }
        Ok(())
    }
}

/// A key, borrowed if it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
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
        deserializer.deserialize_str(KeyVisitor)
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
        self.record.set(&self.path, Some(text.as_bytes()));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.record.set_formatted(&self.path, text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.record.set_number(&self.path, number);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.record.set_formatted(&self.path, number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.record.set_formatted(&self.path, number);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.record.set(&self.path, None);
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
