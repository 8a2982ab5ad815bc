//! Asking the API server about ourselves: who we are, and what we may do.

use serde_json::{Value, json};

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::doctor::rights::{RbacRule, RequiredRight};

impl ApiServer {
    /// The user as the cluster knows it.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn who_am_i(&self) -> Result<String, ClusterError> {
        let value = self.review("authentication.k8s.io/v1", "SelfSubjectReview", &json!({})).await?;
        let name = value["userInfo"]["username"].as_str();
        name.map(str::to_owned)
            .ok_or_else(|| ClusterError::new(ClusterErrorKind::Server, "who you are was not answered"))
    }

    /// What we may do in a namespace, and whether the answer may lack something.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn rules_in(&self, namespace: &str) -> Result<(Vec<RbacRule>, bool), ClusterError> {
        let spec = json!({"spec": {"namespace": namespace}});
        let value = self.review("authorization.k8s.io/v1", "SelfSubjectRulesReview", &spec).await?;
        let rules = serde_json::from_value(value["resourceRules"].clone())
            .map_err(|error| ClusterError::new(ClusterErrorKind::Server, error.to_string()))?;
        Ok((rules, value["incomplete"] == true))
    }

    /// Whether we have a right over the whole cluster.
    ///
    /// # Errors
    /// Those of asking.
    pub async fn may_everywhere(&self, right: &RequiredRight) -> Result<bool, ClusterError> {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
        let attributes =
            json!({"group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb});
        let spec = json!({"spec": {"resourceAttributes": attributes}});
        let value = self.review("authorization.k8s.io/v1", "SelfSubjectAccessReview", &spec).await?;
        Ok(value["allowed"] == true)
    }

    /// The status of a review, which stores nothing.
    async fn review(&self, api_version: &str, kind: &str, spec: &Value) -> Result<Value, ClusterError> {
        let mut body = spec.clone();
        body["apiVersion"] = api_version.into();
        body["kind"] = kind.into();
        let uri = format!("/apis/{api_version}/{}s", kind.to_ascii_lowercase());
        let (status, mut value) = self.ask_by_post(uri, &body).await?;
        if status.is_success() {
            return Ok(value["status"].take());
        }
        let why = value["message"].as_str().unwrap_or("no reason given");
        Err(ClusterError::new(ClusterErrorKind::Server, format!("{kind} was answered {status}: {why}")))
    }
}
