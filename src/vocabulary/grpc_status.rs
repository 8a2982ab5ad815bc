//! gRPC's status codes, in every spelling that a log has.
//!
//! Source: `google.golang.org/grpc/codes`; Envoy's words and its mapping from HTTP in `source/common/grpc/status.cc`.

/// A status with its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus {
    /// Number.
    pub code: u8,
    /// Name in capitals, as protocol documents write it.
    pub name: &'static str,
    /// What it says, and whether a retry helps.
    pub meaning: &'static str,
}

/// All of them, by number.
pub static STATUSES: [GrpcStatus; 17] = [
    status(0, "OK", "the call succeeded"),
    status(1, "CANCELLED", "the caller gave up; the work may have run"),
    status(2, "UNKNOWN", "an error without a status: an exception in the server, or an HTTP answer that is not gRPC's"),
    status(3, "INVALID_ARGUMENT", "the request is wrong whatever the server's state; a retry is useless"),
    status(4, "DEADLINE_EXCEEDED", "the deadline passed first; the work may have run"),
    status(5, "NOT_FOUND", "what was asked for does not exist"),
    status(6, "ALREADY_EXISTS", "what was to be made is there already"),
    status(7, "PERMISSION_DENIED", "the caller may not do it; from a proxy: an AuthorizationPolicy"),
    status(8, "RESOURCE_EXHAUSTED", "a quota or a size limit; retry only after a pause"),
    status(9, "FAILED_PRECONDITION", "the server's state does not allow it; retry after it was changed"),
    status(10, "ABORTED", "a conflict, such as a lost transaction; retry the whole of it"),
    status(11, "OUT_OF_RANGE", "beyond the valid range"),
    status(12, "UNIMPLEMENTED", "the server has no such method; from a proxy: no route matched"),
    status(13, "INTERNAL", "the server or a proxy broke the protocol; a retry is not safe"),
    status(14, "UNAVAILABLE", "nobody served the call; the status that retries are made for"),
    status(15, "DATA_LOSS", "data is lost or damaged"),
    status(16, "UNAUTHENTICATED", "the caller's credentials are missing or wrong"),
];

const fn status(code: u8, name: &'static str, meaning: &'static str) -> GrpcStatus {
    GrpcStatus { code, name, meaning }
}

/// Name of a code; numbers beyond the list are unknown.
pub fn name(code: u8) -> &'static str {
    STATUSES.get(usize::from(code)).map_or("?", |status| status.name)
}

/// Reads `14`, `UNAVAILABLE`, `Unavailable` or Envoy's `Canceled`.
pub fn parse(text: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(code) = text.parse::<u8>() {
        return (code <= 16).then_some(code);
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = plain(text);
    let wanted = if wanted == "canceled" { "cancelled" } else { &wanted };
    STATUSES.iter().find(|status| plain(status.name) == wanted).map(|status| status.code)
}

/// The status that Envoy, or a client, makes of an HTTP status without a gRPC one.
pub fn of_http(code: u16) -> u8 {
    match code {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for text in ["14", "UNAVAILABLE", "Unavailable", "unavailable"] {
            assert_eq!(parse(text.as_bytes()), Some(14));
        }
        assert_eq!((parse(b"Canceled"), parse(b"CANCELLED"), parse(b"DeadlineExceeded")), (Some(1), Some(1), Some(4)));
        assert_eq!((parse(b"17"), parse(b"nope"), parse(b"-")), (None, None, None));
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(STATUSES.iter().enumerate().all(|(at, status)| usize::from(status.code) == at));
    }
}
