//! The fields of the Istio and Gateway API kinds and their types: the table that GM002 and part of GM003 use.
//!
//! `scripts/fields.py` generates the table (`fields.txt`) from the published CRDs. It is parsed once, on first use.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::kind::Kind;
use crate::schema::path::push_field;
use crate::vocabulary::nearest_name;

/// A field that violates its kind's schema or a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    pub path: String,
    pub error: FieldError,
}

/// How a field violates the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// The schema has no such field at this path.
    Unknown {
        name: String,
        /// The most similar field name at this path.
        nearest: Option<String>,
        /// Path, one or two levels deeper, of a field with this name.
        elsewhere: Option<String>,
    },
    /// The value has another type.
    WrongType {
        /// The type in the schema, such as `a string`.
        expected: &'static str,
        /// The value as JSON, shortened to 40 characters.
        actual: String,
    },
    /// The value has the right type, but Istio's webhook or the CRD rejects it.
    Rejected { message: String, fix: String },
    /// The value is not in the field's list of allowed values.
    NotAllowed { value: String, allowed: Vec<String> },
}

/// A field's type and its child fields.
#[derive(Debug)]
struct SchemaNode {
    kind: FieldType,
    /// Number of list levels around the type: 1 for `[]string`.
    list_depth: usize,
    children: BTreeMap<&'static str, SchemaNode>,
}

#[derive(Debug)]
enum FieldType {
    Text,
    Enum(Vec<&'static str>),
    Integer,
    Number,
    Boolean,
    Object,
    Map,
    IntOrText,
    Anything,
}

static TEXT: &str = include_str!("fields.txt");

/// The schema of each kind's `spec`, by `group/Kind`.
fn schemas_by_kind() -> &'static BTreeMap<&'static str, SchemaNode> {
    static TREES: OnceLock<BTreeMap<&'static str, SchemaNode>> = OnceLock::new();
    TREES.get_or_init(|| {
        let mut trees = BTreeMap::new();
        let mut lines = TEXT.lines().filter(|line| !line.starts_with('#')).peekable();
        while let Some(title) = lines.next() {
            let mut fields = children(&mut lines, 1);
            if let Some(spec) = fields.remove("spec") {
                trees.insert(title, spec);
            }
        }
        trees
    })
}

/// Parses the lines indented by `depth` into fields, with their own children.
fn children<I: Iterator<Item = &'static str>>(
    lines: &mut std::iter::Peekable<I>,
    depth: usize,
) -> BTreeMap<&'static str, SchemaNode> {
    let mut fields = BTreeMap::new();
    while let Some(line) = lines.peek() {
        let content = line.trim_start();
        if line.len() - content.len() != depth {
            break;
        }
        lines.next();
        let (name, kind) = content.split_once(' ').unwrap_or((content, "x"));
        let list_depth = kind.matches("[]").count();
        let kind = match kind.trim_start_matches("[]") {
            "s" => FieldType::Text,
            "i" => FieldType::Integer,
            "n" => FieldType::Number,
            "b" => FieldType::Boolean,
            "o" => FieldType::Object,
            "m" => FieldType::Map,
            "q" => FieldType::IntOrText,
            other => match other.strip_prefix("s=") {
                Some(values) => FieldType::Enum(values.split('|').collect()),
                None => FieldType::Anything,
            },
        };
        fields.insert(name, SchemaNode { kind, list_depth, children: children(lines, depth + 1) });
    }
    fields
}

/// Whether the table has the fields of a kind.
pub fn has_schema(kind: Kind) -> bool {
    let info = kind.info();
    schemas_by_kind().contains_key(format!("{}/{}", info.group, info.name).as_str())
}

/// Checks an object's body against its kind's schema. Kinds without a schema have no problems.
pub fn check(kind: Kind, body: &Value) -> Vec<FieldProblem> {
    let info = kind.info();
    let Some(tree) = schemas_by_kind().get(format!("{}/{}", info.group, info.name).as_str()) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let Value::Object(top) = body else {
        return problems;
    };
    for (name, value) in top {
        match name.as_str() {
            "spec" => compare(tree, tree.list_depth, value, "spec", &mut problems),
            "apiVersion" | "kind" | "metadata" | "status" => {}
            other => {
                const TOP_LEVEL: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
                let elsewhere = tree.children.contains_key(other).then(|| format!("spec.{other}"));
                let nearest = nearest_name::nearest(other, TOP_LEVEL).map(str::to_owned);
                let error = FieldError::Unknown { name: other.to_owned(), nearest, elsewhere };
                problems.push(FieldProblem { path: other.to_owned(), error });
            }
        }
    }
    problems
}

fn compare(node: &SchemaNode, list_depth: usize, value: &Value, path: &str, problems: &mut Vec<FieldProblem>) {
    if value.is_null() {
        return;
    }
    if list_depth > 0 {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    compare(node, list_depth - 1, item, &format!("{path}[{index}]"), problems);
                }
            }
            other => problems.push(wrong_type(path, "a list", other)),
        }
        return;
    }
    match (&node.kind, value) {
        (FieldType::Anything, _)
        | (FieldType::Text, Value::String(_))
        | (FieldType::Boolean, Value::Bool(_))
        | (FieldType::Number, Value::Number(_))
        | (FieldType::IntOrText, Value::String(_) | Value::Number(_)) => {}
        (FieldType::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {}
        (FieldType::Enum(allowed), Value::String(text)) => {
            if !allowed.contains(&text.as_str()) {
                let allowed = allowed.iter().map(|&value| value.to_owned()).collect();
                let error = FieldError::NotAllowed { value: text.clone(), allowed };
                problems.push(FieldProblem { path: path.to_owned(), error });
            }
        }
        (FieldType::Object, Value::Object(fields)) => {
            for (name, value) in fields {
                let mut inner = path.to_owned();
                push_field(&mut inner, name);
                match node.children.get(name.as_str()) {
                    Some(child) => compare(child, child.list_depth, value, &inner, problems),
                    None => {
                        let error = FieldError::Unknown {
                            name: name.clone(),
                            nearest: nearest_name::nearest(name, node.children.keys().copied()).map(str::to_owned),
                            elsewhere: find_deeper(node, name, path),
                        };
                        problems.push(FieldProblem { path: inner, error });
                    }
                }
            }
        }
        (FieldType::Map, Value::Object(fields)) => {
            let Some(child) = node.children.get("*") else { return };
            for (name, value) in fields {
                let mut inner = path.to_owned();
                push_field(&mut inner, name);
                compare(child, child.list_depth, value, &inner, problems);
            }
        }
        (FieldType::Text | FieldType::Enum(_), other) => problems.push(wrong_type(path, "a string", other)),
        (FieldType::Integer, other) => problems.push(wrong_type(path, "a whole number", other)),
        (FieldType::Number, other) => problems.push(wrong_type(path, "a number", other)),
        (FieldType::Boolean, other) => problems.push(wrong_type(path, "true or false", other)),
        (FieldType::IntOrText, other) => problems.push(wrong_type(path, "a number or a string", other)),
        (FieldType::Object | FieldType::Map, other) => problems.push(wrong_type(path, "a mapping", other)),
    }
}

fn wrong_type(path: &str, expected: &'static str, value: &Value) -> FieldProblem {
    let text = value.to_string();
    let actual =
        if text.chars().count() > 40 { format!("{}…", text.chars().take(40).collect::<String>()) } else { text };
    FieldProblem { path: path.to_owned(), error: FieldError::WrongType { expected, actual } }
}

/// Finds a field with this name one or two levels deeper, for a field that is written at the wrong level.
fn find_deeper(node: &SchemaNode, name: &str, path: &str) -> Option<String> {
    let suffix = |node: &SchemaNode| if node.list_depth > 0 { "[]" } else { "" };
    for (first, child) in &node.children {
        if child.children.contains_key(name) {
            return Some(format!("{path}.{first}{}.{name}", suffix(child)));
        }
    }
    for (first, child) in &node.children {
        for (second, grandchild) in &child.children {
            if grandchild.children.contains_key(name) {
                return Some(format!("{path}.{first}{}.{second}{}.{name}", suffix(child), suffix(grandchild)));
            }
        }
    }
    None
}

#[cfg(test)]
impl SchemaNode {
    fn example(&self, list_depth: usize) -> Value {
        if list_depth > 0 {
            return Value::Array(vec![self.example(list_depth - 1)]);
        }
        match &self.kind {
            FieldType::Text => "x".into(),
            FieldType::Enum(values) => {
                values.iter().find(|value| !value.is_empty()).copied().unwrap_or_default().into()
            }
            FieldType::Integer | FieldType::Number | FieldType::IntOrText => 1.into(),
            FieldType::Boolean => true.into(),
            FieldType::Anything => serde_json::json!({}),
            FieldType::Object => {
                self.children.iter().map(|(name, node)| ((*name).to_owned(), node.example(node.list_depth))).collect()
            }
            FieldType::Map => {
                let value = self.children.get("*").map_or_else(|| "x".into(), |node| node.example(node.list_depth));
                serde_json::json!({ "1": value })
            }
        }
    }
}

/// A `spec` of a kind with every field of its schema.
#[cfg(test)]
pub(crate) fn example(kind: Kind) -> Option<Value> {
    let info = kind.info();
    let tree = schemas_by_kind().get(format!("{}/{}", info.group, info.name).as_str())?;
    Some(tree.example(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::kind::KINDS;

    #[track_caller]
    fn problems(kind: Kind, spec: &str) -> Vec<String> {
        let body = crate::snapshot::yaml::to_json(&format!("spec: {spec}")).unwrap().json.unwrap();
        let body: Value = serde_json::from_str(body.get()).unwrap();
        check(kind, &body).into_iter().map(|problem| format!("{} {:?}", problem.path, problem.error)).collect()
    }

    #[test]
    fn every_mesh_kind_has_a_table() {
        for info in KINDS.iter().filter(|info| info.kind.is_mesh_kind()) {
            let title = format!("{}/{}", info.group, info.name);
            assert!(schemas_by_kind().get(title.as_str()).is_some_and(|tree| !tree.children.is_empty()), "{title}");
        }
    }

    #[test]
    fn unknown_fields_suggest_the_nearest_name_or_the_right_path() {
        assert_eq!(
            problems(
                Kind::DestinationRule,
                "{host: a, trafficPolicy: {connectionPool: {http: {maxConcurentStreams: 1}}}}"
            ),
            [
                "spec.trafficPolicy.connectionPool.http.maxConcurentStreams Unknown { name: \"maxConcurentStreams\", nearest: Some(\"maxConcurrentStreams\"), elsewhere: None }"
            ]
        );
        assert_eq!(
            problems(Kind::VirtualService, "{http: [{weight: 1}]}"),
            [
                "spec.http[0].weight Unknown { name: \"weight\", nearest: None, elsewhere: Some(\"spec.http[0].route[].weight\") }"
            ]
        );
    }

    #[test]
    fn reports_wrong_types_and_values_that_are_not_allowed() {
        assert_eq!(
            problems(Kind::VirtualService, "{http: [{timeout: 5, match: [{uri: {exact: yes}}]}]}"),
            [
                "spec.http[0].match[0].uri.exact WrongType { expected: \"a string\", actual: \"true\" }",
                "spec.http[0].timeout WrongType { expected: \"a string\", actual: \"5\" }"
            ]
        );
        assert_eq!(problems(Kind::DestinationRule, "{trafficPolicy: {tls: {mode: simple}}}").len(), 1);
    }

    #[test]
    fn accepts_fields_of_the_schema() {
        let spec = "{hosts: [a], http: [{match: [{headers: {x: {exact: b}}}], route: [{destination: {host: a, subset: b, port: {number: 1}}, weight: 1}], \
                    retries: {attempts: 2, backoff: 1s}, fault: null}]}";
        assert_eq!(problems(Kind::VirtualService, spec), Vec::<String>::new());
        assert_eq!(problems(Kind::HttpRoute, "{rules: [{retry: {attempts: 2}}]}"), Vec::<String>::new());
    }
}
