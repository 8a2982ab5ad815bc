//! From meaning to color. Without color nothing is lost: every color only repeats what a word says.

use anstyle::{AnsiColor, Effects};

use crate::rules::Severity;

/// How text is rendered.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether escape codes are written.
    pub color: bool,
    /// Columns to fit into; `None` is as wide as it gets, as in a pipe.
    pub width: Option<usize>,
    /// Whether tables have a heading.
    pub headers: bool,
    /// Whether everything is shown that is usually left out.
    pub wide: bool,
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextRole {
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// A piece of information.
    Info,
    /// A heading.
    Heading,
    /// Something healthy.
    Good,
    /// Something secondary.
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
    /// Text in the color of its meaning.
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
