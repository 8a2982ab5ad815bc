//! One object as the server has it, and as it would have it: a server-side dry run, which stores nothing.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;

use super::client::Server;
use super::error::{ClusterError, Trouble};
use crate::snapshot::Key;

/// Limit for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const LARGEST: usize = 16 << 20;

/// What a dry run gave.
#[derive(Debug)]
pub enum DryRun {
    /// The object as the server would store it, defaults and admission included.
    Would(Value),
    /// The server would refuse it, and says why.
    Refuses(String),
    /// It may not be tried, or cannot be.
    Forbidden(String),
}

impl Server {
    /// An object as it is; `None` when there is none.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn object(&self, key: &Key, api_version: &str) -> Result<Option<Value>, ClusterError> {
        match self.get(&path(key, api_version, true), ANSWER).await {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| ClusterError::new(Trouble::Server, format!("{}: {error}", key.kind.name()))),
            Err(error) if error.trouble == Trouble::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the server would make of an object: a merge over the one that is there, or a new one.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn dry_run(
        &self,
        key: &Key,
        api_version: &str,
        body: &Value,
        exists: bool,
    ) -> Result<DryRun, ClusterError> {
        let question = "dryRun=All&fieldManager=kubectl-grpcmesh";
        let request = if exists {
            Request::builder()
                .method(Method::PATCH)
                .uri(format!("{}?{question}", path(key, api_version, true)))
                .header(header::CONTENT_TYPE, "application/merge-patch+json")
        } else {
            Request::builder()
                .method(Method::POST)
                .uri(format!("{}?{question}", path(key, api_version, false)))
                .header(header::CONTENT_TYPE, "application/json")
        };
        let request = request
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|error| ClusterError::new(Trouble::Config, error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER, self.client.send(request))
            .await
            .map_err(|_| ClusterError::timeout(ANSWER, &self.server))?
            .map_err(|error| ClusterError::of(&error, &self.server))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST)
            .collect()
            .await
            .map_err(|error| ClusterError::new(Trouble::Unreachable, error.to_string()))?;
        let value: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        if status.is_success() {
            return Ok(DryRun::Would(value));
        }
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        let by_admission = message.contains("admission webhook");
        Ok(match status {
            StatusCode::FORBIDDEN if !by_admission => DryRun::Forbidden(message),
            _ if message.contains("does not support dry run") => DryRun::Forbidden(message),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => DryRun::Refuses(message),
            status => return Err(ClusterError::new(Trouble::Server, format!("dry run answered {status}: {message}"))),
        })
    }
}

fn path(key: &Key, api_version: &str, named: bool) -> String {
    let info = key.kind.info();
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let place = if info.namespaced { format!("/namespaces/{}", key.namespace) } else { String::new() };
    let name = if named { format!("/{}", key.name) } else { String::new() };
    format!("{root}/{api_version}{place}/{}{name}", info.plural)
}
