//! Snapshot files: versioned JSON, optionally compressed with gzip.
//!
//! ```json
//! {"kind":"Snapshot","version":1,"source":"cluster","taken":"2026-11-21T09:00:00Z",
//!  "kubernetesVersion":"v1.36.3","objects":[{"apiVersion":"v1","kind":"Service",…}],"gaps":[]}
//! ```
//! The objects are plain Kubernetes objects, so that other programs can read a snapshot too.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::live::LiveState;
use super::raw::RawEntries;
use super::yaml::{DuplicateKey, LineColumn};
use super::{Gap, Object, ObjectKey, Snapshot, SourceKind};
use crate::schema::kind::{Kind, RecognizedKind};

/// The version of written files. All versions up to it can be read.
pub const VERSION: u32 = 1;

/// Size of decompressed data that is read without an explicit limit: the snapshot of a mesh with 100,000 Services has half
/// of it.
pub const DEFAULT_DECOMPRESSED_BYTES: u64 = 512 << 20;

/// Why a file is not a valid snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The file is not JSON of this form.
    #[error("not a snapshot: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A newer version of the program wrote the file.
    #[error("snapshot version {0} is not supported: this program reads versions up to {VERSION}")]
    TooNew(u32),
    /// The gzip data is invalid.
    #[error("invalid gzip data: {0}")]
    Gzip(#[source] io::Error),
    /// The gzip data exceeds a limit, in MiB, when decompressed.
    #[error("it is larger than {0} MiB when decompressed")]
    TooLarge(u64),
    /// The file is not text.
    #[error("not UTF-8 text")]
    NotText,
}

/// A snapshot file.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Snapshot")]
pub struct SnapshotFile<'a> {
    /// Always `Snapshot`.
    #[serde(borrow)]
    kind: Cow<'a, str>,
    /// Version of the file format.
    version: u32,
    /// Source of the objects.
    source: SourceKind,
    /// Time of the reading, as RFC 3339.
    #[serde(rename = "taken", default, skip_serializing_if = "Option::is_none")]
    taken_at: Option<String>,
    /// Version of the Kubernetes API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubernetes_version: Option<String>,
    /// Kubernetes objects. Pods, EndpointSlices and workloads are reduced.
    #[serde(borrow)]
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    objects: Vec<Cow<'a, RawValue>>,
    /// Everything that could not be read.
    #[serde(default)]
    gaps: Vec<Gap>,
    /// Keys that occur twice in manifests. The objects hold the last value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    duplicate_keys: Vec<DuplicateEntry>,
    /// Observed configuration of the Envoys. Its format may change with any version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    live: Option<Cow<'a, RawValue>>,
}

/// A key that occurs twice in an object's manifest.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DuplicateEntry {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    path: String,
    key: String,
    line: usize,
}

/// Reports whether `bytes` are gzip data.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Decompresses gzip data of at most `limit` bytes when decompressed.
///
/// # Errors
/// The data is invalid, or exceeds the limit.
pub fn inflate(bytes: &[u8], limit: u64) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(limit.saturating_add(1));
    reader.read_to_end(&mut out).map_err(CodecError::Gzip)?;
    if out.len() as u64 > limit {
        return Err(CodecError::TooLarge(limit >> 20));
    }
    Ok(out)
}

/// Reports whether a text is a snapshot rather than a manifest.
pub fn is_snapshot(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    let Some(start) = text.trim_start().strip_prefix('{') else { return false };
    // Written files start with `kind`. A file with another order of fields has to be parsed.
    let head = start.trim_start();
    head.starts_with("\"kind\":\"Snapshot\"")
        || head.starts_with("\"kind\": \"Snapshot\"")
        || serde_json::from_str::<Probe<'_>>(text).is_ok_and(|probe| probe.kind == "Snapshot")
}

/// Decodes a snapshot.
///
/// # Errors
/// The text is not a snapshot, or has a newer version.
pub fn decode(text: &str) -> Result<Snapshot, CodecError> {
    let file: SnapshotFile<'_> = serde_json::from_str(text).map_err(CodecError::Malformed)?;
    let SnapshotFile { kind: _, version, source, taken_at, kubernetes_version, objects, gaps, duplicate_keys, live } =
        file;
    if version > VERSION {
        return Err(CodecError::TooNew(version));
    }
    let mut snapshot = Snapshot { taken_at, kubernetes_version, gaps, ..Snapshot::new(source) };
    // Another version of the program may have written the live state. The objects are usable without it.
    match live.map(|text| serde_json::from_str::<LiveState>(text.get())).transpose() {
        Ok(live) => snapshot.live = live,
        Err(error) => {
            let reason = format!("another version of this program wrote it: {error}");
            snapshot.gaps.push(Gap::new("running configuration of the Envoys", reason, super::GapKind::NotInSource));
        }
    }
    for body in objects {
        let header: Header<'_> = serde_json::from_str(body.get()).map_err(CodecError::Malformed)?;
        let (kind, is_served) = match Kind::recognize(&header.api_version, &header.kind) {
            RecognizedKind::Served(kind) => (kind, true),
            RecognizedKind::Unserved(kind) => (kind, false),
            RecognizedKind::Other => continue,
        };
        let namespace = header.metadata.namespace.as_deref().unwrap_or_default();
        let object = Object::new(kind, &header.api_version, namespace, &header.metadata.name, &body)
            .map_err(CodecError::Malformed)?;
        if is_served {
            snapshot.insert(object);
        } else {
            snapshot.unserved.push(object);
        }
    }
    for entry in duplicate_keys {
        let RecognizedKind::Served(kind) = Kind::recognize(&entry.api_version, &entry.kind) else { continue };
        let key = ObjectKey { kind, namespace: entry.namespace.into(), name: entry.name.into() };
        if let Some(object) = snapshot.objects.get_mut(&key) {
            let position = LineColumn { line: entry.line, column: 1 };
            object.duplicate_keys.push(DuplicateKey { path: entry.path, key: entry.key, position });
        }
    }
    Ok(snapshot)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: HeaderMeta<'a>,
}

#[derive(Deserialize)]
struct HeaderMeta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

/// Writes a snapshot as JSON with a final line break.
///
/// # Errors
/// Writing to `out` fails.
pub fn encode(snapshot: &Snapshot, mut out: impl Write) -> io::Result<()> {
    let objects = snapshot.objects.values().chain(&snapshot.unserved).map(body_with_kind).collect();
    let file = SnapshotFile {
        kind: Cow::Borrowed("Snapshot"),
        version: VERSION,
        source: snapshot.source,
        taken_at: snapshot.taken_at.clone(),
        kubernetes_version: snapshot.kubernetes_version.clone(),
        objects,
        gaps: snapshot.gaps.clone(),
        duplicate_keys: duplicate_entries(snapshot),
        live: snapshot.live.as_ref().map(serde_json::value::to_raw_value).transpose()?.map(Cow::Owned),
    };
    serde_json::to_writer(&mut out, &file)?;
    out.write_all(b"\n")
}

fn duplicate_entries(snapshot: &Snapshot) -> Vec<DuplicateEntry> {
    let entries_of = |object: &Object| -> Vec<DuplicateEntry> {
        let entry = |duplicate: &DuplicateKey| DuplicateEntry {
            api_version: object.api_version.to_string(),
            kind: object.key.kind.name().to_owned(),
            namespace: object.key.namespace.to_string(),
            name: object.key.name.to_string(),
            path: duplicate.path.clone(),
            key: duplicate.key.clone(),
            line: duplicate.position.line,
        };
        object.duplicate_keys.iter().map(entry).collect()
    };
    snapshot.objects.values().flat_map(entries_of).collect()
}

/// Adds `apiVersion` and `kind` to the body: reduced bodies and items of typed lists lack them.
fn body_with_kind(object: &Object) -> Cow<'_, RawValue> {
    let Some(mut entries) = RawEntries::parse(&object.body) else {
        return Cow::Borrowed(&object.body);
    };
    if entries.get("kind").is_some() && entries.get("apiVersion").is_some() {
        return Cow::Borrowed(&object.body);
    }
    for (key, value) in [("kind", object.key.kind.name()), ("apiVersion", &*object.api_version)] {
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            entries.set(key, value);
        }
    }
    Cow::Owned(entries.to_raw())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::SourceText;
    use crate::snapshot::manifest::{OnMalformed, read};

    fn sample() -> Snapshot {
        let mut snapshot = Snapshot::new(SourceKind::Cluster);
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n---\n\
                    apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: a}}\nspec: {containers: [{name: x, image: z}]}\n---\n\
                    apiVersion: networking.io/v1\nkind: DestinationRule\nmetadata: {name: d}\n";
        let text = Arc::new(SourceText { path: "x".to_owned(), text: text.to_owned() });
        read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
        snapshot.taken_at = Some("2026-01-01T00:00:00Z".to_owned());
        snapshot
    }

    #[test]
    fn decode_reverses_encode() {
        let mut first = Vec::new();
        encode(&sample(), &mut first).unwrap();
        let text = String::from_utf8(first.clone()).unwrap();
        assert!(is_snapshot(&text));
        let decoded = decode(&text).unwrap();
        assert_eq!(decoded.objects.keys().collect::<Vec<_>>(), sample().objects.keys().collect::<Vec<_>>());
        assert_eq!(decoded.unserved.len(), 1);
        let mut second = Vec::new();
        encode(&decoded, &mut second).unwrap();
        assert_eq!(text, String::from_utf8(second).unwrap());
    }

    #[test]
    fn decompression_is_bounded() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 8 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 16 << 10);
        assert!(matches!(inflate(&bomb, 1 << 20), Err(CodecError::TooLarge(1))));
        assert_eq!(inflate(&bomb, 8 << 20).unwrap().len(), 8 << 20);
        assert!(matches!(inflate(&bomb[..100], 8 << 20), Err(CodecError::Gzip(_))));
    }

    #[test]
    fn rejects_newer_versions() {
        let text = r#"{"kind":"Snapshot","version":99,"source":"cluster","objects":[]}"#;
        assert!(matches!(decode(text), Err(CodecError::TooNew(99))));
    }
}
