//! `--from` and `-f`: from words to a snapshot.
//!
//! The kind of a file is recognised by its content. A kubeconfig is opened only when the cluster is meant.

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
use crate::snapshot::manifest::{self, OnMalformed};
use crate::snapshot::{Snapshot, SourceKind, SourceText, codec};
use crate::terminal::Messages;
use crate::vocabulary::nearest_name;

/// The built-in example.
static DEMO: &str = include_str!("../demo/shop.yaml");

/// A snapshot with the namespaces that are meant.
pub struct ScopedSnapshot {
    /// What was read, the overlay laid over it.
    pub snapshot: Snapshot,
    /// Namespaces that are shown; empty is all.
    pub namespaces: BTreeSet<String>,
}

impl SourceArgs {
    /// Options of the resolved model.
    pub fn options(&self, scope: &ScopeArgs) -> ResolveOptions {
        ResolveOptions {
            istio_version: self.istio_version,
            istio_namespace: Some(scope.istio_namespace.clone()),
            revision: scope.revision.clone(),
            cluster_domain: self.cluster_domain.clone(),
        }
    }

    /// Reads the source and lays the overlay over it.
    ///
    /// # Errors
    /// A source that is not there, is malformed, or cannot be reached.
    pub async fn read(&self, context: &mut Context<'_>) -> Result<ScopedSnapshot, Failure> {
        let stdins = self.from.iter().chain(&self.filename).filter(|word| *word == "-").count();
        if stdins > 1 {
            return Err(Failure::usage("standard input (-) can be read only once"));
        }
        if context.scope.all_namespaces && context.scope.namespace.is_some() {
            return Err(Failure::usage("-A and -n exclude each other"));
        }
        let default_namespace = context.scope.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let mut read = if self.from.is_empty() {
            live(context).await?
        } else {
            let snapshot = offline(&self.from, &self.reading(&default_namespace, &context.messages))?;
            ScopedSnapshot { snapshot, namespaces: context.scope.namespace.iter().cloned().collect() }
        };
        if !self.filename.is_empty() {
            let overlay = self.overlay(context, &read)?;
            // What is laid over is what the user asks about, wherever it lives.
            if context.scope.namespace.is_none() && !read.namespaces.is_empty() {
                read.namespaces.extend(overlay.objects.keys().map(|key| key.namespace.to_string()));
                read.namespaces.remove("");
            }
            read.snapshot.lay_over(overlay);
        }
        if read.snapshot.source == SourceKind::Manifests {
            read.snapshot.note_absent_kinds();
        }
        for namespace in &read.namespaces {
            let known = read.snapshot.objects.keys().any(|key| {
                &*key.namespace == namespace || (key.kind == crate::schema::Kind::Namespace && &*key.name == namespace)
            });
            if !known {
                let names: BTreeSet<&str> =
                    read.snapshot.objects.keys().map(|key| &*key.namespace).filter(|ns| !ns.is_empty()).collect();
                let near = nearest_name::closest(namespace, names, 3);
                let failure = Failure::source(format!("there is nothing in namespace \"{namespace}\""));
                return Err(if near.is_empty() {
                    failure
                } else {
                    failure.hint(format!("namespaces with objects: {}", near.join(", ")))
                });
            }
        }
        Ok(read)
    }

    /// Reads the files of `-f`. Objects without a namespace get the one that is meant.
    ///
    /// # Errors
    /// A file that is not there, or is malformed.
    pub fn overlay(&self, context: &Context<'_>, read: &ScopedSnapshot) -> Result<Snapshot, Failure> {
        let default_namespace = context.scope.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let namespace = match (&context.scope.namespace, self.from.is_empty()) {
            (None, true) => read.namespaces.first().cloned().unwrap_or(default_namespace),
            _ => default_namespace,
        };
        let mut overlay = Snapshot::new(SourceKind::Manifests);
        for word in &self.filename {
            manifests(&mut overlay, word, &self.reading(&namespace, &context.messages))?;
        }
        Ok(overlay)
    }

    fn reading<'a>(&'a self, namespace: &'a str, messages: &'a Messages) -> FileReadOptions<'a> {
        let on_malformed = if self.keep_going { OnMalformed::KeepGoing } else { OnMalformed::Stop };
        FileReadOptions { namespace, on_malformed, except: &self.except, messages }
    }
}

async fn live(context: &mut Context<'_>) -> Result<ScopedSnapshot, Failure> {
    let server = context.connect().await?;
    let namespace = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
    let namespaces: BTreeSet<String> =
        if context.scope.all_namespaces { BTreeSet::new() } else { BTreeSet::from([namespace.clone()]) };
    let scope = CollectScope {
        namespaces: namespaces.iter().cloned().collect(),
        istio_namespace: context.scope.istio_namespace.clone(),
        revision: context.scope.revision.clone(),
    };
    let bar = context.messages.bar("reading the cluster");
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
    snapshot.taken = Some(context.env.now.clone());
    Ok(ScopedSnapshot { snapshot, namespaces })
}

/// How files are read.
struct FileReadOptions<'a> {
    /// Of objects that name none.
    namespace: &'a str,
    on_malformed: OnMalformed,
    /// Files in folders that are passed over.
    except: &'a [PathBuf],
    messages: &'a Messages,
}

fn offline(words: &[String], how: &FileReadOptions<'_>) -> Result<Snapshot, Failure> {
    if let [word] = words
        && word == "demo"
    {
        let mut snapshot = Snapshot::new(SourceKind::Demo);
        let text = Arc::new(SourceText { path: "demo".to_owned(), text: DEMO.to_owned() });
        manifest::read(&mut snapshot, text, "default", OnMalformed::Stop)
            .map_err(|error| Failure::source(format!("the built-in demo is broken: {error}")))?;
        // The demo stands for a cluster: its objects have no lines to show.
        for object in snapshot.objects.values_mut() {
            object.place = None;
        }
        return Ok(snapshot);
    }
    if let [word] = words
        && (word == "-" || Path::new(word).is_file())
    {
        let text = read_text(word)?;
        if codec::is_snapshot(&text) {
            return codec::decode(&text).map_err(|error| {
                Failure::source(format!("cannot read {word}"))
                    .cause(error)
                    .hint("make one with: kubectl grpcmesh snapshot -o FILE")
            });
        }
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        take_text(&mut snapshot, word, text, how)?;
        return not_empty(snapshot, words);
    }
    let mut snapshot = Snapshot::new(SourceKind::Manifests);
    for word in words {
        manifests(&mut snapshot, word, how)?;
    }
    not_empty(snapshot, words)
}

fn not_empty(snapshot: Snapshot, words: &[String]) -> Result<Snapshot, Failure> {
    let is_empty = snapshot.objects.is_empty() && snapshot.misplaced.is_empty();
    if is_empty && snapshot.gaps.is_empty() {
        return Err(Failure::source(format!("there is no object of a kind that matters here in {}", words.join(", ")))
            .hint("Services, workloads, Istio's and Gateway API's kinds are read; check the path"));
    }
    Ok(snapshot)
}

/// Reads manifests from a file, a directory or standard input.
fn manifests(snapshot: &mut Snapshot, word: &str, how: &FileReadOptions<'_>) -> Result<(), Failure> {
    if word == "demo" {
        return Err(
            Failure::usage("demo cannot be combined with other sources").hint("to read a file of that name: ./demo")
        );
    }
    let path = Path::new(word);
    if word == "-" || !path.is_dir() {
        let text = read_text(word)?;
        if codec::is_snapshot(&text) {
            return Err(Failure::usage(format!("{word} is a snapshot; a snapshot is the only source of a run")));
        }
        return take_text(snapshot, word, text, how);
    }
    let mut files = Vec::new();
    list(path, &mut files, &mut BTreeSet::new())
        .map_err(|error| Failure::source(format!("cannot read the directory {}", safe(word))).cause(error))?;
    files.retain(|file| !how.except.iter().any(|other| is_same(file, other)));
    files.sort();
    if files.is_empty() {
        return Err(Failure::source(format!("there is no .yaml, .yml or .json file in {}", safe(word)))
            .hint("name a file, or another directory"));
    }
    for file in files {
        let name = file.display().to_string();
        let text = read_text(&name)?;
        if codec::is_snapshot(&text) {
            how.messages.warning(&format!("{name} is a snapshot; it is passed over"));
            continue;
        }
        take_text(snapshot, &name, text, how)?;
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Files with manifests' suffixes, in all folders below; hidden ones and loops are left out.
fn list(directory: &Path, files: &mut Vec<PathBuf>, seen: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if !seen.insert(directory.canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            list(&path, files, seen)?;
        } else if path
            .extension()
            .and_then(|suffix| suffix.to_str())
            .is_some_and(|suffix| matches!(suffix, "yaml" | "yml" | "json"))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Largest input that is read: a mesh of 100,000 Services is a tenth of it.
const LARGEST: u64 = 2 << 30;

fn read_text(word: &str) -> Result<String, Failure> {
    let shown = safe(word);
    let cannot = |why: std::io::Error| Failure::source(format!("cannot read {shown}")).cause(&why);
    let mut bytes = Vec::new();
    let read = if word == "-" {
        std::io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(word).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    if let Err(error) = read {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "--from takes demo, a snapshot, a manifest, a directory or -",
            std::io::ErrorKind::PermissionDenied => "check who may read it: ls -l",
            _ => "is it a file that others can read? - reads standard input",
        };
        return Err(cannot(error).hint(hint));
    }
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::source(format!("{shown} has more than 2 GiB"))
            .hint("is it the right file? A snapshot of a large mesh is far smaller"));
    }
    if codec::is_gzip(&bytes) {
        bytes = codec::inflate(&bytes).map_err(|error| {
            Failure::source(format!("cannot read {shown}")).cause(error).hint("it is damaged or cut off; make it again")
        })?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = memchr::memchr_iter(b'\n', good).count() + 1;
        Failure::source(format!("{shown}:{line}: not UTF-8 text"))
            .hint("expected YAML, JSON or a snapshot in UTF-8; iconv converts other encodings")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn take_text(snapshot: &mut Snapshot, word: &str, text: String, how: &FileReadOptions<'_>) -> Result<(), Failure> {
    let is_template = text.contains("{{");
    let text = Arc::new(SourceText { path: word.to_owned(), text });
    manifest::read(snapshot, text, how.namespace, how.on_malformed).map(|_| ()).map_err(|error| {
        let failure = Failure::source(safe(&error.to_string()).into_owned());
        if is_template {
            failure.hint("it looks like a Helm template: helm template CHART | kubectl grpcmesh inspect --from -")
        } else {
            failure.hint("--keep-going makes malformed documents a gap and reads the rest")
        }
    })
}
