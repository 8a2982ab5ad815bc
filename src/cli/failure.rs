//! Failures of commands and exit codes.

use crate::cluster::{ClusterError, ClusterErrorKind};
use crate::terminal::Messages;

/// The result of a command that did not fail. This file defines all exit codes.
///
/// Source of the codes: the "Exit codes" section of the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The command has nothing to report: 0.
    Clean,
    /// A finding, a difference, a failed expectation or a rollback: 1.
    Found,
    /// The answer is incomplete, because something that affects it could not be read: 4.
    Partial,
}

impl CommandOutcome {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Found => 1,
            Self::Partial => 4,
        }
    }
}

/// The reason of a failure, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Invalid arguments: 2.
    Usage,
    /// Nothing could be read or done: 3.
    Unavailable,
    /// The reader of stdout closed the pipe, which is a normal end: 0.
    ClosedPipe,
    /// The user interrupted the command: 130.
    Interrupted,
}

/// Why a command failed, with causes and hints.
#[derive(Debug)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// Underlying errors, outermost first.
    pub causes: Vec<String>,
    /// Next steps: commands to copy, or flags to use.
    pub hints: Vec<String>,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unavailable, ..Self::usage(message) }
    }

    pub fn interrupted() -> Self {
        Self { kind: FailureKind::Interrupted, ..Self::usage("interrupted") }
    }

    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Usage => 2,
            FailureKind::Unavailable => 3,
            FailureKind::ClosedPipe => 0,
            FailureKind::Interrupted => 130,
        }
    }

    /// Prints the failure to stderr. A closed pipe prints nothing.
    pub fn report(&self, messages: &Messages) {
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
        Self::unavailable(format!("cannot write the output: {error}"))
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let ClusterError { kind, message, hint } = error;
        let failure = Self::unavailable(message);
        let failure = match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
        match kind {
            ClusterErrorKind::Unreachable | ClusterErrorKind::Timeout | ClusterErrorKind::Config => {
                failure.hint("try it without a cluster: kubectl grpcmesh inspect --from demo")
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
