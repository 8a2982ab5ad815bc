//! Errors of cluster access, by what the user can do about them.

use std::error::Error as StdError;
use std::time::Duration;

/// The cause of a [`ClusterError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterErrorKind {
    /// The kubeconfig is missing, unreadable or incomplete.
    Config,
    /// The connection failed.
    Unreachable,
    /// The server did not answer in time.
    Timeout,
    /// The server's certificate could not be verified.
    Certificate,
    /// The server rejected the credentials.
    Unauthorized,
    /// The user lacks a permission.
    Forbidden,
    /// The object or resource does not exist.
    NotFound,
    /// The continue token of a paged list expired.
    Expired,
    /// The server failed, is busy, or sent an unexpected response.
    Server,
}

/// An error of cluster access.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClusterError {
    /// The cause, for decisions.
    pub kind: ClusterErrorKind,
    /// The failure and its cause: `cannot <verb> <object>: <cause>`.
    pub message: String,
    /// How to fix it, with a command to copy.
    pub hint: Option<String>,
}

impl ClusterError {
    /// Creates an error without a hint.
    pub fn new(kind: ClusterErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Creates the error for a request that exceeded its limit.
    pub fn timeout(limit: Duration, server: &str) -> Self {
        Self::new(
            ClusterErrorKind::Timeout,
            format!("cannot reach {server}: it did not answer within {} s", limit.as_secs_f32()),
        )
        .hint("check the connection, or raise the limit with --request-timeout")
    }

    /// Converts an error of a log request. Its body is the API server's own status, unlike that of other requests.
    pub fn from_log_request(error: &kube::Error, server: &str) -> Self {
        let kube::Error::Api(status) = error else { return Self::from_client(error, server) };
        let kind = match status.code {
            401 => ClusterErrorKind::Unauthorized,
            403 => ClusterErrorKind::Forbidden,
            404 => ClusterErrorKind::NotFound,
            _ => ClusterErrorKind::Server,
        };
        Self::new(kind, status.message.clone())
    }

    /// Converts an error of the client. The root cause of a failed connection is the last of its causes.
    pub fn from_client(error: &kube::Error, server: &str) -> Self {
        let causes = cause_messages(error);
        let root = causes.last().cloned().unwrap_or_default();
        let all = causes.join(": ");
        if matches!(error, kube::Error::Auth(_)) {
            return Self::new(ClusterErrorKind::Unauthorized, format!("cannot authenticate to {server}: {root}"))
                .hint("check the user in the kubeconfig (kubectl config view --minify); exec plugins must be on PATH");
        }
        if all.contains("received corrupt message") || all.contains("InvalidContentType") {
            return Self::new(ClusterErrorKind::Unreachable, format!("cannot reach {server}: it does not speak TLS ({root})"))
                .hint("check the address (kubectl config view --minify); a plaintext server needs http:// instead of https://");
        }
        if all.contains("deadline has elapsed") || all.contains("timed out") {
            return Self::new(ClusterErrorKind::Timeout, format!("cannot reach {server}: it did not answer in time"))
                .hint("check the connection, or raise the limit with --request-timeout");
        }
        if all.contains("certificate") {
            return Self::new(
                ClusterErrorKind::Certificate,
                format!("cannot verify the certificate of {server}: {root}"),
            )
            .hint(
                "check certificate-authority-data in the kubeconfig, or --certificate-authority and --tls-server-name",
            );
        }
        Self::new(ClusterErrorKind::Unreachable, format!("cannot reach {server}: {root}"))
            .hint("check that the cluster is running and the context is right: kubectl config get-contexts")
    }
}

/// Messages of an error and its causes, outermost first, without repetitions.
fn cause_messages(error: &dyn StdError) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}
