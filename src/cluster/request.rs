//! One GET of the API: its limits, its retries, and what an answer's status means.

use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde::Deserialize;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};

/// Tries of one request while the server is busy.
const TRIES: u32 = 3;
/// Largest answer that is read: a page of 500 large Pods is below 20 MB; a whole list of ten thousand below 400 MB.
const LARGEST: usize = 1 << 30;

/// One request that was answered, or not, for those who watch (`-v`).
#[derive(Debug, Clone)]
pub struct RequestEvent<'a> {
    /// `GET`, `PATCH`.
    pub method: &'a str,
    /// Path with its query.
    pub path: &'a str,
    /// The answer's status; absent when there was none.
    pub status: Option<u16>,
    /// Size of the answer in bytes.
    pub bytes: usize,
    /// Time from the question to the last byte.
    pub took: Duration,
}

/// The API's own form of an error.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiStatus {
    message: String,
    reason: String,
}

impl ApiServer {
    /// Tells those who watch of a request; `answer` is the status and how long the answer was.
    pub(super) fn tell(&self, method: &str, path: &str, answer: Option<(StatusCode, usize)>, start: Instant) {
        if let Some(watch) = &self.watch {
            let (status, bytes) = (answer.map(|(status, _)| status.as_u16()), answer.map_or(0, |(_, bytes)| bytes));
            watch(&RequestEvent { method, path, status, bytes, took: start.elapsed() });
        }
    }

    /// Asks for a path. A busy server (429, 503, 504) is asked again a few times, within seconds.
    ///
    /// # Errors
    /// No answer in time, a status that is not a success, or an answer that is no text.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<String, ClusterError> {
        let mut pause = Duration::from_millis(250);
        let mut attempt = 1;
        loop {
            let start = Instant::now();
            let answer = tokio::time::timeout(timeout, self.ask(path)).await;
            let answer = answer.unwrap_or_else(|_| Err(ClusterError::timeout(timeout, &self.server)));
            let told = answer.as_ref().ok().map(|(status, text)| (*status, text.len()));
            self.tell("GET", path, told, start);
            let (status, text) = answer?;
            let busy = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            );
            if status.is_success() {
                return if text.trim_start().starts_with('<') { Err(self.web_page()) } else { Ok(text) };
            }
            if !busy || attempt == TRIES {
                return Err(self.refused(status, &text));
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, String), ClusterError> {
        let unreachable = |error: &dyn std::fmt::Display| {
            ClusterError::new(ClusterErrorKind::Unreachable, format!("{} broke off its answer: {error}", self.server))
                .hint("check the connection, and whether something between you and the server ends long answers")
        };
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| ClusterError::new(ClusterErrorKind::Config, format!("cannot ask for {path}: {error}")))?;
        let answer = self.client.send(request).await.map_err(|error| ClusterError::of(&error, &self.server))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| unreachable(&error))?;
        let text = String::from_utf8(body.to_bytes().into()).map_err(|_| {
            ClusterError::new(ClusterErrorKind::Server, format!("{} answered something that is not text", self.server))
        })?;
        Ok((head.status, text))
    }

    fn web_page(&self) -> ClusterError {
        ClusterError::new(ClusterErrorKind::Server, format!("{} answered with a web page instead of data", self.server))
            .hint("is it the API server's address, and does something in front of it ask for a log-in?")
    }

    /// What a status that is no success means. Something in front of the server may have spoken: then the body is not
    /// the API's, and only its status counts.
    fn refused(&self, status: StatusCode, text: &str) -> ClusterError {
        let server = &self.server;
        let ApiStatus { message, reason } = serde_json::from_str(text).unwrap_or_default();
        let is_of_kubernetes = !message.is_empty() || !reason.is_empty();
        let message = match (message.is_empty(), reason.is_empty()) {
            (false, _) => message,
            (true, false) => reason,
            (true, true) => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        };
        match status.as_u16() {
            401 => ClusterError::new(
                ClusterErrorKind::Unauthorized,
                format!("{server} did not accept the credentials: {message}"),
            )
            .hint("the token may have expired; log in again, and check with: kubectl auth whoami"),
            403 => ClusterError::new(ClusterErrorKind::Forbidden, message),
            404 if !is_of_kubernetes => {
                ClusterError::new(ClusterErrorKind::NotFound, format!("{server} answered 404: {message}"))
                    .hint("is it the API server's address?")
            }
            404 => ClusterError::new(ClusterErrorKind::NotFound, message),
            410 => ClusterError::new(ClusterErrorKind::Expired, message),
            code @ 300..=399 => ClusterError::new(
                ClusterErrorKind::Server,
                format!("{server} answered {code}: it sends clients elsewhere"),
            )
            .hint("is it the API server's address, and does something in front of it ask for a log-in?"),
            code => ClusterError::new(ClusterErrorKind::Server, format!("{server} answered {code}: {message}"))
                .hint("try again; if it stays, ask who runs the server, or what stands in front of it"),
        }
    }
}

/// Percent-encodes a value of a query.
pub(super) fn encode(token: &str) -> String {
    let mut out = String::with_capacity(token.len());
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
