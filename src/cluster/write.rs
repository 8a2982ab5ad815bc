//! The one place that writes to a cluster: a dry run, which stores nothing, and a JSON Patch of one object, which stores
//! it when everything that it tests still holds.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::snapshot::ObjectKey;

/// Limit for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const LARGEST: usize = 16 << 20;

/// The name under which fields are written.
const MANAGER: &str = "kubectl-grpcmesh";

/// What became of a patch.
#[derive(Debug)]
pub enum PatchOutcome {
    /// The object as it is now, or would be.
    Stored(Value),
    /// Something that the patch tests is not so any more: somebody wrote in between.
    Conflict,
    /// The server, or a webhook, refuses it, and says why.
    Refused(String),
    /// The right is missing.
    Forbidden(String),
}

/// What a dry run gave.
#[derive(Debug)]
pub enum DryRunOutcome {
    /// The object as the server would store it, defaults and admission included.
    Would(Value),
    /// The server would refuse it, and says why.
    Refuses(String),
    /// It may not be tried, or cannot be.
    Forbidden(String),
}

impl ApiServer {
    /// An object as it is; `None` when there is none.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn object(&self, key: &ObjectKey, api_version: &str) -> Result<Option<Value>, ClusterError> {
        match self.get(&path(key, api_version, true), ANSWER).await {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| ClusterError::new(ClusterErrorKind::Server, format!("{}: {error}", key.kind.name()))),
            Err(error) if error.trouble == ClusterErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the server would make of an object: a merge over the one that is there, or a new one.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn dry_run(
        &self,
        key: &ObjectKey,
        api_version: &str,
        body: &Value,
        exists: bool,
    ) -> Result<DryRunOutcome, ClusterError> {
        let question = format!("dryRun=All&fieldManager={MANAGER}");
        let uri = format!("{}?{question}", path(key, api_version, exists));
        let (method, form) =
            if exists { (Method::PATCH, "application/merge-patch+json") } else { (Method::POST, "application/json") };
        let (status, value) = self.send_change(method, uri, form, body).await?;
        if status.is_success() {
            return Ok(DryRunOutcome::Would(value));
        }
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        let by_admission = message.contains("admission webhook");
        Ok(match status {
            StatusCode::FORBIDDEN if !by_admission => DryRunOutcome::Forbidden(message),
            _ if message.contains("does not support dry run") => DryRunOutcome::Forbidden(message),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                DryRunOutcome::Refuses(message)
            }
            status => {
                return Err(ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("dry run answered {status}: {message}"),
                ));
            }
        })
    }
}

impl ApiServer {
    /// Changes an object by a JSON Patch (RFC 6902), all of it or nothing; with `stores` off it is only tried.
    ///
    /// # Errors
    /// Those of asking. When no answer comes, the patch may have been stored: look.
    pub async fn patch(
        &self,
        key: &ObjectKey,
        api_version: &str,
        operations: &[Value],
        stores: bool,
    ) -> Result<PatchOutcome, ClusterError> {
        let dry = if stores { "" } else { "dryRun=All&" };
        let uri = format!("{}?{dry}fieldManager={MANAGER}", path(key, api_version, true));
        let body = Value::from(operations.to_vec());
        let (status, value) = self.send_change(Method::PATCH, uri, "application/json-patch+json", &body).await?;
        if status.is_success() {
            return Ok(PatchOutcome::Stored(value));
        }
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        let by_admission = message.contains("admission webhook");
        // A test that fails is told in these words, without saying which.
        let test_failed = message.contains("the server rejected our request due to an error in our request")
            || message.contains("testing value");
        Ok(match status {
            StatusCode::CONFLICT => PatchOutcome::Conflict,
            StatusCode::UNPROCESSABLE_ENTITY if test_failed => PatchOutcome::Conflict,
            StatusCode::NOT_FOUND => PatchOutcome::Refused("the object is gone".to_owned()),
            StatusCode::FORBIDDEN if !by_admission => PatchOutcome::Forbidden(message),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                PatchOutcome::Refused(message)
            }
            status => {
                return Err(ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("the patch was answered {status}: {message}"),
                ));
            }
        })
    }

    async fn send_change(
        &self,
        method: Method,
        uri: String,
        form: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), ClusterError> {
        let start = Instant::now();
        let request = Request::builder()
            .method(&method)
            .uri(&uri)
            .header(header::CONTENT_TYPE, form)
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|error| ClusterError::new(ClusterErrorKind::Config, error.to_string()))?;
        let answer = async {
            let answer = tokio::time::timeout(ANSWER, self.client.send(request))
                .await
                .map_err(|_| ClusterError::timeout(ANSWER, &self.server))?
                .map_err(|error| ClusterError::of(&error, &self.server))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST)
                .collect()
                .await
                .map_err(|error| ClusterError::new(ClusterErrorKind::Unreachable, error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let answer = answer.await;
        let told = answer.as_ref().ok().map(|(status, body)| (*status, body.len()));
        self.tell(method.as_str(), &uri, told, start);
        answer.map(|(status, body)| (status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// A question that the API takes as an object, of which it stores nothing.
    ///
    /// # Errors
    /// Those of asking.
    pub(super) async fn ask_by_post(&self, uri: String, body: &Value) -> Result<(StatusCode, Value), ClusterError> {
        self.send_change(Method::POST, uri, "application/json", body).await
    }
}

fn path(key: &ObjectKey, api_version: &str, named: bool) -> String {
    let info = key.kind.info();
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let place = if info.namespaced { format!("/namespaces/{}", key.namespace) } else { String::new() };
    let name = if named { format!("/{}", key.name) } else { String::new() };
    format!("{root}/{api_version}{place}/{}{name}", info.plural)
}
