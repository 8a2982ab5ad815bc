//! Writes to a cluster: dry runs, which store nothing, and a JSON Patch of one object, which is stored when all of its tests
//! pass. No other file changes objects in a cluster.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::snapshot::ObjectKey;

/// Limit of one request without `--request-timeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest response that is read.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Field manager of all writes.
const FIELD_MANAGER: &str = "kubectl-grpcmesh";

/// The result of a patch.
#[derive(Debug)]
pub enum PatchOutcome {
    /// The object as it is stored now, or would be after a dry run.
    Accepted(Value),
    /// A test of the patch failed: another client changed the object in the meantime.
    Conflict,
    /// The object does not exist.
    NotFound,
    /// The server is too busy and did not process the patch, and how long to wait, if it says so.
    Busy { reason: String, retry_after: Option<Duration> },
    /// The API server or a webhook rejects the patch, with the reason.
    Rejected(String),
    /// The user may not patch the object, with the reason.
    Forbidden(String),
}

/// The result of a dry run.
#[derive(Debug)]
pub enum DryRunOutcome {
    /// The object as the API server would store it, after defaulting and admission.
    Accepted(Value),
    /// The API server or a webhook rejects the object, with the reason.
    Rejected(String),
    /// The user may not try it, or a webhook does not support dry runs, with the reason.
    Forbidden(String),
}

impl ApiServer {
    /// Gets an object; `None` when it does not exist.
    ///
    /// # Errors
    /// The request fails.
    pub async fn get_object(&self, key: &ObjectKey, api_version: &str) -> Result<Option<Value>, ClusterError> {
        match self.get(&path(key, api_version, true), REQUEST_TIMEOUT).await {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
                ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("cannot decode {} {}/{}: {error}", key.kind.name(), key.namespace, key.name),
                )
            }),
            Err(error) if error.kind == ClusterErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Applies an object in a dry run: as a merge patch when it exists, else as a new object.
    ///
    /// # Errors
    /// The request fails.
    pub async fn dry_run(
        &self,
        key: &ObjectKey,
        api_version: &str,
        body: &Value,
        exists: bool,
    ) -> Result<DryRunOutcome, ClusterError> {
        let query = format!("dryRun=All&fieldManager={FIELD_MANAGER}");
        let uri = format!("{}?{query}", path(key, api_version, exists));
        let (method, content_type) =
            if exists { (Method::PATCH, "application/merge-patch+json") } else { (Method::POST, "application/json") };
        let (status, value, _) = self.send_write(method, uri, content_type, body).await?;
        if status.is_success() {
            return Ok(DryRunOutcome::Accepted(value));
        }
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        let is_from_webhook = message.contains("admission webhook");
        Ok(match status {
            StatusCode::FORBIDDEN if !is_from_webhook => DryRunOutcome::Forbidden(message),
            _ if message.contains("does not support dry run") => DryRunOutcome::Forbidden(message),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                DryRunOutcome::Rejected(message)
            }
            status => {
                return Err(ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("cannot dry-run {} {}/{}: {status} {message}", key.kind.name(), key.namespace, key.name),
                ));
            }
        })
    }
}

impl ApiServer {
    /// Applies a JSON Patch (RFC 6902) to an object, atomically. Without `stores` it is a dry run.
    ///
    /// # Errors
    /// The request fails. After a timeout the patch may be stored all the same: get the object to find out.
    pub async fn patch(
        &self,
        key: &ObjectKey,
        api_version: &str,
        operations: &[Value],
        stores: bool,
    ) -> Result<PatchOutcome, ClusterError> {
        let dry_run = if stores { "" } else { "dryRun=All&" };
        let uri = format!("{}?{dry_run}fieldManager={FIELD_MANAGER}", path(key, api_version, true));
        let body = Value::from(operations.to_vec());
        let (status, value, retry_after) =
            self.send_write(Method::PATCH, uri, "application/json-patch+json", &body).await?;
        if status.is_success() {
            return Ok(PatchOutcome::Accepted(value));
        }
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        let is_from_webhook = message.contains("admission webhook");
        // The API server reports a failed test with one of these messages, without naming the test.
        let test_failed = message.contains("the server rejected our request due to an error in our request")
            || message.contains("testing value");
        Ok(match status {
            StatusCode::CONFLICT => PatchOutcome::Conflict,
            StatusCode::UNPROCESSABLE_ENTITY if test_failed => PatchOutcome::Conflict,
            StatusCode::NOT_FOUND => PatchOutcome::NotFound,
            StatusCode::TOO_MANY_REQUESTS => PatchOutcome::Busy { reason: message, retry_after },
            StatusCode::FORBIDDEN if !is_from_webhook => PatchOutcome::Forbidden(message),
            status if status.is_client_error() => PatchOutcome::Rejected(message),
            status => {
                return Err(ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("cannot patch {} {}/{}: {status} {message}", key.kind.name(), key.namespace, key.name),
                ));
            }
        })
    }

    async fn send_write(
        &self,
        method: Method,
        uri: String,
        content_type: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value, Option<Duration>), ClusterError> {
        let start = Instant::now();
        let request = Request::builder()
            .method(&method)
            .uri(&uri)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|error| ClusterError::new(ClusterErrorKind::Config, error.to_string()))?;
        let response = async {
            let response =
                self.client.send(request).await.map_err(|error| ClusterError::from_client(&error, &self.server))?;
            let status = response.status();
            let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
                .collect()
                .await
                .map_err(|error| ClusterError::new(ClusterErrorKind::Unreachable, error.to_string()))?;
            Ok((status, body.to_bytes(), retry_after))
        };
        let response = self.within_limit(self.limit(REQUEST_TIMEOUT), response).await;
        let size = response.as_ref().ok().map(|(status, body, _)| (*status, body.len()));
        self.report_request(method.as_str(), &uri, size, start);
        response
            .map(|(status, body, retry_after)| (status, serde_json::from_slice(&body).unwrap_or_default(), retry_after))
    }

    /// Posts a review object, which the API server answers without storing it.
    ///
    /// # Errors
    /// The request fails.
    pub(super) async fn post_review(&self, uri: String, body: &Value) -> Result<(StatusCode, Value), ClusterError> {
        let (status, value, _) = self.send_write(Method::POST, uri, "application/json", body).await?;
        Ok((status, value))
    }
}

fn path(key: &ObjectKey, api_version: &str, has_name: bool) -> String {
    let info = key.kind.info();
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let namespace = if info.namespaced { format!("/namespaces/{}", key.namespace) } else { String::new() };
    let name = if has_name { format!("/{}", key.name) } else { String::new() };
    format!("{root}/{api_version}{namespace}/{}{name}", info.plural)
}
