//! The environment of the program, read once: variables, terminals and time.
//!
//! Clippy rejects reading variables or the clock in any other file (`clippy.toml`).

use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::cluster::http_proxy::HttpProxyEnvironment;

/// Variables and terminals at the start of the program.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// The kubeconfig files that `KUBECONFIG` lists, by default `~/.kube/config`.
    pub kubeconfig_files: Vec<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    /// The home directory of the user.
    pub home: Option<PathBuf>,
    /// Whether a shell requests completions (`COMPLETE` is set).
    pub completes: bool,
    /// The HTTP proxies that the environment configures.
    pub proxy: HttpProxyEnvironment,
    /// Whether `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// Whether `CLICOLOR_FORCE` is set and not 0.
    pub force_color: bool,
    /// Whether `TERM` is `dumb`.
    pub dumb: bool,
    /// Whether stdin is a terminal, so that reading it waits for the user.
    pub stdin_is_terminal: bool,
    /// Whether stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// Columns of the terminal.
    pub width: Option<usize>,
    /// Lines of the terminal.
    pub height: Option<usize>,
    /// The start time, as RFC 3339 in whole seconds.
    pub now: String,
}

impl Env {
    /// Reads variables, terminals and the clock.
    #[expect(clippy::disallowed_methods, reason = "only this file reads the environment and the clock")]
    pub fn capture() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let var_in_either_case = |upper: &str, lower: &str| var(upper).or_else(|| var(lower));
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
            proxy: HttpProxyEnvironment {
                https: var_in_either_case("HTTPS_PROXY", "https_proxy"),
                http: var_in_either_case("HTTP_PROXY", "http_proxy"),
                no_proxy: var_in_either_case("NO_PROXY", "no_proxy"),
            },
            no_color: var("NO_COLOR").is_some(),
            force_color: var("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            dumb: var("TERM").is_some_and(|term| term == "dumb"),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal,
            stderr_is_terminal: std::io::stderr().is_terminal(),
            width: width.filter(|width| stdout_is_terminal && *width > 0).or(columns),
            height: size.map(|(_, height)| usize::from(height.0)),
            now: Self::clock(),
        }
    }

    /// The current time.
    #[expect(clippy::disallowed_methods, reason = "only this file reads the environment and the clock")]
    pub fn timestamp() -> jiff::Timestamp {
        // Tests compare whole outputs. Releases always state the real time.
        #[cfg(debug_assertions)]
        if let Some(fixed) = std::env::var("GRPCMESH_TEST_CLOCK").ok().and_then(|fixed| fixed.parse().ok()) {
            return fixed;
        }
        jiff::Timestamp::now()
    }

    /// An ID that no other run has.
    #[expect(clippy::disallowed_methods, reason = "only this file reads the environment and the clock")]
    pub fn unique_id() -> String {
        let nanos = jiff::Timestamp::now().as_nanosecond();
        let process = u128::from(std::process::id()) << 72;
        format!("{:x}", nanos.unsigned_abs() ^ process)
    }

    /// The current time, as RFC 3339 in whole seconds. Long-running work uses it in place of [`Env::now`].
    pub fn clock() -> String {
        Self::timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}
