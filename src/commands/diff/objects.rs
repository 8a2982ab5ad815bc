//! Files against the cluster, and one source against another.

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

/// Two sides, the objects that were compared, and what could not be.
pub(super) type ObjectComparison = (Option<[String; 2]>, Vec<ComparedObject>, Vec<GapReport>);

/// Compares objects, if that was asked for.
pub(super) async fn compare(
    context: &mut Context<'_>,
    arguments: &DiffArgs,
    read: &ScopedSnapshot,
) -> Result<ObjectComparison, Failure> {
    if let Some(against) = &arguments.against {
        let other = SourceArgs { from: vec![against.clone()], filename: Vec::new(), ..arguments.source.clone() };
        let other = other.read(context).await?;
        let name = |from: &[String]| if from.is_empty() { "cluster".to_owned() } else { from.join(", ") };
        let sides = [name(&arguments.source.from), against.clone()];
        let compared = two(&read.snapshot, &other.snapshot);
        return Ok((Some(sides), compared, other.snapshot.gaps.iter().map(GapReport::from).collect()));
    }
    if arguments.source.filename.is_empty() {
        return Ok((None, Vec::new(), Vec::new()));
    }
    let files = arguments.source.overlay(context, read)?;
    let mut gaps = Vec::new();
    let mut compared = Vec::new();
    if arguments.source.from.is_empty() {
        let server = context.connect().await?;
        for object in files.objects.values() {
            if let Some(found) = against_cluster(&server, object, &mut gaps).await {
                compared.push(found);
            }
        }
    } else {
        for (key, object) in &files.objects {
            if key.kind.info().keep != Reduction::Whole {
                gaps.push(gap(key, PART.to_owned()));
                continue;
            }
            let have = read.snapshot.objects.get(key).map(body);
            let wanted = have.as_ref().map_or_else(|| body(object), |have| compare::merged(have, &body(object)));
            let mut found = compare::compare(title(key), Some(&wanted), have.as_ref());
            found.notes.push("laid over the saved object; defaults of a server are not known".to_owned());
            compared.push(found);
        }
    }
    let source = if arguments.source.from.is_empty() { "cluster".to_owned() } else { arguments.source.from.join(", ") };
    Ok((Some(["files".to_owned(), source]), compared, gaps))
}

/// Of extensions, what they are configured with is not read: it may hold passwords.
const PART: &str = "only a part of this kind is read; compare it with: kubectl diff";

/// An object that was not compared.
fn gap(key: &ObjectKey, why: String) -> GapReport {
    GapReport { touches_answers: true, ..GapReport::from(&Gap::new(title(key), why, GapKind::Failed)) }
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

/// One file's object against the cluster's; `None` for kinds of which only a part is read.
async fn against_cluster(server: &ApiServer, object: &Object, gaps: &mut Vec<GapReport>) -> Option<ComparedObject> {
    let key = &object.key;
    let gap = |why: String| gap(key, why);
    if key.kind.info().keep != Reduction::Whole {
        gaps.push(gap(PART.to_owned()));
        return None;
    }
    let is_name = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    if !is_name(&key.name) || !is_name(&key.namespace) {
        gaps.push(gap("no object can have this name".to_owned()));
        return None;
    }
    let file = compare::sendable(&body(object));
    let have = match server.object(key, &object.api_version).await {
        Ok(have) => have,
        Err(error) => {
            gaps.push(gap(error.message));
            return None;
        }
    };
    let merged = have.as_ref().map_or_else(|| file.clone(), |have| compare::merged(have, &file));
    let sent = have.as_ref().map_or_else(|| file.clone(), |have| compare::merge_patch(have, &merged));
    let tried = match server.dry_run(key, &object.api_version, &sent, have.is_some()).await {
        Ok(tried) => tried,
        Err(error) => DryRunOutcome::Forbidden(error.message),
    };
    let compared = |wanted: &Value| compare::compare(title(key), Some(wanted), have.as_ref());
    let found = match tried {
        DryRunOutcome::Would(wanted) => compared(&wanted),
        DryRunOutcome::Refuses(why) => {
            let mut found = compared(&merged);
            // Whatever it would change, it is not what is wanted.
            found.state = if have.is_some() { ObjectState::Differs } else { ObjectState::Missing };
            found.notes.push(format!("the server refuses it: {why}"));
            found
        }
        DryRunOutcome::Forbidden(why) => {
            let mut found = compared(&merged);
            found.notes.push(format!("laid over what is there, since the server did no dry run: {why}"));
            found
        }
    };
    Some(found)
}

/// The objects of two sources that are kept whole: of extensions, what they are configured with is not kept.
fn two(first: &Snapshot, second: &Snapshot) -> Vec<ComparedObject> {
    let keys: BTreeSet<&ObjectKey> = first.objects.keys().chain(second.objects.keys()).collect();
    let whole = |key: &&&ObjectKey| matches!(key.kind.info().keep, Reduction::Whole | Reduction::MeshConfig);
    keys.iter()
        .filter(whole)
        .map(|key| {
            let (one, other) = (first.objects.get(*key).map(body), second.objects.get(*key).map(body));
            // Read as a change from the first source to the second.
            let mut found = compare::compare(title(key), other.as_ref(), one.as_ref());
            found.state = match found.state {
                ObjectState::Missing => ObjectState::Extra,
                ObjectState::Extra => ObjectState::Missing,
                state => state,
            };
            if found.state != ObjectState::Same && (one.is_none() || other.is_none()) {
                let side = if one.is_none() { "second" } else { "first" };
                found.changes = vec![format!("it is only in the {side} source")];
            }
            found
        })
        .collect()
}
