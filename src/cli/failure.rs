//! Why a command failed, and the exit code that says so.

use crate::cluster::{ClusterError, ClusterErrorKind};
use crate::terminal::Messages;

/// How a command ended when it did not fail. Exit codes are decided here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Nothing to complain about: 0.
    Clean,
    /// Something was found: 1.
    Found,
    /// Done in part: 4.
    Partial,
}

impl CommandOutcome {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Found => 1,
            Self::Partial => 4,
        }
    }
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Wrong use: 2.
    Usage,
    /// Nothing could be read or done: 3.
    Source,
    /// The reader of stdout went away, which is a normal end: 0.
    ClosedPipe,
    /// The user interrupted: 130.
    Interrupted,
}

/// A failure with its causes and a way out.
#[derive(Debug)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// What happened.
    pub message: String,
    /// What led to it, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
}

impl Failure {
    /// Wrong use.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Nothing could be read.
    pub fn source(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Source, ..Self::usage(message) }
    }

    /// The user interrupted.
    pub fn interrupted() -> Self {
        Self { kind: FailureKind::Interrupted, ..Self::usage("interrupted") }
    }

    /// Adds what led to it.
    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self.kind {
            FailureKind::Usage => 2,
            FailureKind::Source => 3,
            FailureKind::ClosedPipe => 0,
            FailureKind::Interrupted => 130,
        }
    }

    /// Tells the user.
    pub fn tell(&self, messages: &Messages) {
        if self.kind == FailureKind::ClosedPipe {
            return;
        }
        messages.error(&self.message);
        for cause in &self.causes {
            messages.cause(cause);
        }
        for hint in &self.hints {
            messages.hint(hint);
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { kind: FailureKind::ClosedPipe, ..Self::usage("") };
        }
        Self::source(format!("cannot write: {error}"))
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let ClusterError { trouble, message, hint } = error;
        let failure = Self::source(message);
        let failure = match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        match trouble {
            ClusterErrorKind::Unreachable | ClusterErrorKind::Silent | ClusterErrorKind::Config => {
                failure.hint("to try this without a cluster: kubectl grpcmesh inspect --from demo")
            }
            ClusterErrorKind::Certificate
            | ClusterErrorKind::Unauthorized
            | ClusterErrorKind::Forbidden
            | ClusterErrorKind::NotFound
            | ClusterErrorKind::Expired
            | ClusterErrorKind::Server => failure,
        }
    }
}
