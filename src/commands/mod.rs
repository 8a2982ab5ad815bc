//! One file a command: its arguments on top, what it does below. A command that is not finished is not here.

pub(crate) mod balance;
mod complete;
pub mod completion;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod inspect;
mod proxy_states;
pub(crate) mod route;
pub(crate) mod shift;
pub(crate) mod snapshot;
pub(crate) mod tail;
pub(crate) mod version;

use std::io::Write;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::{ConnectionArgs, OutputArgs, ScopeArgs};

/// Inspect gRPC services in an Istio mesh.
///
/// Are calls balanced, routed, retried and secured as you think? Reads a cluster, a snapshot or manifests; installs
/// nothing and has no server side.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-grpcmesh",
    bin_name = "kubectl grpcmesh",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Try it without a cluster:\n  kubectl grpcmesh inspect --from demo"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    Inspect(inspect::InspectArgs),
    Route(route::RouteArgs),
    Diff(diff::DiffArgs),
    Shift(shift::ShiftArgs),
    Explain(explain::ExplainArgs),
    Snapshot(snapshot::SnapshotArgs),
    Tail(tail::TailArgs),
    Balance(balance::BalanceArgs),
    Doctor(doctor::DoctorArgs),
    Version(version::VersionArgs),
    Completion(completion::CompletionArgs),
}

/// The command line's definition, for completions and documents.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program on `arguments`, the first of which is its name; gives the exit code.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>, env: Env, out: &mut dyn Write) -> u8 {
    let arguments: Vec<std::ffi::OsString> = arguments.into_iter().collect();
    if let Some(code) = complete::answer(&arguments, &env, out) {
        return code;
    }
    let parsed = definition().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return told(&error, &env, out),
    };
    let Cli { command, connection, scope, output } = cli;
    let mut context = Context::new(env, connection, scope, &output, out);
    let messages = context.messages;
    match dispatch(command, &mut context).and_then(|outcome| {
        context.out.flush()?;
        Ok(outcome)
    }) {
        Ok(outcome) => outcome.code(),
        Err(failure) => {
            failure.tell(&messages);
            failure.code()
        }
    }
}

/// Help and version go to stdout and are no failure; what is wrong goes to stderr.
fn told(error: &clap::Error, env: &Env, out: &mut dyn Write) -> u8 {
    let color = !env.no_color && !env.dumb;
    if error.use_stderr() {
        let text = if env.stderr_is_terminal && color {
            error.render().ansi().to_string()
        } else {
            error.render().to_string()
        };
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return 2;
    }
    let text =
        if env.stdout_is_terminal && color { error.render().ansi().to_string() } else { error.render().to_string() };
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

fn dispatch(command: Command, context: &mut Context<'_>) -> Result<CommandOutcome, Failure> {
    match command {
        Command::Inspect(arguments) => block_on(interruptible(inspect::run(context, arguments))),
        Command::Route(arguments) => block_on(interruptible(route::run(context, arguments))),
        Command::Diff(arguments) => block_on(interruptible(diff::run(context, arguments))),
        Command::Shift(arguments) => block_on(shift::run(context, arguments)),
        Command::Explain(arguments) => explain::run(context, &arguments),
        Command::Snapshot(arguments) => block_on(interruptible(snapshot::run(context, arguments))),
        Command::Tail(arguments) => block_on(tail::run(context, arguments)),
        Command::Balance(arguments) => block_on(interruptible(balance::run(context, arguments))),
        Command::Doctor(arguments) => block_on(interruptible(doctor::run(context, arguments))),
        Command::Version(arguments) => block_on(version::run(context, arguments)),
        Command::Completion(arguments) => completion::run(context, &arguments),
    }
}

/// Ends a command when the user interrupts, wherever it waits.
async fn interruptible(work: impl Future<Output = Result<CommandOutcome, Failure>>) -> Result<CommandOutcome, Failure> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

/// Runs a command that may talk to a cluster, on this thread.
fn block_on(work: impl Future<Output = Result<CommandOutcome, Failure>>) -> Result<CommandOutcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::source("cannot start").cause(error))?;
    runtime.block_on(work)
}

/// How often the program was asked to end, from now on: by Ctrl-C, TERM, or HUP.
fn signals() -> tokio::sync::watch::Receiver<u32> {
    let (sender, receiver) = tokio::sync::watch::channel(0);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        for mut stream in kinds.into_iter().filter_map(|kind| signal(kind).ok()) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    sender.send_modify(|count| *count += 1);
                }
            });
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            sender.send_modify(|count| *count += 1);
        }
    });
    receiver
}

/// Ctrl-C, or a signal with which programs are ended: TERM, and HUP when the terminal goes away.
async fn end_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let both = signal(SignalKind::terminate()).and_then(|ended| Ok((ended, signal(SignalKind::hangup())?)));
        if let Ok((mut ended, mut hung_up)) = both {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = ended.recv() => {}
                _ = hung_up.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
