//! `snapshot`: saves a source to a file, for later or for another machine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::live_proxies::{AdminAccessArgs, ProxyQuery, read_settled_proxies_with_counters};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::replace_file::{FileAccess, replace_file};
use crate::render::EscapingWriter;
use crate::snapshot::live::{LiveState, ProxyResponse};
use crate::snapshot::{Snapshot, SourceKind, codec, redact};
use crate::terminal::Messages;

/// Save a source to a file that inspect, route and diff read with --from
///
/// Never reads Secrets. Pods and workloads are reduced to a documented set of fields, without environment variables and
/// arguments. The file is readable only by its owner.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh snapshot -o mesh.json.gz            the whole cluster, compressed
  kubectl grpcmesh snapshot -o mesh.json.gz --proxies  also what the Envoys run
  kubectl grpcmesh snapshot -o mesh.json --redact      replace names with pseudonyms
  kubectl grpcmesh inspect --from mesh.json.gz")]
pub struct SnapshotArgs {
    /// File to write, compressed if the name ends in .gz; - for stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace names with pseudonyms, the same name always with the same pseudonym
    #[arg(long)]
    redact: bool,
    /// Also save what all Envoys run, or N of them, for diff, inspect --live and route --live
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

pub(super) async fn run(context: &mut Context<'_>, mut arguments: SnapshotArgs) -> Result<CommandOutcome, Failure> {
    arguments.source.reads_all_namespaces = true;
    if context.scope.namespace.is_some() && !arguments.source.from.is_empty() {
        return Err(Failure::usage(
            "cannot combine -n with --from: a snapshot of files or of the demo contains all namespaces",
        ));
    }
    let mut scoped = arguments.source.read(context).await?;
    if let Some(ProxyLimit(limit)) = arguments.proxies {
        // Without -n, a snapshot contains all namespaces, whatever the namespace of the kubeconfig context is.
        let all_namespaces = context.scope.namespace.is_none();
        let query = ProxyQuery { all_namespaces, only: None, limit, access: arguments.access };
        scoped = read_settled_proxies_with_counters(context, &arguments.source, scoped, query).await?;
    }
    let snapshot = if arguments.redact {
        let names: Vec<&str> = crate::rules::RULES.iter().flat_map(|rule| [rule.code, rule.name]).collect();
        redact::redact(scoped.snapshot, &names)
    } else {
        scoped.snapshot
    };
    let path = &arguments.output;
    if path.as_os_str() == "-" {
        codec::encode(&snapshot, EscapingWriter::new(&mut *context.out))?;
    } else {
        let compress = path.extension().is_some_and(|extension| extension == "gz");
        save(&snapshot, path, compress)
            .map_err(|error| Failure::unavailable(format!("cannot write {}", path.display())).cause(error))?;
        let gaps = snapshot.gaps.iter().filter(|gap| gap.affects_answers()).count();
        context.messages.hint(&format!(
            "saved {} objects with {gaps} gaps; inspect them with: kubectl grpcmesh inspect --from {}",
            snapshot.objects.len(),
            path.display()
        ));
    }
    Ok(if is_complete(&snapshot, &context.messages) { CommandOutcome::Clean } else { CommandOutcome::Partial })
}

/// Warns about proxies that did not answer and about gaps. Gaps of manifests do not make their snapshot incomplete.
fn is_complete(snapshot: &Snapshot, messages: &Messages) -> bool {
    let mut is_complete = true;
    for (namespace, pod, proxy) in snapshot.live.iter().flat_map(LiveState::proxies) {
        if let ProxyResponse::Unreachable(reason) = &proxy.response {
            messages.warning(&format!("cannot read the proxy of {namespace}/{pod}: {reason}"));
            is_complete = false;
        }
    }
    for gap in snapshot.gaps.iter().filter(|gap| gap.affects_answers()) {
        messages.warning(&format!("{}: {}", gap.what, gap.why));
        is_complete &= snapshot.source != SourceKind::Cluster;
    }
    is_complete
}

/// Writes the file, which only its owner can read.
fn save(snapshot: &Snapshot, path: &Path, compress: bool) -> std::io::Result<()> {
    replace_file(path, FileAccess::Private, |file| write(snapshot, file, compress))
}

fn write(snapshot: &Snapshot, file: &mut File, compress: bool) -> std::io::Result<()> {
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
