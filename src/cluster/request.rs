//! GET requests to the API server: limits, retries and the meaning of status codes.

use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde::Deserialize;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};

/// The media type of most responses.
const JSON: &str = "application/json";
/// Attempts of one request while the server is busy.
const MAX_ATTEMPTS: u32 = 3;
/// Largest response after decompression. A page of 500 large Pods is below 20 MB.
const MAX_RESPONSE_BYTES: usize = 128 << 20;
/// Largest response to a list without pages: ten thousand large Pods are below 400 MB.
const MAX_LIST_BYTES: usize = 512 << 20;

const LOGIN_HINT: &str =
    "check that this is the API server's address (kubectl config view --minify) and that no proxy asks for a login";

/// A completed request, for `-v`.
#[derive(Debug, Clone)]
pub struct RequestEvent<'a> {
    /// `GET` or `PATCH`.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// HTTP status code of the response; absent when no response arrived.
    pub status: Option<u16>,
    /// Size of the response body.
    pub bytes: usize,
    /// Time from the request to the last byte of the response.
    pub duration: Duration,
}

/// The `Status` object that the API server sends with an error.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiStatus {
    message: String,
    reason: String,
}

impl ApiServer {
    /// Passes a request to the observer; `response` is the status and the size of the body.
    pub(super) fn report_request(
        &self,
        method: &str,
        path: &str,
        response: Option<(StatusCode, usize)>,
        start: Instant,
    ) {
        if let Some(observer) = &self.observer {
            let status = response.map(|(status, _)| status.as_u16());
            let bytes = response.map_or(0, |(_, bytes)| bytes);
            observer(&RequestEvent { method, path, status, bytes, duration: start.elapsed() });
        }
    }

    /// Gets a path as text. Retries twice, within seconds, while the server is busy (429, 503, 504), and once after a
    /// connection that broke off.
    ///
    /// # Errors
    /// The server does not answer in time, the status is not a success, or the body is not text.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<String, ClusterError> {
        self.get_up_to(path, JSON, timeout, MAX_RESPONSE_BYTES).await
    }

    /// The same for a response in one of some media types.
    pub(super) async fn get_accepting(
        &self,
        path: &str,
        media_types: &str,
        timeout: Duration,
    ) -> Result<String, ClusterError> {
        self.get_up_to(path, media_types, timeout, MAX_RESPONSE_BYTES).await
    }

    /// Gets a whole list, which may be large.
    ///
    /// # Errors
    /// Like [`ApiServer::get`].
    pub(super) async fn get_list(&self, path: &str, timeout: Duration) -> Result<String, ClusterError> {
        self.get_up_to(path, JSON, timeout, MAX_LIST_BYTES).await
    }

    /// The limit of a request: `--request-timeout` if it is set, else the one that suits the request.
    pub fn limit(&self, default: Duration) -> Duration {
        self.request_timeout.unwrap_or(default)
    }

    /// Waits for a response up to the limit of its request. Fails at once if the server never answered before.
    ///
    /// # Errors
    /// The response fails or does not come in time.
    pub(super) async fn within_limit<T>(
        &self,
        limit: Duration,
        response: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        if self.health.never_answers() {
            return Err(ClusterError::timeout(limit, &self.server));
        }
        let response = tokio::time::timeout(limit, response).await;
        match &response {
            Ok(Ok(_)) => self.health.note_answer(),
            Ok(Err(_)) => {}
            Err(_) => self.health.note_timeout(),
        }
        response.unwrap_or_else(|_| Err(ClusterError::timeout(limit, &self.server)))
    }

    async fn get_up_to(
        &self,
        path: &str,
        media_types: &str,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<String, ClusterError> {
        let timeout = self.limit(timeout);
        let mut pause = Duration::from_millis(250);
        let mut attempt = 1;
        loop {
            let start = Instant::now();
            let response = self.within_limit(timeout, self.send_get(path, media_types, max_bytes)).await;
            let size = response.as_ref().ok().map(|(status, text)| (*status, text.len()));
            self.report_request("GET", path, size, start);
            let (status, text) = match response {
                // A connection that breaks off is most often a proxy or server that restarts. Reading again changes nothing.
                Err(error) if error.kind == ClusterErrorKind::Unreachable && attempt < MAX_ATTEMPTS => {
                    attempt = MAX_ATTEMPTS;
                    tokio::time::sleep(pause).await;
                    continue;
                }
                response => response?,
            };
            let is_busy = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            );
            if status.is_success() {
                return if text.trim_start().starts_with('<') { Err(self.web_page_error()) } else { Ok(text) };
            }
            if !is_busy || attempt == MAX_ATTEMPTS {
                return Err(self.status_error(status, &text));
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn send_get(
        &self,
        path: &str,
        media_types: &str,
        max_bytes: usize,
    ) -> Result<(StatusCode, String), ClusterError> {
        let unreadable =
            |cause: &dyn std::fmt::Display| format!("cannot read the response of {}: {cause}", self.server);
        let request = Request::get(path)
            .header(header::ACCEPT, media_types)
            .body(Body::empty())
            .map_err(|error| ClusterError::new(ClusterErrorKind::Config, format!("cannot request {path}: {error}")))?;
        let response =
            self.client.send(request).await.map_err(|error| ClusterError::from_client(&error, &self.server))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                let limit = format!("it is longer than {} MiB", max_bytes >> 20);
                return ClusterError::new(ClusterErrorKind::Server, unreadable(&limit)).hint(LOGIN_HINT);
            }
            ClusterError::new(ClusterErrorKind::Unreachable, unreadable(&error))
                .hint("check the connection, and whether a proxy in front of the server truncates long responses")
        })?;
        let text = String::from_utf8(body.to_bytes().into())
            .map_err(|_| ClusterError::new(ClusterErrorKind::Server, unreadable(&"it is not UTF-8 text")))?;
        Ok((head.status, text))
    }

    fn web_page_error(&self) -> ClusterError {
        ClusterError::new(
            ClusterErrorKind::Server,
            format!("cannot read the response of {}: it is a web page", self.server),
        )
        .hint(LOGIN_HINT)
    }

    /// Converts an HTTP error status. A proxy in front of the API server may have sent it: then the body is not a `Status`
    /// object, and only the code counts.
    fn status_error(&self, status: StatusCode, text: &str) -> ClusterError {
        let server = &self.server;
        let ApiStatus { message, reason } = serde_json::from_str(text).unwrap_or_default();
        let is_from_api_server = !message.is_empty() || !reason.is_empty();
        let message = match (message.is_empty(), reason.is_empty()) {
            (false, _) => message,
            (true, false) => reason,
            (true, true) => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        };
        match status.as_u16() {
            401 => {
                ClusterError::new(ClusterErrorKind::Unauthorized, format!("cannot authenticate to {server}: {message}"))
                    .hint("the token may have expired: log in again, then check with kubectl auth whoami")
            }
            403 => ClusterError::new(ClusterErrorKind::Forbidden, message),
            404 if !is_from_api_server => ClusterError::new(
                ClusterErrorKind::NotFound,
                format!("cannot read from {server}: it responded with 404 {message}"),
            )
            .hint("check that this is the API server's address: kubectl config view --minify"),
            404 => ClusterError::new(ClusterErrorKind::NotFound, message),
            410 => ClusterError::new(ClusterErrorKind::Expired, message),
            code @ 300..=399 => ClusterError::new(
                ClusterErrorKind::Server,
                format!("cannot read from {server}: it responded with a redirect ({code})"),
            )
            .hint(LOGIN_HINT),
            code => ClusterError::new(
                ClusterErrorKind::Server,
                format!("cannot read from {server}: it responded with {code} {message}"),
            )
            .hint("try again; if the error persists, check the API server and the proxies in front of it"),
        }
    }
}

/// Percent-encodes a query value.
pub(super) fn percent_encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
