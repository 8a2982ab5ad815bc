//! Runs the program the same way for every test: in this repository, with a cleared environment, a fixed width, no home
//! folder and, where a test needs files, a folder of its own.

#![allow(dead_code, reason = "every test binary uses some of it")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The clock of every run, where the program states the current time.
pub const NOW: &str = "2026-11-21T09:30:00Z";

/// A controlled environment with a temporary folder, which is removed at the end.
pub struct TestEnv {
    folder: PathBuf,
    columns: usize,
}

impl TestEnv {
    /// An environment with a new, empty folder, and output that is 110 columns wide.
    pub fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("grpcmesh-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, columns: 110 }
    }

    /// The same with another width of the output.
    pub fn with_columns(columns: usize) -> Self {
        let mut env = Self::new();
        env.columns = columns;
        env
    }

    /// The path of a file in the folder, which need not exist.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file into the folder, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program with arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("COLUMNS", self.columns.to_string())
            .env("GRPCMESH_TEST_CLOCK", NOW)
            .current_dir(repository());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        let shown = arguments.iter().map(|argument| self.redact(&quote(argument))).collect::<Vec<_>>().join(" ");
        Run {
            stdout: self.redact(&String::from_utf8_lossy(&output.stdout)),
            stderr: self.redact(&String::from_utf8_lossy(&output.stderr)),
            command: shown,
            output,
        }
    }

    /// Text with what differs between machines replaced.
    fn redact(&self, text: &str) -> String {
        text.replace(self.folder.to_str().unwrap(), "[FOLDER]")
            .replace(repository().to_str().unwrap(), "[REPOSITORY]")
            .replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The root of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn quote(argument: &str) -> String {
    shlex::try_quote(argument).unwrap().into_owned()
}

/// A finished run of the program. Its `Display` is what snapshots compare: command, exit code, stdout and stderr.
pub struct Run {
    /// The arguments, quoted for a shell.
    pub command: String,
    /// Standard output, redacted.
    pub stdout: String,
    /// Standard error, redacted.
    pub stderr: String,
    /// The raw output.
    pub output: Output,
}

impl Run {
    /// The exit code.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.output.status.code().expect("the program was not ended by a signal")
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|error| panic!("{error} in\n{self}"))
    }

    /// Standard output as one JSON value for each line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.stdout.lines().map(line).collect()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ kubectl grpcmesh {}", self.command)?;
        writeln!(f, "exit code: {}", self.code())?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "----- {name} -----")?;
                f.write_str(text)?;
                if !text.ends_with('\n') {
                    writeln!(f, "⏎ missing")?;
                }
            }
        }
        Ok(())
    }
}
