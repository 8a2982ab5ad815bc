//! What is said to people while a command runs: warnings, hints and progress, all on stderr.
//!
//! EDGE. Data goes to stdout through the writer that a command is handed; nothing here touches it.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How the terminal was before the first question. A question that waits for a key switches echo and signals off.
#[cfg(unix)]
static BEFORE: std::sync::OnceLock<rustix::termios::Termios> = std::sync::OnceLock::new();

fn remember() {
    #[cfg(unix)]
    if let Ok(now) = rustix::termios::tcgetattr(io::stderr()) {
        let _ = BEFORE.set(now);
    }
}

/// Where messages go.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    /// Whether stderr is a terminal that may show progress.
    pub progress: bool,
    /// Whether colors are wanted on stderr.
    pub color: bool,
}

impl Messages {
    /// Says something that a user should know.
    pub fn warning(&self, text: &str) {
        self.line(anstyle::AnsiColor::Yellow, "warning", text);
    }

    /// Says what could be done.
    pub fn hint(&self, text: &str) {
        self.line(anstyle::AnsiColor::Cyan, "hint", text);
    }

    /// Says why a command failed.
    pub fn error(&self, text: &str) {
        self.line(anstyle::AnsiColor::Red, "error", text);
    }

    /// Says what led to it.
    pub fn cause(&self, text: &str) {
        self.line(anstyle::AnsiColor::Red, "caused by", text);
    }

    /// Says what was done, for those who asked to know.
    pub fn detail(&self, text: &str) {
        self.line(anstyle::AnsiColor::BrightBlack, "did", text);
    }

    fn line(&self, color: anstyle::AnsiColor, label: &str, text: &str) {
        let text = crate::render::text::safe_lines(text);
        let style = color.on_default().effects(anstyle::Effects::BOLD);
        let label = if self.color { format!("{style}{label}:{style:#}") } else { format!("{label}:") };
        // A closed stderr is nobody's trouble.
        let _ = writeln!(io::stderr().lock(), "{label} {text}");
    }

    /// Asks on the terminal; only a line that says yes is one. The cursor is visible again whatever comes.
    ///
    /// # Errors
    /// When there is no terminal to ask on.
    pub fn confirm(&self, question: &str) -> io::Result<bool> {
        remember();
        dialoguer::console::set_colors_enabled_stderr(self.color);
        let answer =
            dialoguer::Confirm::new().with_prompt(question).wait_for_newline(true).default(false).interact_opt();
        self.give_cursor_back();
        match answer {
            Ok(answer) => Ok(answer.unwrap_or(false)),
            Err(dialoguer::Error::IO(error)) => Err(error),
        }
    }

    /// Lets choose one of several; `None` is none of them. The cursor is visible again whatever comes.
    ///
    /// # Errors
    /// When there is no terminal to ask on.
    pub fn choose(&self, question: &str, items: &[String]) -> io::Result<Option<usize>> {
        remember();
        dialoguer::console::set_colors_enabled_stderr(self.color);
        let shown: Vec<String> = items.iter().map(|item| crate::render::text::safe(item).into_owned()).collect();
        let answer = dialoguer::Select::new().with_prompt(question).items(&shown).default(0).interact_opt();
        self.give_cursor_back();
        answer.map_err(|dialoguer::Error::IO(error)| error)
    }

    /// Asks for a line of text that `check` takes.
    ///
    /// # Errors
    /// When there is no terminal to ask on.
    pub fn ask_for(&self, question: &str, check: impl Fn(&str) -> Result<(), String>) -> io::Result<String> {
        remember();
        dialoguer::console::set_colors_enabled_stderr(self.color);
        let answer: Result<String, _> =
            dialoguer::Input::new().with_prompt(question).validate_with(|text: &String| check(text)).interact_text();
        self.give_cursor_back();
        answer.map_err(|dialoguer::Error::IO(error)| error)
    }

    /// Shows the cursor again that a question hid, and lets the terminal echo as before, also when the question is still
    /// open.
    pub fn give_cursor_back(&self) {
        let _ = dialoguer::console::Term::stderr().show_cursor();
        #[cfg(unix)]
        if let Some(before) = BEFORE.get() {
            let _ = rustix::termios::tcsetattr(io::stderr(), rustix::termios::OptionalActions::Now, before);
        }
    }

    /// A progress bar, invisible where progress is not wanted.
    pub fn bar(&self, what: &'static str) -> ProgressBar {
        let target = if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}") {
            bar.set_style(style);
        }
        bar
    }
}
