//! Whole jobs of `shift` against a cluster in memory, with paused time: the dialogue on stdout and stderr, the exit code,
//! and every request.
//!
//! The lab runs the same kinds of situations on a real mesh (`tests/lab/shift.rs`, `tests/lab/analysis.rs`), as proof that
//! this cluster behaves like one.

mod fake_cluster;
mod fake_world;
mod situations;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use tokio::sync::watch;

use super::super::{Cli, Command};
use super::world::World;
use crate::cli::context::Context;
use crate::cli::env::Env;
use fake_cluster::{Calls, Cluster, Envoys, FakeCluster, Matching, RequestFault};
use fake_world::{FakeClock, FakePrompter, FakeProxies, ScriptedAnswer};

/// A situation and the command that runs in it.
struct Situation {
    cluster: FakeCluster,
    signals: watch::Receiver<u32>,
    answers: Vec<ScriptedAnswer>,
    is_terminal: bool,
    /// Bytes that stdout takes before its reader is gone.
    stdout_limit: Option<usize>,
}

/// A request by method and a part of the path, and which of those that match, from 1.
fn request(method: &'static str, path: &'static str, number: usize) -> Matching {
    Matching { method, path, number }
}

/// A write of the VirtualService, from 1.
fn write(number: usize) -> Matching {
    request("PATCH", "virtualservices", number)
}

/// A read of the VirtualService, from 1.
fn read(number: usize) -> Matching {
    request("GET", "virtualservices/checkout", number)
}

impl Situation {
    fn new() -> Self {
        let (sender, signals) = watch::channel(0);
        Self { cluster: FakeCluster::new(sender), signals, answers: Vec::new(), is_terminal: false, stdout_limit: None }
    }

    /// Calls per second from `web`, and the ratio of those to v2 that fail.
    fn with_calls(self, per_second: f64, canary_error_ratio: f64) -> Self {
        self.cluster.lock().calls = Calls { per_second, canary_error_ratio, baseline_error_ratio: 0.0 };
        self
    }

    fn with_envoys(self, envoys: Envoys) -> Self {
        self.cluster.lock().envoys = envoys;
        self
    }

    /// Answers a request in another way.
    fn fault(self, matching: Matching, fault: RequestFault) -> Self {
        self.cluster.lock().add_fault(matching, fault);
        self
    }

    /// Changes the cluster right after a request was served.
    fn after(self, matching: Matching, action: impl FnOnce(&mut Cluster) + Send + 'static) -> Self {
        self.cluster.lock().add_action(matching, action);
        self
    }

    /// Changes the cluster some time after the start of the command.
    fn at(self, delay: Duration, action: impl FnOnce(&mut Cluster) + Send + 'static) -> Self {
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            action(&mut cluster.lock());
        });
        self
    }

    /// Runs on a terminal, where prompts get these answers.
    fn on_terminal(mut self, answers: impl IntoIterator<Item = ScriptedAnswer>) -> Self {
        self.is_terminal = true;
        self.answers = answers.into_iter().collect();
        self
    }

    /// Closes stdout after some bytes.
    fn closing_stdout_after(mut self, bytes: usize) -> Self {
        self.stdout_limit = Some(bytes);
        self
    }

    /// Runs `kubectl grpcmesh shift` with arguments.
    async fn run(&self, arguments: &str) -> Dialogue {
        let words = std::iter::once("kubectl-grpcmesh").chain(std::iter::once("shift")).chain(arguments.split(' '));
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        let Cli { command, connection, scope, output } = Cli::from_arg_matches(&matches).unwrap();
        let Command::Shift(shift) = command else { panic!("{arguments}") };
        let env = Env { stderr_is_terminal: self.is_terminal, width: Some(110), dumb: true, ..Env::default() };
        let stdout = Arc::new(Mutex::new(Vec::new()));
        let mut out = Stdout { written: Arc::clone(&stdout), limit: self.stdout_limit };
        let stderr: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        let mut context = Context::new(env, connection, scope, &output, &mut out);
        context.messages.sink = Some(stderr);
        context.server = Some(self.cluster.server());
        let messages = context.messages;
        self.cluster.lock().requests.clear();
        let clock = std::rc::Rc::new(FakeClock { cluster: self.cluster.clone() });
        let world = World {
            proxies: Box::new(FakeProxies { cluster: self.cluster.clone() }),
            prompter: std::rc::Rc::new(FakePrompter::new(self.answers.clone(), self.cluster.clone())),
            clock,
            signals: self.signals.clone(),
            handles_signals: std::rc::Rc::default(),
        };
        let result = match shift.into_job() {
            Ok(job) => super::run_job(&mut context, world, job).await,
            Err(failure) => Err(failure),
        };
        let code = match result {
            Ok(outcome) => outcome.exit_code(),
            Err(failure) => {
                failure.report(&messages);
                failure.exit_code()
            }
        };
        let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        let cluster = self.cluster.lock();
        Dialogue {
            arguments: arguments.to_owned(),
            code,
            stdout: text(&stdout),
            stderr: text(stderr),
            requests: cluster.requests.clone(),
            weights: cluster.weights(),
        }
    }
}

/// What a command printed, its exit code, and its requests.
struct Dialogue {
    arguments: String,
    code: u8,
    stdout: String,
    stderr: String,
    requests: Vec<String>,
    weights: [u64; 2],
}

impl Dialogue {
    /// The dialogue alone, where the number of requests depends on when something happens.
    fn without_requests(mut self) -> Self {
        self.requests.clear();
        self
    }

    /// The requests, with the number of repetitions.
    fn request_lines(&self) -> Vec<String> {
        let mut lines: Vec<(String, usize)> = Vec::new();
        for request in &self.requests {
            match lines.last_mut().filter(|(last, _)| last == request) {
                Some((_, count)) => *count += 1,
                None => lines.push((request.clone(), 1)),
            }
        }
        let line =
            |(request, count): (String, usize)| if count > 1 { format!("{count} × {request}") } else { request };
        lines.into_iter().map(line).collect()
    }
}

impl fmt::Display for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ kubectl grpcmesh shift {}", self.arguments)?;
        writeln!(f, "exit code {}; the weights are {:?}", self.code, self.weights)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "----- {name} -----\n{text}")?;
            }
        }
        if self.requests.is_empty() {
            return Ok(());
        }
        write!(f, "----- {} requests -----\n{}", self.requests.len(), self.request_lines().join("\n"))
    }
}

/// A stdout whose reader may go away.
struct Stdout {
    written: Arc<Mutex<Vec<u8>>>,
    limit: Option<usize>,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.written.lock().unwrap();
        if self.limit.is_some_and(|limit| written.len() + bytes.len() > limit) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
