//! Reviews: the API server's answers about the current user and its permissions.

use serde_json::{Value, json};

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::doctor::rights::{RbacRule, RequiredRight};

impl ApiServer {
    /// Gets the name of the current user.
    ///
    /// # Errors
    /// The request fails.
    pub async fn current_user(&self) -> Result<String, ClusterError> {
        let value = self.review("authentication.k8s.io/v1", "SelfSubjectReview", &json!({})).await?;
        let name = value.pointer("/userInfo/username").and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| {
            ClusterError::new(
                ClusterErrorKind::Server,
                "cannot read the current user: the SelfSubjectReview has no username",
            )
        })
    }

    /// Gets the current user's permissions in a namespace, and whether the list may be incomplete.
    ///
    /// # Errors
    /// The request fails.
    pub async fn rules_in_namespace(&self, namespace: &str) -> Result<(Vec<RbacRule>, bool), ClusterError> {
        let spec = json!({"spec": {"namespace": namespace}});
        let value = self.review("authorization.k8s.io/v1", "SelfSubjectRulesReview", &spec).await?;
        let rules = serde_json::from_value(value.get("resourceRules").cloned().unwrap_or_default())
            .map_err(|error| ClusterError::new(ClusterErrorKind::Server, error.to_string()))?;
        Ok((rules, value.get("incomplete") == Some(&Value::Bool(true))))
    }

    /// Reports whether the current user has a permission in the whole cluster.
    ///
    /// # Errors
    /// The request fails.
    pub async fn is_allowed_cluster_wide(&self, right: &RequiredRight) -> Result<bool, ClusterError> {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
        let attributes =
            json!({"group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb});
        let spec = json!({"spec": {"resourceAttributes": attributes}});
        let value = self.review("authorization.k8s.io/v1", "SelfSubjectAccessReview", &spec).await?;
        Ok(value.get("allowed") == Some(&Value::Bool(true)))
    }

    /// Posts a review, which stores nothing, and returns its status.
    async fn review(&self, api_version: &str, kind: &str, spec: &Value) -> Result<Value, ClusterError> {
        let mut body = json!({"apiVersion": api_version, "kind": kind});
        if let (Some(fields), Some(spec)) = (body.as_object_mut(), spec.as_object()) {
            fields.extend(spec.clone());
        }
        let uri = format!("/apis/{api_version}/{}s", kind.to_ascii_lowercase());
        let limit = self.limit(self.timeout);
        let (status, mut value) = self.within_limit(limit, self.post_review(uri, &body)).await?;
        if status.is_success() {
            // A server may send anything, even a list.
            return Ok(value.get_mut("status").map(Value::take).unwrap_or_default());
        }
        let reason = value.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        Err(ClusterError::new(ClusterErrorKind::Server, format!("cannot create a {kind}: {status} {reason}")))
    }
}
