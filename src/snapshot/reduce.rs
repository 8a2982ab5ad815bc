//! Reduces objects to the part that a snapshot keeps.
//!
//! Pods, EndpointSlices and workloads are reduced to the types in [`crate::schema::core`]. Other objects keep their body,
//! except that managed fields are reduced to their managers and the last-applied annotation is removed. The effective
//! namespace of the object is written into its metadata.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::raw::RawEntries;
use super::secrets;
use crate::schema::core::{self as shapes, MeshConfigMap};
use crate::schema::kind::Reduction;
use crate::schema::{NullableList, meta::ObjectMeta};

/// Reduces an object's body.
///
/// # Errors
/// The body does not have the shape of its kind.
pub(crate) fn reduce(
    reduction: Reduction,
    body: &RawValue,
    namespace: Option<&str>,
) -> Result<Box<RawValue>, serde_json::Error> {
    match reduction {
        Reduction::Whole if secrets::may_hold_secrets(body.get()) => {
            // A body that is nested too deeply for a value has no fields that this program reads.
            let Ok(mut object) = serde_json::from_str(body.get()) else {
                return Ok(reduce_body_metadata(body, namespace));
            };
            secrets::clear(&mut object);
            Ok(reduce_body_metadata(&to_raw_value(&object)?, namespace))
        }
        Reduction::Whole => Ok(reduce_body_metadata(body, namespace)),
        Reduction::WithoutSettings => {
            let mut object: serde_json::Value = serde_json::from_str(body.get())?;
            clear_settings(&mut object);
            secrets::clear(&mut object);
            Ok(reduce_body_metadata(&to_raw_value(&object)?, namespace))
        }
        Reduction::Metadata => {
            #[derive(Default, Serialize, Deserialize)]
            #[serde(default)]
            struct MetadataOnly {
                metadata: ObjectMeta,
            }
            let mut object: MetadataOnly = serde_json::from_str(body.get())?;
            reduce_metadata(&mut object.metadata, namespace);
            to_raw_value(&object)
        }
        Reduction::Pod => {
            let mut pod: shapes::Pod = serde_json::from_str(body.get())?;
            reduce_metadata(&mut pod.metadata, namespace);
            reduce_pod_spec(&mut pod.spec);
            to_raw_value(&pod)
        }
        Reduction::EndpointSlice => {
            let mut slice: shapes::EndpointSlice = serde_json::from_str(body.get())?;
            reduce_metadata(&mut slice.metadata, namespace);
            to_raw_value(&slice)
        }
        Reduction::PodTemplate => {
            let mut workload: shapes::WorkloadObject = serde_json::from_str(body.get())?;
            if let Some(job) = workload.spec.job_template.take() {
                workload.spec.template = job.spec.template;
            }
            reduce_metadata(&mut workload.metadata, namespace);
            reduce_metadata(&mut workload.spec.template.metadata, None);
            reduce_pod_spec(&mut workload.spec.template.spec);
            to_raw_value(&workload)
        }
        Reduction::MeshConfig => {
            let mut map: MeshConfigMap = serde_json::from_str(body.get())?;
            reduce_metadata(&mut map.metadata, namespace);
            map.data.mesh = map.data.mesh.as_deref().map(secrets::reduce_mesh_config);
            to_raw_value(&map)
        }
    }
}

/// Clears the settings of Envoy and of plugins, which may hold passwords. Only their presence matters here.
fn clear_settings(object: &mut serde_json::Value) {
    for patch in
        object.pointer_mut("/spec/configPatches").and_then(serde_json::Value::as_array_mut).into_iter().flatten()
    {
        if let Some(value) = patch.pointer_mut("/patch/value") {
            *value = serde_json::json!({});
        }
    }
    if let Some(config) = object.pointer_mut("/spec/pluginConfig") {
        *config = serde_json::json!({});
    }
    for variable in
        object.pointer_mut("/spec/vmConfig/env").and_then(serde_json::Value::as_array_mut).into_iter().flatten()
    {
        if let Some(value) = variable.get_mut("value") {
            *value = "".into();
        }
    }
}

fn reduce_metadata(meta: &mut ObjectMeta, namespace: Option<&str>) {
    meta.annotations.retain(|key, _| shapes::retains_annotation(key) && secrets::keeps_annotation(key));
    if let Some(namespace) = namespace {
        meta.namespace = Some(namespace.to_owned());
    }
}

fn reduce_pod_spec(spec: &mut shapes::PodSpec) {
    // The API server writes both names.
    let older = spec.service_account.take();
    spec.service_account_name = spec.service_account_name.take().or(older);
    for container in spec.containers.0.iter_mut().chain(spec.init_containers.0.iter_mut()) {
        container.args = NullableList(shapes::retained_args(&container.name, &container.args));
        let name = &container.name;
        container.env.0.retain(|variable| shapes::retains_variable(name, &variable.name));
        for probe in [&mut container.readiness_probe, &mut container.liveness_probe, &mut container.startup_probe] {
            if probe.as_ref().is_some_and(|probe| probe.grpc.is_none()) {
                *probe = None;
            }
        }
    }
}

/// Reduces only `metadata`. Returns the body unchanged when that has no effect.
fn reduce_body_metadata(body: &RawValue, namespace: Option<&str>) -> Box<RawValue> {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let Some(mut object) = RawEntries::parse(body) else {
        return body.to_owned();
    };
    let Some(mut meta) = object.get("metadata").and_then(RawEntries::parse) else {
        return body.to_owned();
    };
    let mut is_changed = false;
    if let Some(managers) = meta.get("managedFields").and_then(reduce_managed_fields) {
        meta.set("managedFields", managers);
        is_changed = true;
    }
    let annotations = meta
        .get("annotations")
        .and_then(RawEntries::parse)
        .and_then(|mut annotations| annotations.remove(LAST_APPLIED).then(|| annotations.to_raw()));
    if let Some(annotations) = annotations {
        meta.set("annotations", annotations);
        is_changed = true;
    }
    if let Some(namespace) = namespace {
        let is_same = meta
            .get("namespace")
            .and_then(|value| serde_json::from_str::<std::borrow::Cow<'_, str>>(value.get()).ok())
            .is_some_and(|current| current == namespace);
        if !is_same && let Ok(value) = to_raw_value(namespace) {
            meta.set("namespace", value);
            is_changed = true;
        }
    }
    if !is_changed {
        return body.to_owned();
    }
    let meta = meta.to_raw();
    object.set("metadata", meta);
    object.to_raw()
}

/// Reduces managed fields to manager, operation and time.
fn reduce_managed_fields(managed: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Serialize, Deserialize)]
    struct Manager {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manager: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operation: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        time: Option<String>,
    }
    let managers: Vec<Manager> = serde_json::from_str(managed.get()).ok()?;
    to_raw_value(&managers).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn removes_managed_fields_and_the_last_applied_annotation() {
        let body = raw(
            r#"{"kind":"Service","metadata":{"name":"a","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","x":"y"},"managedFields":[{"manager":"kubectl","operation":"Apply","fieldsV1":{"f:spec":{}}}]},"spec":{"z":1}}"#,
        );
        let reduced = reduce(Reduction::Whole, &body, Some("shop")).unwrap();
        assert_eq!(
            reduced.get(),
            r#"{"kind":"Service","metadata":{"namespace":"shop","name":"a","annotations":{"x":"y"},"managedFields":[{"manager":"kubectl","operation":"Apply"}]},"spec":{"z":1}}"#
        );
    }

    #[test]
    fn removes_environment_and_arguments_of_pods() {
        let body = raw(
            r#"{"metadata":{"name":"a","annotations":{"x":"y","sidecar.istio.io/inject":"true"}},"spec":{"containers":[{"name":"app","args":["--password=x"],"env":[{"name":"TOKEN","value":"t"}],"readinessProbe":{"httpGet":{"port":1}}},{"name":"istio-proxy","args":["proxy","sidecar","--x"]}]}}"#,
        );
        let reduced = reduce(Reduction::Pod, &body, Some("shop")).unwrap();
        assert_eq!(
            reduced.get(),
            r#"{"metadata":{"name":"a","namespace":"shop","annotations":{"sidecar.istio.io/inject":"true"}},"spec":{"containers":[{"name":"app"},{"name":"istio-proxy","args":["proxy","sidecar"]}]}}"#
        );
    }

    #[test]
    fn moves_the_pod_template_of_a_cron_job() {
        let body = raw(
            r#"{"metadata":{"name":"a"},"spec":{"jobTemplate":{"spec":{"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[]}}}}}}"#,
        );
        let reduced = reduce(Reduction::PodTemplate, &body, None).unwrap();
        assert!(reduced.get().contains(r#""template":{"metadata":{"name":"","labels":{"app":"a"}}"#), "{reduced}");
    }
}
