//! Colors by meaning. Colors only repeat what the text says, so that output without color loses nothing.

use anstyle::{AnsiColor, Effects};

use crate::rules::Severity;

/// The rendering options of one run.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether to write escape codes.
    pub color: bool,
    /// Columns of the terminal; `None` means no limit, as in a pipe.
    pub width: Option<usize>,
    /// Whether tables have a heading row.
    pub headers: bool,
    /// Whether to add the columns of `-o wide`.
    pub wide: bool,
}

/// The meaning of a text, which decides its color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextRole {
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// Information.
    Info,
    /// A heading.
    Heading,
    /// A healthy state.
    Good,
    /// Secondary information.
    Faint,
}

impl From<Severity> for TextRole {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Error,
            Severity::Warning => Self::Warning,
            Severity::Info => Self::Info,
        }
    }
}

impl Style {
    /// Adds the color of `role` when colors are on.
    pub fn paint(&self, role: TextRole, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let style = match role {
            TextRole::Error => AnsiColor::Red.on_default().effects(Effects::BOLD),
            TextRole::Warning => AnsiColor::Yellow.on_default().effects(Effects::BOLD),
            TextRole::Info => AnsiColor::Blue.on_default(),
            TextRole::Heading => anstyle::Style::new().effects(Effects::BOLD),
            TextRole::Good => AnsiColor::Green.on_default(),
            TextRole::Faint => anstyle::Style::new().effects(Effects::DIMMED),
        };
        format!("{style}{text}{style:#}")
    }
}
