//! Reads manifests: YAML or JSON text with one or many documents, and `List` kinds.
//!
//! Documents are converted on all cores, because parsing YAML dominates the cost of reading manifests.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::yaml::{self, LineColumn};
use super::{Gap, GapKind, Object, Snapshot, SourceText, TextPosition};
use crate::schema::kind::{Kind, RecognizedKind};

/// A document that is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Path of the file.
    pub path: String,
    /// Position in the file.
    pub position: LineColumn,
    /// The cause, and the expected form.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.position.line, self.position.column, self.message)
    }
}

impl std::error::Error for ManifestError {}

/// How to handle a document that is not a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMalformed {
    /// Return the error.
    Stop,
    /// Add a gap and continue.
    KeepGoing,
}

/// Numbers of objects in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManifestCounts {
    /// Objects of kinds that this program reads.
    pub objects: usize,
    /// Objects of other kinds.
    pub ignored: usize,
}

/// Reads `text` into `snapshot`. Objects without a namespace get `namespace`.
///
/// # Errors
/// A document is not a manifest, unless `on_malformed` is `KeepGoing`.
pub fn read(
    snapshot: &mut Snapshot,
    text: Arc<SourceText>,
    namespace: &str,
    on_malformed: OnMalformed,
) -> Result<ManifestCounts, ManifestError> {
    let documents = split_documents(&text.text);
    if documents.len() > MAX_DOCUMENTS {
        let position = LineColumn { line: documents.last().map_or(1, |document| document.line), column: 1 };
        let message = format!("more than {MAX_DOCUMENTS} documents in one file: expected one for each object");
        return Err(ManifestError { path: text.path.clone(), position, message });
    }
    let mut counts = ManifestCounts::default();
    for outcome in convert_all(&text, &documents, namespace) {
        match outcome {
            Ok(read) => {
                counts.objects += read.objects.len() + read.unserved.len();
                counts.ignored += read.ignored;
                for object in read.objects {
                    snapshot.insert(object);
                }
                snapshot.unserved.extend(read.unserved);
            }
            Err(error) if on_malformed == OnMalformed::KeepGoing => {
                let location = format!("{}:{}:{}", error.path, error.position.line, error.position.column);
                snapshot.gaps.push(Gap::new(location, error.message, GapKind::Malformed));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(counts)
}

/// Documents of a file that are not empty. Each needs memory beyond its text.
const MAX_DOCUMENTS: usize = 1_000_000;

/// One YAML document of a file.
#[derive(Debug, Clone)]
struct Document {
    bytes: Range<usize>,
    line: usize,
}

/// Byte ranges of the YAML documents of a text.
pub fn documents(text: &str) -> Vec<Range<usize>> {
    split_documents(text).into_iter().map(|document| document.bytes).collect()
}

/// Splits at lines that start with `---`. Such a line is always a document marker, even inside a block scalar. Documents
/// without content are left out, and no more than one above [`MAX_DOCUMENTS`] are split.
/// Source: YAML 1.2.2, rule c-forbidden.
fn split_documents(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut offset, mut line) = (0, 1);
    let mut has_content = false;
    for text_line in text.split_inclusive('\n') {
        let trimmed = text_line.trim_end();
        let is_marker = trimmed == "---" || trimmed.starts_with("--- ");
        if is_marker && offset > start {
            if has_content {
                documents.push(Document { bytes: start..offset, line: start_line });
            }
            if documents.len() > MAX_DOCUMENTS {
                return documents;
            }
            (start, start_line, has_content) = (offset, line, false);
        }
        has_content |= !trimmed.is_empty() && trimmed != "---";
        offset += text_line.len();
        line += 1;
    }
    if has_content {
        documents.push(Document { bytes: start..text.len(), line: start_line });
    }
    documents
}

/// Lists inside of lists. Each level is parsed again.
const MAX_LIST_DEPTH: usize = 4;

#[derive(Default)]
struct ReadDocument {
    /// Lists that contain the current object.
    list_depth: usize,
    objects: Vec<Object>,
    unserved: Vec<Object>,
    ignored: usize,
}

/// Converts documents on all cores and keeps their order.
fn convert_all(
    text: &Arc<SourceText>,
    documents: &[Document],
    namespace: &str,
) -> Vec<Result<ReadDocument, ManifestError>> {
    // Smaller texts convert faster than a thread starts.
    const MIN_BYTES_PER_THREAD: usize = 64 << 10;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = cores.min(text.text.len() / MIN_BYTES_PER_THREAD).max(1);
    let convert = |documents: &[Document]| {
        documents.iter().map(|document| convert(text, document, namespace)).collect::<Vec<_>>()
    };
    if threads == 1 {
        return convert(documents);
    }
    let chunk = documents.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            documents.chunks(chunk).map(|documents| scope.spawn(move || convert(documents))).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow, default)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "mapping_or_error")]
    metadata: Option<HeaderMeta<'a>>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct HeaderMeta<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "generateName")]
    generate_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

/// Decodes metadata. serde would also accept a list with the fields in their order.
fn mapping_or_error<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HeaderMeta<'a>>, D::Error> {
    let Some(metadata) = Option::<&RawValue>::deserialize(deserializer)? else { return Ok(None) };
    if !metadata.get().starts_with('{') {
        return Err(D::Error::custom("metadata is not a mapping"));
    }
    serde_json::from_str(metadata.get()).map(Some).map_err(D::Error::custom)
}

fn convert(text: &Arc<SourceText>, document: &Document, namespace: &str) -> Result<ReadDocument, ManifestError> {
    let source = text.text.get(document.bytes.clone()).unwrap_or_default();
    let fail = |in_document: LineColumn, message: String| ManifestError {
        path: text.path.clone(),
        position: LineColumn { line: in_document.line + document.line - 1, column: in_document.column },
        message,
    };
    let converted = yaml::to_json(source).map_err(|error| {
        fail(error.position, format!("not YAML or JSON: {}; expected a Kubernetes object", error.message))
    })?;
    let mut read = ReadDocument::default();
    let Some(json) = converted.json.filter(|json| json.get() != "null") else {
        return Ok(read);
    };
    let start = first_content(source);
    if !json.get().starts_with('{') {
        let message = "not a Kubernetes object: expected a mapping with apiVersion, kind and metadata".to_owned();
        return Err(fail(start, message));
    }
    let position = TextPosition {
        text: Arc::clone(text),
        document: document.bytes.clone(),
        line: document.line,
        item: None,
        template: helm_template(source),
        index: Arc::default(),
    };
    read_object(&json, None, position, converted.duplicates, namespace, &mut read)
        .map_err(|message| fail(start, message))?;
    Ok(read)
}

/// Adds one object, or the items of a list, to `read`.
fn read_object(
    json: &RawValue,
    list: Option<&Header<'_>>,
    position: TextPosition,
    duplicates: Vec<yaml::DuplicateKey>,
    namespace: &str,
    read: &mut ReadDocument,
) -> Result<(), String> {
    let header: Header<'_> = serde_json::from_str(json.get())
        .map_err(|error| format!("not a Kubernetes object: {}", strip_location(&error.to_string())))?;
    let kind = match (&header.kind, list) {
        (Some(kind), _) => kind.clone(),
        // The items of a typed list, such as `ServiceList`, have no kind of their own.
        (None, Some(list)) => match list.kind.as_deref().and_then(|kind| kind.strip_suffix("List")) {
            Some(kind) if !kind.is_empty() => Cow::Owned(kind.to_owned()),
            _ => return Err("missing kind: expected apiVersion, kind and metadata.name".to_owned()),
        },
        (None, None) => return Err("missing kind: expected apiVersion, kind and metadata.name".to_owned()),
    };
    let api_version =
        header.api_version.clone().or_else(|| list.and_then(|list| list.api_version.clone())).unwrap_or_default();
    if api_version.is_empty() {
        return Err(format!("missing apiVersion: expected apiVersion with kind: {kind}"));
    }
    if let Some(items) = header.items.as_ref().filter(|_| kind.ends_with("List")) {
        read.list_depth += 1;
        if read.list_depth > MAX_LIST_DEPTH {
            return Err(format!("lists inside of lists are nested more than {MAX_LIST_DEPTH} levels deep"));
        }
        let mut duplicates = duplicates_by_item(duplicates);
        for (index, item) in items.iter().enumerate() {
            let item_duplicates = duplicates.remove(&index).unwrap_or_default();
            // A position names one index: for a list inside of a list, that of the outer one.
            let position = TextPosition { item: position.item.or(Some(index)), ..position.clone() };
            read_object(item, Some(&header), position, item_duplicates, namespace, read)
                .map_err(|message| format!("items[{index}]: {message}"))?;
        }
        read.list_depth -= 1;
        return Ok(());
    }
    let (kind, is_served) = match Kind::recognize(&api_version, &kind) {
        RecognizedKind::Served(kind) => (kind, true),
        RecognizedKind::Unserved(kind) => (kind, false),
        RecognizedKind::Other => {
            read.ignored += 1;
            return Ok(());
        }
    };
    let meta = header.metadata.as_ref();
    let name = meta.and_then(|meta| meta.name.as_deref()).filter(|name| !name.is_empty());
    let Some(name) = name else {
        if meta.is_some_and(|meta| meta.generate_name.is_some()) {
            read.ignored += 1;
            return Ok(());
        }
        return Err(format!("missing name of the {}: expected metadata.name", kind.name()));
    };
    let namespace =
        meta.and_then(|meta| meta.namespace.as_deref()).filter(|namespace| !namespace.is_empty()).unwrap_or(namespace);
    let mut object = Object::new(kind, &api_version, namespace, name, json).map_err(|error| {
        format!("{} {name} has a field of the wrong type: {}", kind.name(), strip_location(&error.to_string()))
    })?;
    object.position = Some(position);
    object.duplicate_keys = duplicates;
    if is_served {
        read.objects.push(object);
    } else {
        read.unserved.push(object);
    }
    Ok(())
}

/// Groups the duplicate keys of a list by the index of their item, with paths in the item.
fn duplicates_by_item(duplicates: Vec<yaml::DuplicateKey>) -> HashMap<usize, Vec<yaml::DuplicateKey>> {
    let mut by_item: HashMap<usize, Vec<yaml::DuplicateKey>> = HashMap::new();
    for duplicate in duplicates {
        let item = duplicate.path.strip_prefix("items[").and_then(|rest| rest.split_once(']'));
        let Some((Ok(index), rest)) = item.map(|(index, rest)| (index.parse(), rest)) else { continue };
        let path = rest.strip_prefix('.').unwrap_or(rest).to_owned();
        by_item.entry(index).or_default().push(yaml::DuplicateKey { path, ..duplicate });
    }
    by_item
}

/// Removes serde_json's position, which refers to the converted JSON text.
fn strip_location(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

/// Finds the first content of a document after its marker, comments and blank lines.
fn first_content(document: &str) -> LineColumn {
    for (index, line) in document.lines().enumerate() {
        let content = line.trim_start();
        let is_skipped =
            content.is_empty() || content.starts_with('#') || content.starts_with("---") || content.starts_with('%');
        if !is_skipped {
            return LineColumn { line: index + 1, column: line.len() - content.len() + 1 };
        }
    }
    LineColumn { line: 1, column: 1 }
}

/// Reads the template's path from the comment `# Source: chart/templates/x.yaml`, which Helm writes above each object.
fn helm_template(document: &str) -> Option<String> {
    document
        .lines()
        .take_while(|line| line.starts_with("---") || line.starts_with('#') || line.trim().is_empty())
        .find_map(|line| line.strip_prefix("# Source:"))
        .map(|template| template.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::SourceKind;

    fn read_text(text: &str) -> Result<(Snapshot, ManifestCounts), ManifestError> {
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        let text = Arc::new(SourceText { path: "x.yaml".to_owned(), text: text.to_owned() });
        let counts = read(&mut snapshot, text, "default", OnMalformed::Stop)?;
        Ok((snapshot, counts))
    }

    #[test]
    fn reads_documents_lists_and_json() {
        let (snapshot, counts) = read_text(
            "# a comment\n---\n# Source: shop/templates/svc.yaml\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n\
             ---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b, namespace: z}\n\
             - {apiVersion: v1, kind: Secret, metadata: {name: s}}\n---\n\
             {\"apiVersion\": \"v1\", \"kind\": \"ServiceList\", \"items\": [{\"metadata\": {\"name\": \"c\"}}]}\n",
        )
        .unwrap();
        let names: Vec<_> = snapshot.objects.keys().map(|key| format!("{}/{}", key.namespace, key.name)).collect();
        assert_eq!(names, ["default/a", "default/c", "z/b"]);
        assert_eq!(counts, ManifestCounts { objects: 3, ignored: 1 });
        let object = snapshot.of_kind(Kind::Service).next().unwrap();
        assert_eq!(object.position.as_ref().unwrap().template.as_deref(), Some("shop/templates/svc.yaml"));
        let b = snapshot.of_kind(Kind::Service).nth(2).unwrap();
        assert_eq!(
            b.position.as_ref().unwrap().find("metadata.name").unwrap().start,
            LineColumn { line: 14, column: 14 }
        );
    }

    #[test]
    fn malformed_documents_report_the_position_and_the_expected_form() {
        for (text, expected) in [
            (
                "apiVersion: v1\nkind: Service\nmetadata: [x]\n",
                "x.yaml:1:1: not a Kubernetes object: metadata is not a mapping",
            ),
            ("a: [", "x.yaml:1:4: not YAML or JSON"),
            ("---\nfoo\n", "x.yaml:2:1: not a Kubernetes object"),
            ("---\n\nkind: Service\n", "x.yaml:3:1: missing apiVersion"),
            ("apiVersion: v1\nmetadata: {name: a}\n", "x.yaml:1:1: missing kind"),
            ("apiVersion: v1\nkind: Service\n", "x.yaml:1:1: missing name of the Service"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: 3\n",
                "x.yaml:1:1: Pod a has a field of the wrong type",
            ),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn reads_lists_inside_of_lists() {
        let service = |name: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}}}");
        let text = format!(
            "{{apiVersion: v1, kind: List, items: [{}, {{apiVersion: v1, kind: List, items: [{}]}}]}}",
            service("a"),
            service("b")
        );
        let (snapshot, counts) = read_text(&text).unwrap();
        assert_eq!(counts.objects, 2);
        let inner = snapshot.of_kind(Kind::Service).nth(1).unwrap();
        assert!(inner.position.as_ref().unwrap().find("metadata.name").is_some());
    }

    #[test]
    fn documents_without_content_need_no_memory() {
        assert!(documents(&"---\n".repeat(1 << 20)).is_empty());
        assert_eq!(documents("\n---\n# only a comment\n---\n\n---\na: 1\n---").len(), 2);
        let error = read_text(&"--- 1\n".repeat(MAX_DOCUMENTS + 2)).unwrap_err();
        assert!(error.message.starts_with("more than 1000000 documents"), "{error}");
    }

    #[test]
    fn keep_going_turns_a_malformed_document_into_a_gap() {
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        let text = "a: [\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
        let text = Arc::new(SourceText { path: "x.yaml".to_owned(), text: text.to_owned() });
        read(&mut snapshot, text, "default", OnMalformed::KeepGoing).unwrap();
        assert_eq!((snapshot.objects.len(), snapshot.gaps.len()), (1, 1));
    }
}
