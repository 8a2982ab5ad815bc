//! Errors of cluster access, by what the user can do about them.

use std::error::Error as StdError;
use std::time::Duration;

use kube::client::AuthError;

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
        if let Some(own) = own_error(error) {
            return own;
        }
        if let kube::Error::Auth(error) = error {
            let cause = auth_cause(error);
            return Self::new(ClusterErrorKind::Unauthorized, format!("cannot authenticate to {server}: {cause}"))
                .hint("check the user in the kubeconfig: kubectl config view --minify");
        }
        let causes = cause_messages(error);
        let root = causes.last().cloned().unwrap_or_default();
        let all = causes.join(": ");
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

/// The error of this program that caused an error of the client, such as that of a credential plugin.
fn own_error(error: &kube::Error) -> Option<ClusterError> {
    let service = match error {
        kube::Error::Service(error) => Some(&**error as &(dyn StdError + 'static)),
        error => error.source(),
    };
    let mut next = service;
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<ClusterError>() {
            return Some(own.clone());
        }
        next = error.source();
    }
    None
}

/// Why the client cannot use a user's credentials. Its own messages may quote a token, or the output of a program.
fn auth_cause(error: &AuthError) -> String {
    match error {
        AuthError::ReadTokenFile(error, path) => format!("the token file {} is unreadable: {error}", path.display()),
        AuthError::InvalidBearerToken(_) => {
            "the token contains a line break or another character that a header cannot hold".to_owned()
        }
        AuthError::InvalidBasicAuth(_) => "the user name or the password cannot be sent".to_owned(),
        AuthError::AuthExecStart(error) => format!("the program of the auth provider cannot be started: {error}"),
        _ => "the kubeconfig's credentials are unusable".to_owned(),
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
