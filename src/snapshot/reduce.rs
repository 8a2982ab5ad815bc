//! What a snapshot keeps of an object.
//!
//! Pods, EndpointSlices and workloads are reduced to the shapes in [`crate::schema::core`]; everything else keeps
//! its body. Of managed fields only the managers stay, the last-applied annotation goes, and the namespace that
//! the object turned out to have is written into it.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::raw::RawEntries;
use crate::schema::core::{self as shapes, MeshConfigMap};
use crate::schema::kind::Reduction;
use crate::schema::{NullableList, meta::ObjectMeta};

/// The kept form of an object's body, or why its shape is wrong.
pub(crate) fn reduce(
    keep: Reduction,
    body: &RawValue,
    namespace: Option<&str>,
) -> Result<Box<RawValue>, serde_json::Error> {
    match keep {
        Reduction::Whole => Ok(whole(body, namespace)),
        Reduction::WithoutSettings => {
            let mut object: serde_json::Value = serde_json::from_str(body.get())?;
            settings(&mut object);
            Ok(whole(&to_raw_value(&object)?, namespace))
        }
        Reduction::Metadata => {
            #[derive(Default, Serialize, Deserialize)]
            #[serde(default)]
            struct MetadataOnly {
                metadata: ObjectMeta,
            }
            let mut object: MetadataOnly = serde_json::from_str(body.get())?;
            metadata(&mut object.metadata, namespace);
            to_raw_value(&object)
        }
        Reduction::Pod => {
            let mut pod: shapes::Pod = serde_json::from_str(body.get())?;
            metadata(&mut pod.metadata, namespace);
            pod_spec(&mut pod.spec);
            to_raw_value(&pod)
        }
        Reduction::EndpointSlice => {
            let mut slice: shapes::EndpointSlice = serde_json::from_str(body.get())?;
            metadata(&mut slice.metadata, namespace);
            to_raw_value(&slice)
        }
        Reduction::PodTemplate => {
            let mut workload: shapes::WorkloadObject = serde_json::from_str(body.get())?;
            if let Some(job) = workload.spec.job_template.take() {
                workload.spec.template = job.spec.template;
            }
            metadata(&mut workload.metadata, namespace);
            metadata(&mut workload.spec.template.metadata, None);
            pod_spec(&mut workload.spec.template.spec);
            to_raw_value(&workload)
        }
        Reduction::MeshConfig => {
            let mut map: MeshConfigMap = serde_json::from_str(body.get())?;
            metadata(&mut map.metadata, namespace);
            to_raw_value(&map)
        }
    }
}

/// What extensions are told is theirs, and may hold passwords; that they are told something is all we use.
fn settings(object: &mut serde_json::Value) {
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

fn metadata(meta: &mut ObjectMeta, namespace: Option<&str>) {
    meta.annotations.retain(|key, _| shapes::keeps_annotation(key));
    if let Some(namespace) = namespace {
        meta.namespace = Some(namespace.to_owned());
    }
}

fn pod_spec(spec: &mut shapes::PodSpec) {
    for container in spec.containers.0.iter_mut().chain(spec.init_containers.0.iter_mut()) {
        container.args = NullableList(shapes::keeps_args(&container.name, &container.args));
        for probe in [&mut container.readiness_probe, &mut container.liveness_probe, &mut container.startup_probe] {
            if probe.as_ref().is_some_and(|probe| probe.grpc.is_none()) {
                *probe = None;
            }
        }
    }
}

/// Changes only `metadata`, and only when there is something to change.
fn whole(body: &RawValue, namespace: Option<&str>) -> Box<RawValue> {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let Some(mut object) = RawEntries::parse(body) else {
        return body.to_owned();
    };
    let Some(mut meta) = object.get("metadata").and_then(RawEntries::parse) else {
        return body.to_owned();
    };
    let mut changed = false;
    if let Some(managers) = meta.get("managedFields").and_then(managers) {
        meta.set("managedFields", managers);
        changed = true;
    }
    let annotations = meta
        .get("annotations")
        .and_then(RawEntries::parse)
        .and_then(|mut annotations| annotations.remove(LAST_APPLIED).then(|| annotations.to_raw()));
    if let Some(annotations) = annotations {
        meta.set("annotations", annotations);
        changed = true;
    }
    if let Some(namespace) = namespace {
        let same = meta
            .get("namespace")
            .and_then(|value| serde_json::from_str::<std::borrow::Cow<'_, str>>(value.get()).ok())
            .is_some_and(|have| have == namespace);
        if !same && let Ok(value) = to_raw_value(namespace) {
            meta.set("namespace", value);
            changed = true;
        }
    }
    if !changed {
        return body.to_owned();
    }
    let meta = meta.to_raw();
    object.set("metadata", meta);
    object.to_raw()
}

/// The list of managers with their operation and time, without the fields they own.
fn managers(managed: &RawValue) -> Option<Box<RawValue>> {
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
    fn managed_fields_become_managers_and_last_applied_goes() {
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
    fn a_pod_keeps_no_environment_and_no_arguments() {
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
    fn a_cron_job_lifts_its_template() {
        let body = raw(
            r#"{"metadata":{"name":"a"},"spec":{"jobTemplate":{"spec":{"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[]}}}}}}"#,
        );
        let reduced = reduce(Reduction::PodTemplate, &body, None).unwrap();
        assert!(reduced.get().contains(r#""template":{"metadata":{"name":"","labels":{"app":"a"}}"#), "{reduced}");
    }
}
