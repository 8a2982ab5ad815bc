//! What every command is handed: the environment, how to write, where to say things.

use std::io::Write;
use std::sync::Arc;

use super::env::Env;
use super::global::{ColorWhen, ConnectionArgs, OutputArgs, ScopeArgs};
use crate::cluster::ClusterError;
use crate::cluster::client::ApiServer;
use crate::cluster::request::RequestEvent;
use crate::render::style::Style;
use crate::terminal::Messages;

/// The context of one run.
pub struct Context<'w> {
    /// The environment.
    pub env: Env,
    /// Connection flags.
    pub connection: ConnectionArgs,
    /// Scope flags.
    pub scope: ScopeArgs,
    /// How to write.
    pub style: Style,
    /// Where to say things.
    pub messages: Messages,
    /// How much is said about what is done.
    pub verbosity: u8,
    /// Data goes here.
    pub out: &'w mut dyn Write,
}

impl<'w> Context<'w> {
    /// Puts it together; from here on no flag is read twice.
    pub fn new(
        env: Env,
        connection: ConnectionArgs,
        scope: ScopeArgs,
        output: &OutputArgs,
        out: &'w mut dyn Write,
    ) -> Self {
        let wants_color = |is_terminal: bool| match output.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto if env.no_color => false,
            ColorWhen::Auto => env.force_color || (is_terminal && !env.dumb),
        };
        let style = Style {
            color: wants_color(env.stdout_is_terminal),
            width: env.width,
            headers: !output.no_headers,
            wide: false,
        };
        let messages = Messages {
            progress: env.stderr_is_terminal && !output.quiet && !env.dumb,
            color: wants_color(env.stderr_is_terminal),
        };
        Self { style, messages, env, connection, scope, verbosity: output.verbosity, out }
    }

    /// Connects to the cluster; with `-v` every request is told.
    ///
    /// # Errors
    /// Trouble with the kubeconfig, certificates or credentials.
    pub async fn connect(&self) -> Result<ApiServer, ClusterError> {
        let mut server = self.connection.connection(&self.env).connect().await?;
        if self.verbosity > 0 {
            let messages = self.messages;
            server.watch = Some(Arc::new(move |asked: &RequestEvent<'_>| {
                let status = asked.status.map_or("no answer".to_owned(), |status| status.to_string());
                let (bytes, millis) = (asked.bytes, asked.took.as_millis());
                messages.detail(&format!("{} {} {status}, {bytes} bytes, {millis} ms", asked.method, asked.path));
            }));
        }
        Ok(server)
    }
}
