//! What can go wrong with a cluster, told apart by what the user can do about it.

use std::error::Error as StdError;
use std::time::Duration;

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterErrorKind {
    /// The kubeconfig is missing, unreadable, or names something that is not in it.
    Config,
    /// No connection.
    Unreachable,
    /// No answer in time.
    Silent,
    /// The server's certificate does not fit.
    Certificate,
    /// Who the user is was not accepted.
    Unauthorized,
    /// The user may not do it.
    Forbidden,
    /// It does not exist.
    NotFound,
    /// The list changed too much while it was read page by page.
    Expired,
    /// The server is busy or failed.
    Server,
}

/// Trouble with a cluster.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClusterError {
    /// Which kind.
    pub trouble: ClusterErrorKind,
    /// What happened, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ClusterError {
    /// Trouble with a message.
    pub fn new(trouble: ClusterErrorKind, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// No answer in time.
    pub fn timeout(limit: Duration, server: &str) -> Self {
        Self::new(ClusterErrorKind::Silent, format!("{server} did not answer within {} s", limit.as_secs_f32()))
            .hint("check the connection, or give more time with --request-timeout")
    }

    /// Reads an error of opening a log, whose body is the API's own.
    pub fn of_log(error: &kube::Error, server: &str) -> Self {
        let kube::Error::Api(status) = error else { return Self::of(error, server) };
        let trouble = match status.code {
            401 => ClusterErrorKind::Unauthorized,
            403 => ClusterErrorKind::Forbidden,
            404 => ClusterErrorKind::NotFound,
            _ => ClusterErrorKind::Server,
        };
        Self::new(trouble, status.message.clone())
    }

    /// Reads an error of the client. The useful part of a failed connection is at the end of its chain of causes.
    pub fn of(error: &kube::Error, server: &str) -> Self {
        let chain = chain(error);
        let root = chain.last().cloned().unwrap_or_default();
        let all = chain.join(": ");
        if matches!(error, kube::Error::Auth(_)) {
            return Self::new(ClusterErrorKind::Unauthorized, format!("no credentials for {server}: {root}"))
                .hint("check the user's entry in the kubeconfig; exec plugins must be on PATH");
        }
        if all.contains("received corrupt message") || all.contains("InvalidContentType") {
            return Self::new(ClusterErrorKind::Unreachable, format!("{server} does not speak TLS: {root}"))
                .hint("is the address right, and is it http:// rather than https://?");
        }
        if all.contains("deadline has elapsed") || all.contains("timed out") {
            return Self::new(ClusterErrorKind::Silent, format!("{server} did not answer in time"))
                .hint("check the connection, or give more time with --request-timeout");
        }
        if all.contains("certificate") {
            return Self::new(
                ClusterErrorKind::Certificate,
                format!("the certificate of {server} was not accepted: {root}"),
            )
            .hint(
                "check certificate-authority-data in the kubeconfig, or --certificate-authority and --tls-server-name",
            );
        }
        Self::new(ClusterErrorKind::Unreachable, format!("cannot reach {server}: {root}"))
            .hint("is the cluster up, and is this the right context? kubectl config get-contexts")
    }
}

/// The texts of an error and its causes, outermost first, repetitions left out.
fn chain(error: &dyn StdError) -> Vec<String> {
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
