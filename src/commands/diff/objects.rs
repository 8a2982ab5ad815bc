//! Compares objects: files with the cluster, or one source with another.

use std::collections::BTreeSet;

use serde_json::Value;

use super::DiffArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::cluster::client::ApiServer;
use crate::cluster::write::DryRunOutcome;
use crate::compare::{self, ComparedObject, ObjectState};
use crate::report::GapReport;
use crate::schema::kind::Reduction;
use crate::snapshot::{Gap, GapKind, Object, ObjectKey, Snapshot};

/// The names of the sides, the compared objects, and gaps. Without names, no objects were compared.
pub(super) type ObjectComparison = (Option<[String; 2]>, Vec<ComparedObject>, Vec<GapReport>);

/// Compares objects if `-f` or `--against` is given.
///
/// # Errors
/// If a source cannot be read, or the cluster does not answer.
pub(super) async fn compare(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    scoped: &ScopedSnapshot,
) -> Result<ObjectComparison, Failure> {
    let from = &arguments.source.from;
    let source_name = if from.is_empty() { "cluster".to_owned() } else { from.join(", ") };
    if let Some(against) = &arguments.against {
        let other = SourceArgs { from: vec![against.clone()], filename: Vec::new(), ..arguments.source.clone() };
        let other = other.read(context).await?;
        let compared = compare_snapshots(&scoped.snapshot, &other.snapshot);
        let gaps = other.snapshot.gaps.iter().map(GapReport::from).collect();
        return Ok((Some([source_name, against.clone()]), compared, gaps));
    }
    if arguments.source.filename.is_empty() {
        return Ok((None, Vec::new(), Vec::new()));
    }
    let files = arguments.source.overlay(context, scoped)?;
    let mut gaps = Vec::new();
    let mut compared = Vec::new();
    if from.is_empty() {
        let server = context.connect().await?;
        for object in files.objects.values() {
            compared.extend(compare_with_cluster(&server, object, &mut gaps).await);
        }
    } else {
        for object in files.objects.values() {
            compared.extend(compare_with_snapshot(&scoped.snapshot, object, &mut gaps));
        }
    }
    Ok((Some(["files".to_owned(), source_name]), compared, gaps))
}

/// The reason for a gap: the settings of extensions may contain passwords and are not read.
const REDUCED_KIND: &str = "objects of this kind are read only in part; compare them with: kubectl diff";

/// The gap for an object that was not compared. It always affects the answer.
fn gap(key: &ObjectKey, reason: String) -> GapReport {
    GapReport { touches_answers: true, ..GapReport::from(&Gap::new(title(key), reason, GapKind::Failed)) }
}

fn title(key: &ObjectKey) -> String {
    if key.namespace.is_empty() {
        format!("{} {}", key.kind.name(), key.name)
    } else {
        format!("{} {}/{}", key.kind.name(), key.namespace, key.name)
    }
}

fn body(object: &Object) -> Value {
    serde_json::from_str(object.body.get()).unwrap_or_default()
}

/// Compares an object from a file with the object in a snapshot. Without an API server, no defaults are applied.
fn compare_with_snapshot(snapshot: &Snapshot, object: &Object, gaps: &mut Vec<GapReport>) -> Option<ComparedObject> {
    let key = &object.key;
    if key.kind.info().reduction != Reduction::Whole {
        gaps.push(gap(key, REDUCED_KIND.to_owned()));
        return None;
    }
    let live = snapshot.objects.get(key).map(body);
    let desired = live.as_ref().map_or_else(|| body(object), |live| compare::apply_offline(live, &body(object)));
    let mut compared = compare::compare_objects(key.clone(), Some(&desired), live.as_ref());
    compared.notes.push("merged with the saved object; the defaults of the API server are not applied".to_owned());
    Some(compared)
}

/// Compares an object from a file with the object in the cluster. An object that cannot be compared becomes a gap.
async fn compare_with_cluster(
    server: &ApiServer,
    object: &Object,
    gaps: &mut Vec<GapReport>,
) -> Option<ComparedObject> {
    let key = &object.key;
    let gap = |reason: String| gap(key, reason);
    if key.kind.info().reduction != Reduction::Whole {
        gaps.push(gap(REDUCED_KIND.to_owned()));
        return None;
    }
    // The name becomes part of the request path.
    let is_valid_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    if !is_valid_name(&key.name) || !is_valid_name(&key.namespace) {
        gaps.push(gap("the name or the namespace is not valid".to_owned()));
        return None;
    }
    let file = compare::without_server_fields(&body(object));
    let live = match server.get_object(key, &object.api_version).await {
        Ok(live) => live,
        Err(error) => {
            gaps.push(gap(error.message));
            return None;
        }
    };
    let merged = live.as_ref().map_or_else(|| file.clone(), |live| compare::apply_offline(live, &file));
    let request = live.as_ref().map_or_else(|| file.clone(), |live| compare::merge_patch(live, &merged));
    let outcome = match server.dry_run(key, &object.api_version, &request, live.is_some()).await {
        Ok(outcome) => outcome,
        Err(error) => DryRunOutcome::Forbidden(error.message),
    };
    let compare_with = |desired: &Value| compare::compare_objects(key.clone(), Some(desired), live.as_ref());
    Some(match outcome {
        DryRunOutcome::Accepted(desired) => compare_with(&desired),
        DryRunOutcome::Rejected(reason) => {
            let mut compared = compare_with(&merged);
            // The object cannot be applied, even if the comparison found no change.
            compared.state = if live.is_some() { ObjectState::Differs } else { ObjectState::Missing };
            compared.notes.push(format!("the API server rejects it: {reason}"));
            compared
        }
        DryRunOutcome::Forbidden(reason) => {
            let mut compared = compare_with(&merged);
            compared.notes.push(format!("merged locally, because the server-side dry run failed: {reason}"));
            compared
        }
    })
}

/// Compares the objects of two snapshots, except kinds that are read only in part.
fn compare_snapshots(first: &Snapshot, second: &Snapshot) -> Vec<ComparedObject> {
    let keys: BTreeSet<&ObjectKey> = first.objects.keys().chain(second.objects.keys()).collect();
    let is_read_whole =
        |key: &&&ObjectKey| matches!(key.kind.info().reduction, Reduction::Whole | Reduction::MeshConfig);
    keys.iter()
        .filter(is_read_whole)
        .map(|key| {
            let (before, after) = (first.objects.get(*key).map(body), second.objects.get(*key).map(body));
            // The changes lead from the first source to the second.
            let mut compared = compare::compare_objects((*key).clone(), after.as_ref(), before.as_ref());
            compared.state = match compared.state {
                ObjectState::Missing => ObjectState::Extra,
                ObjectState::Extra => ObjectState::Missing,
                state => state,
            };
            if compared.state != ObjectState::Same && (before.is_none() || after.is_none()) {
                let side = if before.is_none() { "second" } else { "first" };
                compared.changes = vec![format!("exists only in the {side} source")];
            }
            compared
        })
        .collect()
}
