//! Reads the source (`--from`) and the overlay (`-f`) into a snapshot.
//!
//! The content of a file decides what it is, not its name. The kubeconfig is read only when the source is the cluster.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::context::Context;
use super::failure::Failure;
use super::global::{ScopeArgs, SourceArgs};
use crate::cluster::collect::{CollectScope, collect};
use crate::mesh::ResolveOptions;
use crate::render::text::safe;
use crate::schema::Kind;
use crate::snapshot::codec::CodecError;
use crate::snapshot::manifest::{self, OnMalformed};
use crate::snapshot::{Snapshot, SourceKind, SourceText, codec};
use crate::terminal::Messages;
use crate::vocabulary::nearest_name;

/// The built-in demo.
static DEMO: &str = include_str!("../demo/shop.yaml");

/// A snapshot with the namespaces in scope.
pub struct ScopedSnapshot {
    /// The source with the overlay applied.
    pub snapshot: Snapshot,
    /// The namespaces in scope. Empty means all.
    pub namespaces: BTreeSet<String>,
}

impl SourceArgs {
    /// The options for resolving the snapshot.
    pub fn options(&self, scope: &ScopeArgs) -> ResolveOptions {
        ResolveOptions {
            istio_version: self.istio_version,
            istio_namespace: Some(scope.istio_namespace.clone()),
            revision: scope.revision.clone(),
            cluster_domain: self.cluster_domain.clone(),
        }
    }

    /// Reads the source and applies the overlay.
    ///
    /// # Errors
    /// If the source is missing, malformed or unreachable, or a namespace in scope has no objects.
    pub async fn read(&self, context: &mut Context<'_>) -> Result<ScopedSnapshot, Failure> {
        let stdin_count = self.from.iter().chain(&self.filename).filter(|path| *path == "-").count();
        if stdin_count > 1 {
            return Err(Failure::usage("cannot read standard input (-) more than once"));
        }
        if context.scope.all_namespaces && context.scope.namespace.is_some() {
            return Err(Failure::usage("cannot combine -A with -n"));
        }
        let default_namespace = context.scope.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let mut scoped = if self.from.is_empty() {
            read_cluster(context, &self.kinds).await?
        } else {
            let snapshot = read_files(&self.from, &self.file_options(&default_namespace, &context.messages))?;
            ScopedSnapshot { snapshot, namespaces: context.scope.namespace.iter().cloned().collect() }
        };
        if !self.filename.is_empty() {
            let overlay = self.overlay(context, &scoped)?;
            // The report must cover the overlay, whatever its namespaces are.
            if context.scope.namespace.is_none() && !scoped.namespaces.is_empty() {
                scoped.namespaces.extend(overlay.objects.keys().map(|key| key.namespace.to_string()));
                scoped.namespaces.remove("");
            }
            scoped.snapshot.apply_overlay(overlay);
        }
        if scoped.snapshot.source == SourceKind::Manifests {
            scoped.snapshot.add_gaps_for_absent_kinds();
        }
        if context.scope.namespace.is_some() || !self.reads_all_namespaces {
            for namespace in &scoped.namespaces {
                require_objects(&scoped.snapshot, namespace)?;
            }
        }
        Ok(scoped)
    }

    /// Reads the files of `-f`. Objects without a namespace get the namespace in scope.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn overlay(&self, context: &Context<'_>, scoped: &ScopedSnapshot) -> Result<Snapshot, Failure> {
        let default_namespace = context.scope.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let namespace = match (&context.scope.namespace, self.from.is_empty()) {
            (None, true) => scoped.namespaces.first().cloned().unwrap_or(default_namespace),
            _ => default_namespace,
        };
        let mut overlay = Snapshot::new(SourceKind::Manifests);
        for path in &self.filename {
            read_manifests(&mut overlay, path, &self.file_options(&namespace, &context.messages))?;
        }
        Ok(overlay)
    }

    fn file_options<'a>(&'a self, namespace: &'a str, messages: &'a Messages) -> FileReadOptions<'a> {
        let on_malformed = if self.keep_going { OnMalformed::KeepGoing } else { OnMalformed::Stop };
        let max_decompressed = self.max_source_size.unwrap_or(codec::DEFAULT_DECOMPRESSED_BYTES);
        FileReadOptions { namespace, on_malformed, excluded: &self.excluded_files, max_decompressed, messages }
    }
}

/// Rejects a namespace without objects, which is most often a typing error.
fn require_objects(snapshot: &Snapshot, namespace: &str) -> Result<(), Failure> {
    let is_present = snapshot
        .objects
        .keys()
        .any(|key| *key.namespace == *namespace || (key.kind == Kind::Namespace && *key.name == *namespace));
    if is_present {
        return Ok(());
    }
    let names: BTreeSet<&str> =
        snapshot.objects.keys().map(|key| &*key.namespace).filter(|name| !name.is_empty()).collect();
    let closest = nearest_name::closest(namespace, names, 3);
    let failure = Failure::unavailable(format!("namespace {namespace} has no objects in this source"));
    Err(if closest.is_empty() {
        failure
    } else {
        failure.hint(format!("namespaces with objects: {}", closest.join(", ")))
    })
}

async fn read_cluster(context: &mut Context<'_>, kinds: &[Kind]) -> Result<ScopedSnapshot, Failure> {
    let server = context.connect().await?;
    let namespace = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
    let namespaces: BTreeSet<String> =
        if context.scope.all_namespaces { BTreeSet::new() } else { BTreeSet::from([namespace.clone()]) };
    let scope = CollectScope {
        namespaces: namespaces.iter().cloned().collect(),
        istio_namespace: context.scope.istio_namespace.clone(),
        revision: context.scope.revision.clone(),
        kinds: kinds.to_vec(),
    };
    let bar = context.messages.progress_bar("reading the cluster");
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let snapshot = tokio::select! {
        snapshot = collect(&server, &scope, &progress) => snapshot,
        _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
    };
    bar.finish_and_clear();
    let mut snapshot = snapshot?;
    snapshot.taken_at = Some(context.env.now.clone());
    Ok(ScopedSnapshot { snapshot, namespaces })
}

struct FileReadOptions<'a> {
    /// The namespace of objects without one.
    namespace: &'a str,
    on_malformed: OnMalformed,
    /// Files to skip in directories.
    excluded: &'a [PathBuf],
    /// Largest size of compressed data when decompressed.
    max_decompressed: u64,
    messages: &'a Messages,
}

fn read_files(paths: &[String], options: &FileReadOptions<'_>) -> Result<Snapshot, Failure> {
    if let [path] = paths
        && path == "demo"
    {
        let mut snapshot = Snapshot::new(SourceKind::Demo);
        let text = Arc::new(SourceText { path: "demo".to_owned(), text: DEMO.to_owned() });
        manifest::read(&mut snapshot, text, "default", OnMalformed::Stop)
            .map_err(|error| Failure::unavailable(format!("cannot read the built-in demo: {error}")))?;
        // The demo represents a cluster, so its objects have no source lines to show.
        for object in snapshot.objects.values_mut() {
            object.position = None;
        }
        return Ok(snapshot);
    }
    if let [path] = paths
        && (path == "-" || Path::new(path).is_file())
    {
        let text = read_text(path, options)?;
        if codec::is_snapshot(&text) {
            return codec::decode(&text).map_err(|error| {
                Failure::unavailable(format!("cannot read the snapshot {path}"))
                    .cause(error)
                    .hint("create it again with: kubectl grpcmesh snapshot -o FILE")
            });
        }
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        add_manifest(&mut snapshot, path, text, options)?;
        return reject_empty(snapshot, paths);
    }
    let mut snapshot = Snapshot::new(SourceKind::Manifests);
    for path in paths {
        read_manifests(&mut snapshot, path, options)?;
    }
    reject_empty(snapshot, paths)
}

fn reject_empty(snapshot: Snapshot, paths: &[String]) -> Result<Snapshot, Failure> {
    let is_empty = snapshot.objects.is_empty() && snapshot.unserved.is_empty();
    if is_empty && snapshot.gaps.is_empty() {
        return Err(Failure::unavailable(format!(
            "{} contains no Services, workloads, Istio or Gateway API objects",
            paths.join(", ")
        ))
        .hint("check the path"));
    }
    Ok(snapshot)
}

/// Reads manifests from a file, a directory or standard input.
fn read_manifests(snapshot: &mut Snapshot, path: &str, options: &FileReadOptions<'_>) -> Result<(), Failure> {
    if path == "demo" {
        return Err(
            Failure::usage("cannot combine demo with other sources").hint("to read a file named demo, use ./demo")
        );
    }
    if path == "-" || !Path::new(path).is_dir() {
        let text = read_text(path, options)?;
        if codec::is_snapshot(&text) {
            return Err(Failure::usage(format!("cannot combine the snapshot {path} with other sources")));
        }
        return add_manifest(snapshot, path, text, options);
    }
    let mut files = Vec::new();
    find_manifests(Path::new(path), &mut files, &mut BTreeSet::new())
        .map_err(|error| Failure::unavailable(format!("cannot read the directory {}", safe(path))).cause(error))?;
    files.retain(|file| !options.excluded.iter().any(|excluded| is_same_file(file, excluded)));
    files.sort();
    if files.is_empty() {
        return Err(Failure::unavailable(format!("{} contains no .yaml, .yml or .json files", safe(path)))
            .hint("check the path"));
    }
    for file in files {
        let name = file.display().to_string();
        let text = read_text(&name, options)?;
        if codec::is_snapshot(&text) {
            options.messages.warning(&format!("skipped {name}: snapshots in a directory are not read"));
            continue;
        }
        add_manifest(snapshot, &name, text, options)?;
    }
    Ok(())
}

fn is_same_file(file: &Path, other: &Path) -> bool {
    matches!((file.canonicalize(), other.canonicalize()), (Ok(file), Ok(other)) if file == other)
}

/// Adds the files with the extension of a manifest, recursively. Skips hidden files and symbolic link loops.
fn find_manifests(directory: &Path, files: &mut Vec<PathBuf>, visited: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if !visited.insert(directory.canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_hidden = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            find_manifests(&path, files, visited)?;
        } else if path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Maximum size of an input in bytes, ten times the size of a mesh with 100,000 Services.
const MAX_BYTES: u64 = 2 << 30;

fn read_text(path: &str, options: &FileReadOptions<'_>) -> Result<String, Failure> {
    let displayed = safe(path);
    let mut bytes = Vec::new();
    let result = if path == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    if let Err(error) = result {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "--from accepts demo, a snapshot, a manifest, a directory, or - for standard input"
            }
            std::io::ErrorKind::PermissionDenied => "check the permissions of the file with: ls -l",
            _ => "check that it is a regular file, or use - for standard input",
        };
        return Err(Failure::unavailable(format!("cannot read {displayed}")).cause(error).hint(hint));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::unavailable(format!("{displayed} is larger than 2 GiB"))
            .hint("check the path: even the snapshot of a large mesh is much smaller"));
    }
    if codec::is_gzip(&bytes) {
        bytes = codec::inflate(&bytes, options.max_decompressed).map_err(|error| {
            let hint = match error {
                CodecError::TooLarge(_) => "if you trust the file, raise the limit with --max-source-size",
                _ => "the file is damaged or truncated: create it again",
            };
            Failure::unavailable(format!("cannot read {displayed}")).cause(error).hint(hint)
        })?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = memchr::memchr_iter(b'\n', valid).count() + 1;
        Failure::unavailable(format!("{displayed}:{line}: not UTF-8 text"))
            .hint("convert the file to UTF-8, for example with iconv")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn add_manifest(
    snapshot: &mut Snapshot,
    path: &str,
    text: String,
    options: &FileReadOptions<'_>,
) -> Result<(), Failure> {
    let is_template = text.contains("{{");
    let text = Arc::new(SourceText { path: path.to_owned(), text });
    manifest::read(snapshot, text, options.namespace, options.on_malformed).map(|_| ()).map_err(|error| {
        let failure = Failure::unavailable(safe(&error.to_string()).into_owned());
        if is_template {
            failure.hint("render the Helm template first: helm template CHART | kubectl grpcmesh inspect --from -")
        } else {
            failure.hint("use --keep-going to treat malformed documents as gaps")
        }
    })
}
