//! Warnings, hints, prompts and progress bars while a command runs, all on stderr.
//!
//! EDGE. Data goes to stdout through the writer of the command, never through this module.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Terminal settings before the first prompt. A prompt that waits for a key turns off echo and signals.
#[cfg(unix)]
static SAVED_SETTINGS: std::sync::OnceLock<rustix::termios::Termios> = std::sync::OnceLock::new();

fn save_settings() {
    #[cfg(unix)]
    if let Ok(settings) = rustix::termios::tcgetattr(io::stderr()) {
        let _ = SAVED_SETTINGS.set(settings);
    }
}

/// Writes messages to stderr and asks questions on the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    /// Whether stderr is a terminal that may show progress.
    pub shows_progress: bool,
    /// Whether messages on stderr are colored.
    pub uses_color: bool,
    /// Receives messages in place of stderr, for tests.
    pub sink: Option<&'static std::sync::Mutex<Vec<u8>>>,
}

impl Messages {
    pub fn warning(&self, text: &str) {
        self.line(anstyle::AnsiColor::Yellow, "warning", text);
    }

    pub fn hint(&self, text: &str) {
        self.line(anstyle::AnsiColor::Cyan, "hint", text);
    }

    pub fn error(&self, text: &str) {
        self.line(anstyle::AnsiColor::Red, "error", text);
    }

    /// Prints the cause of an error.
    pub fn cause(&self, text: &str) {
        self.line(anstyle::AnsiColor::Red, "caused by", text);
    }

    /// Prints what the command does, for `-v`.
    pub fn detail(&self, text: &str) {
        self.line(anstyle::AnsiColor::BrightBlack, "debug", text);
    }

    fn line(&self, color: anstyle::AnsiColor, label: &str, text: &str) {
        let text = crate::render::text::safe_lines(text);
        let style = color.on_default().effects(anstyle::Effects::BOLD);
        let label = if self.uses_color { format!("{style}{label}:{style:#}") } else { format!("{label}:") };
        if let Some(mut sink) = self.sink.and_then(|sink| sink.lock().ok()) {
            sink.extend_from_slice(format!("{label} {text}\n").as_bytes());
            return;
        }
        // A closed stderr does not fail the command.
        let _ = writeln!(io::stderr().lock(), "{label} {text}");
    }

    /// Asks a yes/no question. Only an explicit yes returns true.
    ///
    /// # Errors
    /// stderr is not a terminal.
    pub fn confirm(&self, question: &str) -> io::Result<bool> {
        save_settings();
        dialoguer::console::set_colors_enabled_stderr(self.uses_color);
        let answer =
            dialoguer::Confirm::new().with_prompt(question).wait_for_newline(true).default(false).interact_opt();
        self.restore();
        match answer {
            Ok(answer) => Ok(answer.unwrap_or(false)),
            Err(dialoguer::Error::IO(error)) => Err(error),
        }
    }

    /// Asks to choose one item. Returns its index, or `None` when the user cancels.
    ///
    /// # Errors
    /// stderr is not a terminal.
    pub fn choose(&self, question: &str, items: &[String]) -> io::Result<Option<usize>> {
        save_settings();
        dialoguer::console::set_colors_enabled_stderr(self.uses_color);
        let shown: Vec<String> = items.iter().map(|item| crate::render::text::safe(item).into_owned()).collect();
        let answer = dialoguer::Select::new().with_prompt(question).items(&shown).default(0).interact_opt();
        self.restore();
        answer.map_err(|dialoguer::Error::IO(error)| error)
    }

    /// Asks for a line of text that passes `check`.
    ///
    /// # Errors
    /// stderr is not a terminal.
    pub fn prompt_line(&self, question: &str, check: impl Fn(&str) -> Result<(), String>) -> io::Result<String> {
        save_settings();
        dialoguer::console::set_colors_enabled_stderr(self.uses_color);
        let answer: Result<String, _> =
            dialoguer::Input::new().with_prompt(question).validate_with(|text: &String| check(text)).interact_text();
        self.restore();
        answer.map_err(|dialoguer::Error::IO(error)| error)
    }

    /// Shows the cursor and restores the terminal settings of before the first prompt, even while a prompt is open.
    pub fn restore(&self) {
        let _ = dialoguer::console::Term::stderr().show_cursor();
        #[cfg(unix)]
        if let Some(settings) = SAVED_SETTINGS.get() {
            let _ = rustix::termios::tcsetattr(io::stderr(), rustix::termios::OptionalActions::Now, settings);
        }
    }

    /// Creates a progress bar, hidden unless [`Self::shows_progress`].
    pub fn progress_bar(&self, message: &'static str) -> ProgressBar {
        let target = if self.shows_progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(message);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}") {
            bar.set_style(style);
        }
        bar
    }
}
