//! gRPC status codes, in every spelling that occurs in logs and configuration.
//!
//! Source: `google.golang.org/grpc/codes`; Envoy's spellings and its mapping from HTTP in
//! `source/common/grpc/status.cc`.

/// A gRPC status code with its name and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus {
    /// Number from 0 to 16.
    pub code: u8,
    /// Name in capitals, as in gRPC's protocol documents.
    pub name: &'static str,
    /// The meaning for the caller, and whether a retry helps.
    pub meaning: &'static str,
}

/// All statuses; the index is the code.
pub static STATUSES: [GrpcStatus; 17] = [
    status(0, "OK", "the call succeeded"),
    status(1, "CANCELLED", "the caller cancelled the call; the server may have done the work"),
    status(2, "UNKNOWN", "an error without a gRPC status: an exception in the server, or a response that is not gRPC"),
    status(3, "INVALID_ARGUMENT", "the request is invalid whatever the server's state; a retry does not help"),
    status(4, "DEADLINE_EXCEEDED", "the deadline expired; the server may have done the work"),
    status(5, "NOT_FOUND", "the requested resource does not exist"),
    status(6, "ALREADY_EXISTS", "the resource to create already exists"),
    status(
        7,
        "PERMISSION_DENIED",
        "the caller is not allowed to do this; from a proxy: an AuthorizationPolicy denied the call",
    ),
    status(8, "RESOURCE_EXHAUSTED", "a quota or size limit was exceeded; retry only with backoff"),
    status(
        9,
        "FAILED_PRECONDITION",
        "the server's state does not allow the operation; retry only after the state has changed",
    ),
    status(10, "ABORTED", "a conflict, such as an aborted transaction; retry the whole operation"),
    status(11, "OUT_OF_RANGE", "a value is outside the valid range"),
    status(12, "UNIMPLEMENTED", "the server does not implement the method; from a proxy: no route matched"),
    status(13, "INTERNAL", "the server or a proxy broke an invariant of the protocol; a retry is not safe"),
    status(
        14,
        "UNAVAILABLE",
        "the server cannot be reached or does not accept calls; most often a retry with backoff succeeds",
    ),
    status(15, "DATA_LOSS", "data was lost or corrupted"),
    status(16, "UNAUTHENTICATED", "the caller's credentials are missing or invalid"),
];

const fn status(code: u8, name: &'static str, meaning: &'static str) -> GrpcStatus {
    GrpcStatus { code, name, meaning }
}

/// Name of a code in capitals; `?` above 16.
pub fn name(code: u8) -> &'static str {
    STATUSES.get(usize::from(code)).map_or("?", |status| status.name)
}

/// Parses a number from 0 to 16 or a name in any case: `14`, `UNAVAILABLE`, `Unavailable`, Envoy's `Canceled`.
pub fn parse(text: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(code) = text.parse::<u8>() {
        return (code <= 16).then_some(code);
    }
    let normalize = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let name = normalize(text);
    let name = if name == "canceled" { "cancelled" } else { &name };
    STATUSES.iter().find(|status| normalize(status.name) == name).map(|status| status.code)
}

/// The status that Envoy and gRPC clients derive from an HTTP status code when the response has no gRPC status.
///
/// Source: `Grpc::Utility::httpToGrpcStatus` in Envoy's `source/common/grpc/status.cc`.
pub fn from_http_status(code: u16) -> u8 {
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
    fn parses_numbers_and_every_spelling_of_a_name() {
        for text in ["14", "UNAVAILABLE", "Unavailable", "unavailable"] {
            assert_eq!(parse(text.as_bytes()), Some(14));
        }
        assert_eq!((parse(b"Canceled"), parse(b"CANCELLED"), parse(b"DeadlineExceeded")), (Some(1), Some(1), Some(4)));
        assert_eq!((parse(b"17"), parse(b"nope"), parse(b"-")), (None, None, None));
    }

    #[test]
    fn the_index_of_a_status_is_its_code() {
        assert!(STATUSES.iter().enumerate().all(|(index, status)| usize::from(status.code) == index));
    }
}
