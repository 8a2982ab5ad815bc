//! Every field of `src/schema` is read by some code: a field that nothing reads is decoded for nothing.
//!
//! The check works on source text. A field counts as read when code outside of tests accesses `.name`, or destructures its
//! type and names it. Fields of different types that share a name therefore count as one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A public field of a struct in `src/schema`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SchemaField {
    owner: String,
    name: String,
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The code of a file without comments and unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn schema_fields(code: &str) -> Vec<SchemaField> {
    let mut fields = Vec::new();
    let mut owner = None;
    for line in code.lines() {
        if let Some(declaration) = line.strip_prefix("pub struct ") {
            let end = declaration.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(declaration.len());
            owner = declaration.ends_with('{').then(|| declaration[..end].to_owned());
        } else if line == "}" {
            owner = None;
        } else if let (Some(owner), Some(field)) = (&owner, line.strip_prefix("    pub "))
            && let Some((name, _)) = field.split_once(':')
        {
            fields.push(SchemaField { owner: owner.clone(), name: name.to_owned() });
        }
    }
    fields
}

/// Names that the code accesses as fields: `.name`, but not `.name(`.
fn accessed_names(code: &str) -> BTreeSet<&str> {
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for (index, _) in code.match_indices('.') {
        let rest = &code[index + 1..];
        let end = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        if end > 0 && !rest[end..].starts_with('(') {
            names.insert(&rest[..end]);
        }
    }
    names
}

/// Reports whether `let Owner { …, name, … } = …` destructures the field.
fn is_destructured(code: &str, field: &SchemaField) -> bool {
    let pattern = format!("let {} {{", field.owner);
    code.match_indices(&pattern).any(|(index, _)| {
        let bindings = code[index + pattern.len()..].split('}').next().unwrap_or_default();
        bindings.split(',').any(|binding| binding.split(':').next().unwrap_or_default().trim() == field.name)
    })
}

fn unread_fields(schema: &str, all_code: &str) -> Vec<SchemaField> {
    let accessed = accessed_names(all_code);
    let is_read = |field: &SchemaField| accessed.contains(field.name.as_str()) || is_destructured(all_code, field);
    schema_fields(schema).into_iter().filter(|field| !is_read(field)).collect()
}

fn join(files: &[PathBuf]) -> String {
    files.iter().map(|path| code(path)).collect::<Vec<_>>().join("\n")
}

#[test]
fn code_reads_every_schema_field() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let schema = join(&rust_files(&source.join("schema")));
    assert!(schema_fields(&schema).len() > 300, "the scan finds the declarations");
    let unread: Vec<String> = unread_fields(&schema, &join(&rust_files(&source)))
        .into_iter()
        .map(|field| format!("{}.{}", field.owner, field.name))
        .collect();
    assert!(unread.is_empty(), "no code reads these fields of src/schema; remove them: {}", unread.join(", "));
}

#[test]
fn an_unread_field_is_reported_with_its_type() {
    let schema = "pub struct Pod {\n    pub name: String,\n    pub phase: String,\n    pub host_ip: String,\n}\n";
    let code = "fn read(pod: Pod) { pod.host_ip(); print(pod.name); let Pod { phase, .. } = pod; }";
    let expected = SchemaField { owner: "Pod".to_owned(), name: "host_ip".to_owned() };
    assert_eq!(unread_fields(schema, code), [expected]);
}
