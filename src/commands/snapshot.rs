//! `snapshot`: save what was read, to inspect it later or elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::proxy_states::{AdminAccessArgs, ProxyQuery, settled_with_counters};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::snapshot::live::{LiveState, ProxyResponse};
use crate::snapshot::{Snapshot, codec, redact};

/// Save what was read to a file; inspect, route and diff read it later with --from
///
/// Secrets are never read. Of Pods and workloads only a listed set of fields is kept, without environment and arguments.
/// The file can be read by its owner only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh snapshot -o mesh.json.gz            the whole cluster, compressed
  kubectl grpcmesh snapshot -o mesh.json.gz --proxies  and what the Envoys run
  kubectl grpcmesh snapshot -o mesh.json --redact      with pseudonyms for names, to share it
  kubectl grpcmesh inspect --from mesh.json.gz")]
pub struct SnapshotArgs {
    /// File to write; .gz compresses; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace names by pseudonyms, the same one everywhere; not with --proxies
    #[arg(long)]
    redact: bool,
    /// What the Envoys run too, or of so many of them: for diff, inspect --live and route --live later
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        conflicts_with_all = ["redact", "from", "filename"])]
    proxies: Option<ProxyLimit>,
    #[command(flatten)]
    reach: AdminAccessArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// How many proxies.
#[derive(Debug, Clone, Copy)]
struct ProxyLimit(Option<usize>);

impl std::str::FromStr for ProxyLimit {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self(None)) } else { text.parse().map(|most| Self(Some(most))) }
    }
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: SnapshotArgs) -> Result<CommandOutcome, Failure> {
    if context.scope.namespace.is_some() && !arguments.source.from.is_empty() {
        return Err(Failure::usage(
            "-n says what is read of a cluster, and --from names another source, which is kept whole",
        ));
    }
    let mut read = arguments.source.read(context).await?;
    if let Some(ProxyLimit(most)) = arguments.proxies {
        // Without -n a snapshot holds all objects, whatever namespace the kubeconfig prefers.
        let everywhere = context.scope.namespace.is_none();
        let question = ProxyQuery { everywhere, only: None, most, reach: arguments.reach };
        read = settled_with_counters(context, &arguments.source, read, question).await?;
    }
    let ScopedSnapshot { snapshot, namespaces: _ } = read;
    let snapshot = if arguments.redact { redact::redact(snapshot) } else { snapshot };
    let path = &arguments.output;
    let compressed = path.extension().is_some_and(|suffix| suffix == "gz");
    if path.as_os_str() == "-" {
        codec::encode(&snapshot, &mut *context.out)?;
    } else {
        save(&snapshot, path, compressed)
            .map_err(|error| Failure::source(format!("cannot write {}", path.display())).cause(error))?;
        let (objects, gaps) =
            (snapshot.objects.len(), snapshot.gaps.iter().filter(|gap| gap.touches_answers()).count());
        context.messages.hint(&format!(
            "{objects} objects, {gaps} gaps; inspect them with: kubectl grpcmesh inspect --from {}",
            path.display()
        ));
    }
    let proxies = snapshot.live.iter().flat_map(LiveState::proxies);
    let silent = proxies.filter_map(|(namespace, pod, proxy)| match &proxy.answer {
        ProxyResponse::Silent(why) => Some(format!("the proxy of {namespace}/{pod} could not be asked: {why}")),
        ProxyResponse::Runs(_) | ProxyResponse::NotAsked(_) => None,
    });
    let silent: Vec<String> = silent.collect();
    for text in &silent {
        context.messages.warning(text);
    }
    for gap in snapshot.gaps.iter().filter(|gap| gap.touches_answers()) {
        context.messages.warning(&format!("{}: {}", gap.what, gap.why));
    }
    let partial = !silent.is_empty()
        || snapshot.source == crate::snapshot::SourceKind::Cluster
            && snapshot.gaps.iter().any(super::super::snapshot::Gap::touches_answers);
    Ok(if partial { CommandOutcome::Partial } else { CommandOutcome::Clean })
}

/// Writes beside the file and renames, so that a file that is there is whole. A link is followed; what is no regular
/// file, such as a pipe or a device, stays what it is and is written into.
fn save(snapshot: &Snapshot, path: &Path, compressed: bool) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return write(snapshot, std::fs::OpenOptions::new().write(true).open(path)?, compressed);
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = create_private(&part).and_then(|file| write(snapshot, file, compressed));
    match written.and_then(|()| std::fs::rename(&part, &path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

fn write(snapshot: &Snapshot, file: std::fs::File, compressed: bool) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    if compressed {
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
        codec::encode(snapshot, &mut encoder)?;
        file = encoder.finish()?;
    } else {
        codec::encode(snapshot, &mut file)?;
    }
    file.flush()
}

/// Creates a file that only its owner can read.
fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    match options.open(path) {
        // Left over from a run that was cut off.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            options.open(path)
        }
        other => other,
    }
}
