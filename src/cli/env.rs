//! The world around the program, read once: variables, terminals, width, time.
//!
//! No other file reads a variable or the clock; `clippy.toml` holds that.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::cluster::proxy::ProxyEnvironment;

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// Files of `KUBECONFIG`, else the default one.
    pub kubeconfig_files: Vec<PathBuf>,
    /// Folders of `PATH`.
    pub path: Vec<PathBuf>,
    /// The user's folder.
    pub home: Option<PathBuf>,
    /// Whether a shell asks for completions.
    pub completes: bool,
    /// Proxies.
    pub proxy: ProxyEnvironment,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `CLICOLOR_FORCE` is set and not 0.
    pub force_color: bool,
    /// `TERM=dumb`.
    pub dumb: bool,
    /// Whether stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// Columns of the terminal.
    pub width: Option<usize>,
    /// Lines of the terminal.
    pub height: Option<usize>,
    /// Now, as RFC 3339 in whole seconds.
    pub now: String,
}

impl Env {
    /// Reads it.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment and the clock are read")]
    pub fn capture() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let either = |upper: &str, lower: &str| var(upper).or_else(|| var(lower));
        let kubeconfig_files: Vec<PathBuf> = match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
            Some(list) => std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
        };
        let stdout_is_terminal = std::io::stdout().is_terminal();
        let columns = var("COLUMNS").and_then(|columns| columns.parse().ok());
        let size = terminal_size::terminal_size();
        let width = size.map(|(width, _)| usize::from(width.0));
        Self {
            kubeconfig_files,
            path: std::env::var_os("PATH").map(|list| std::env::split_paths(&list).collect()).unwrap_or_default(),
            home: std::env::home_dir(),
            completes: var("COMPLETE").is_some(),
            proxy: ProxyEnvironment {
                https: either("HTTPS_PROXY", "https_proxy"),
                http: either("HTTP_PROXY", "http_proxy"),
                no_proxy: either("NO_PROXY", "no_proxy"),
            },
            no_color: var("NO_COLOR").is_some(),
            force_color: var("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: var("TERM").is_some_and(|term| term == "dumb"),
            stdout_is_terminal,
            stderr_is_terminal: std::io::stderr().is_terminal(),
            width: width.filter(|width| stdout_is_terminal && *width > 0).or(columns),
            height: size.map(|(_, height)| usize::from(height.0)),
            now: Self::clock(),
        }
    }

    /// The time after a while, as RFC 3339 in whole seconds.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment and the clock are read")]
    pub fn clock_in(time: std::time::Duration) -> String {
        let later = jiff::Timestamp::now().checked_add(time).unwrap_or(jiff::Timestamp::MAX);
        later.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// A word that no other run has.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment and the clock are read")]
    pub fn unique() -> String {
        let nanos = jiff::Timestamp::now().as_nanosecond();
        let process = u128::from(std::process::id()) << 72;
        format!("{:x}", nanos.unsigned_abs() ^ process)
    }

    /// The time now, as RFC 3339 in whole seconds: for work that takes a while.
    pub fn clock() -> String {
        Self::clock_in(std::time::Duration::ZERO)
    }
}
