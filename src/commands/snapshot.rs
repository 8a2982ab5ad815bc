//! `snapshot`: saves a source to a file, for use later or elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::live_proxies::{AdminAccessArgs, ProxyQuery, read_settled_proxies_with_counters};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::snapshot::live::{LiveState, ProxyResponse};
use crate::snapshot::{Snapshot, codec, redact};

/// Save what was read to a file, which inspect, route and diff read with --from
///
/// Secrets are never read. Pods and workloads are reduced to a documented set of fields without environment variables and
/// arguments. Only the owner can read the file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh snapshot -o mesh.json.gz            the whole cluster, compress
  kubectl grpcmesh snapshot -o mesh.json.gz --proxies  add what the Envoys run
  kubectl grpcmesh snapshot -o mesh.json --redact      replace names with pseudonyms
  kubectl grpcmesh inspect --from mesh.json.gz")]
pub struct SnapshotArgs {
    /// File to write; .gz compresses, - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace names with pseudonyms, consistently; cannot be combined with --proxies
    #[arg(long)]
    redact: bool,
    /// Add what all Envoys run, or N of them, for diff, inspect --live and route --live
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "all",
        conflicts_with_all = ["redact", "from", "filename"])]
    proxies: Option<ProxyLimit>,
    #[command(flatten)]
    access: AdminAccessArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// The value of `--proxies`: `all` or a number.
#[derive(Debug, Clone, Copy)]
struct ProxyLimit(Option<usize>);

impl std::str::FromStr for ProxyLimit {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self(None)) } else { text.parse().map(|limit| Self(Some(limit))) }
    }
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: SnapshotArgs) -> Result<CommandOutcome, Failure> {
    if context.scope.namespace.is_some() && !arguments.source.from.is_empty() {
        return Err(Failure::usage(
            "-n selects what to read from a cluster, and cannot be combined with --from: other sources are saved completely",
        ));
    }
    let mut read = arguments.source.read(context).await?;
    if let Some(ProxyLimit(limit)) = arguments.proxies {
        // Without -n, a snapshot contains all namespaces, whatever the default of the kubeconfig is.
        let all_namespaces = context.scope.namespace.is_none();
        let query = ProxyQuery { all_namespaces, only: None, limit, access: arguments.access };
        read = read_settled_proxies_with_counters(context, &arguments.source, read, query).await?;
    }
    let ScopedSnapshot { snapshot, namespaces: _ } = read;
    let snapshot = if arguments.redact { redact::redact(snapshot) } else { snapshot };
    let path = &arguments.output;
    let compress = path.extension().is_some_and(|extension| extension == "gz");
    if path.as_os_str() == "-" {
        codec::encode(&snapshot, &mut *context.out)?;
    } else {
        save(&snapshot, path, compress)
            .map_err(|error| Failure::unavailable(format!("cannot write {}", path.display())).cause(error))?;
        let (objects, gaps) =
            (snapshot.objects.len(), snapshot.gaps.iter().filter(|gap| gap.affects_answers()).count());
        context.messages.hint(&format!(
            "saved {objects} objects with {gaps} gaps; inspect them with: kubectl grpcmesh inspect --from {}",
            path.display()
        ));
    }
    let proxies = snapshot.live.iter().flat_map(LiveState::proxies);
    let unreachable = proxies.filter_map(|(namespace, pod, proxy)| match &proxy.response {
        ProxyResponse::Unreachable(reason) => Some(format!("cannot read the proxy of {namespace}/{pod}: {reason}")),
        ProxyResponse::Running(_) | ProxyResponse::NotQueried(_) => None,
    });
    let unreachable: Vec<String> = unreachable.collect();
    for message in &unreachable {
        context.messages.warning(message);
    }
    for gap in snapshot.gaps.iter().filter(|gap| gap.affects_answers()) {
        context.messages.warning(&format!("{}: {}", gap.what, gap.why));
    }
    let is_partial = !unreachable.is_empty()
        || snapshot.source == crate::snapshot::SourceKind::Cluster
            && snapshot.gaps.iter().any(super::super::snapshot::Gap::affects_answers);
    Ok(if is_partial { CommandOutcome::Partial } else { CommandOutcome::Clean })
}

/// Writes a temporary file and renames it, so that the file is always complete. Follows symbolic links, and writes directly
/// into pipes and devices.
fn save(snapshot: &Snapshot, path: &Path, compress: bool) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return write(snapshot, std::fs::OpenOptions::new().write(true).open(path)?, compress);
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let result = create_private(&part).and_then(|file| write(snapshot, file, compress));
    match result.and_then(|()| std::fs::rename(&part, &path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

fn write(snapshot: &Snapshot, file: std::fs::File, compress: bool) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    if compress {
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
        // Left over from an interrupted run.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            options.open(path)
        }
        other => other,
    }
}
