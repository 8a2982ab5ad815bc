//! Which fields the Istio and Gateway API kinds have, and of which type: the table behind GM002 and part of GM003.
//!
//! The table is text made by `scripts/fields.py` from the published CRDs, and read once when it is first needed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::kind::Kind;
use crate::schema::path::push_field;
use crate::vocabulary::nearest_name;

/// Something in an object that its kind's schema does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Field path.
    pub path: String,
    /// What is wrong.
    pub what: FieldError,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// There is no such field here.
    Unknown {
        /// The field.
        name: String,
        /// The nearest name that does exist here.
        nearest: Option<String>,
        /// Where a field of this name does exist, near by.
        elsewhere: Option<String>,
    },
    /// The value has another type.
    Type {
        /// What the schema wants, such as `a string`.
        wanted: &'static str,
        /// The value as JSON, shortened.
        found: String,
    },
    /// The value is of its type, and refused all the same.
    Refused {
        /// Why.
        message: String,
        /// What would be right.
        fix: String,
    },
    /// The value is none of the allowed words.
    Word {
        /// The value.
        found: String,
        /// The words.
        allowed: Vec<String>,
    },
}

/// A field's type and what is inside it.
#[derive(Debug)]
struct Node {
    kind: Type,
    /// How many lists are around the type.
    lists: usize,
    children: BTreeMap<&'static str, Node>,
}

#[derive(Debug)]
enum Type {
    Text,
    Words(Vec<&'static str>),
    Integer,
    Number,
    Boolean,
    Object,
    Map,
    IntOrText,
    Anything,
}

static TEXT: &str = include_str!("fields.txt");

/// The tree of each kind, under `group/Kind`.
fn trees() -> &'static BTreeMap<&'static str, Node> {
    static TREES: OnceLock<BTreeMap<&'static str, Node>> = OnceLock::new();
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

fn children<I: Iterator<Item = &'static str>>(
    lines: &mut std::iter::Peekable<I>,
    depth: usize,
) -> BTreeMap<&'static str, Node> {
    let mut fields = BTreeMap::new();
    while let Some(line) = lines.peek() {
        let content = line.trim_start();
        if line.len() - content.len() != depth {
            break;
        }
        lines.next();
        let (name, kind) = content.split_once(' ').unwrap_or((content, "x"));
        let lists = kind.matches("[]").count();
        let kind = match kind.trim_start_matches("[]") {
            "s" => Type::Text,
            "i" => Type::Integer,
            "n" => Type::Number,
            "b" => Type::Boolean,
            "o" => Type::Object,
            "m" => Type::Map,
            "q" => Type::IntOrText,
            other => match other.strip_prefix("s=") {
                Some(words) => Type::Words(words.split('|').collect()),
                None => Type::Anything,
            },
        };
        fields.insert(name, Node { kind, lists, children: children(lines, depth + 1) });
    }
    fields
}

/// Compares an object's body with its kind's schema. Kinds without a table have no problems.
pub fn check(kind: Kind, body: &Value) -> Vec<FieldProblem> {
    let info = kind.info();
    let Some(tree) = trees().get(format!("{}/{}", info.group, info.name).as_str()) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let Value::Object(top) = body else {
        return problems;
    };
    for (name, value) in top {
        match name.as_str() {
            "spec" => compare(tree, tree.lists, value, "spec", &mut problems),
            "apiVersion" | "kind" | "metadata" | "status" => {}
            other => {
                const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
                let elsewhere = tree.children.contains_key(other).then(|| format!("spec.{other}"));
                let nearest = nearest_name::nearest(other, TOP).map(str::to_owned);
                let what = FieldError::Unknown { name: other.to_owned(), nearest, elsewhere };
                problems.push(FieldProblem { path: other.to_owned(), what });
            }
        }
    }
    problems
}

fn compare(node: &Node, lists: usize, value: &Value, path: &str, problems: &mut Vec<FieldProblem>) {
    if value.is_null() {
        return;
    }
    if lists > 0 {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    compare(node, lists - 1, item, &format!("{path}[{index}]"), problems);
                }
            }
            other => problems.push(wrong_type(path, "a list", other)),
        }
        return;
    }
    match (&node.kind, value) {
        (Type::Anything, _)
        | (Type::Text, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_))
        | (Type::IntOrText, Value::String(_) | Value::Number(_)) => {}
        (Type::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {}
        (Type::Words(words), Value::String(text)) => {
            if !words.contains(&text.as_str()) {
                let allowed = words.iter().map(|&word| word.to_owned()).collect();
                let what = FieldError::Word { found: text.clone(), allowed };
                problems.push(FieldProblem { path: path.to_owned(), what });
            }
        }
        (Type::Object, Value::Object(fields)) => {
            for (name, value) in fields {
                let mut inner = path.to_owned();
                push_field(&mut inner, name);
                match node.children.get(name.as_str()) {
                    Some(child) => compare(child, child.lists, value, &inner, problems),
                    None => {
                        let what = FieldError::Unknown {
                            name: name.clone(),
                            nearest: nearest_name::nearest(name, node.children.keys().copied()).map(str::to_owned),
                            elsewhere: find_below(node, name, path),
                        };
                        problems.push(FieldProblem { path: inner, what });
                    }
                }
            }
        }
        (Type::Map, Value::Object(fields)) => {
            let Some(child) = node.children.get("*") else { return };
            for (name, value) in fields {
                let mut inner = path.to_owned();
                push_field(&mut inner, name);
                compare(child, child.lists, value, &inner, problems);
            }
        }
        (Type::Text | Type::Words(_), other) => problems.push(wrong_type(path, "a string", other)),
        (Type::Integer, other) => problems.push(wrong_type(path, "a whole number", other)),
        (Type::Number, other) => problems.push(wrong_type(path, "a number", other)),
        (Type::Boolean, other) => problems.push(wrong_type(path, "true or false", other)),
        (Type::IntOrText, other) => problems.push(wrong_type(path, "a number or a string", other)),
        (Type::Object | Type::Map, other) => problems.push(wrong_type(path, "a mapping", other)),
    }
}

fn wrong_type(path: &str, wanted: &'static str, found: &Value) -> FieldProblem {
    let text = found.to_string();
    let found =
        if text.chars().count() > 40 { format!("{}…", text.chars().take(40).collect::<String>()) } else { text };
    FieldProblem { path: path.to_owned(), what: FieldError::Type { wanted, found } }
}

/// A field of this name one or two levels further in: "weight at the wrong level".
fn find_below(node: &Node, name: &str, path: &str) -> Option<String> {
    let suffix = |node: &Node| if node.lists > 0 { "[]" } else { "" };
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
mod tests {
    use super::*;
    use crate::schema::kind::KINDS;

    #[track_caller]
    fn problems(kind: Kind, spec: &str) -> Vec<String> {
        let body = crate::snapshot::yaml::to_json(&format!("spec: {spec}")).unwrap().json.unwrap();
        let body: Value = serde_json::from_str(body.get()).unwrap();
        check(kind, &body).into_iter().map(|problem| format!("{} {:?}", problem.path, problem.what)).collect()
    }

    #[test]
    fn every_mesh_kind_has_a_table() {
        for info in KINDS.iter().filter(|info| info.kind.is_mesh_kind()) {
            let title = format!("{}/{}", info.group, info.name);
            assert!(trees().get(title.as_str()).is_some_and(|tree| !tree.children.is_empty()), "{title}");
        }
    }

    #[test]
    fn unknown_fields_get_the_nearest_name_or_the_right_place() {
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
    fn types_and_words_are_compared() {
        assert_eq!(
            problems(Kind::VirtualService, "{http: [{timeout: 5, match: [{uri: {exact: yes}}]}]}"),
            [
                "spec.http[0].match[0].uri.exact Type { wanted: \"a string\", found: \"true\" }",
                "spec.http[0].timeout Type { wanted: \"a string\", found: \"5\" }"
            ]
        );
        assert_eq!(problems(Kind::DestinationRule, "{trafficPolicy: {tls: {mode: simple}}}").len(), 1);
    }

    #[test]
    fn what_the_schema_has_is_silent() {
        let spec = "{hosts: [a], http: [{match: [{headers: {x: {exact: b}}}], route: [{destination: {host: a, subset: b, port: {number: 1}}, weight: 1}], \
                    retries: {attempts: 2, backoff: 1s}, fault: null}]}";
        assert_eq!(problems(Kind::VirtualService, spec), Vec::<String>::new());
        assert_eq!(problems(Kind::HttpRoute, "{rules: [{retry: {attempts: 2}}]}"), Vec::<String>::new());
    }
}
