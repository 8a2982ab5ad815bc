//! Field paths such as `spec.http[0].headers["x.y"]`.

/// One step of a field path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// A field of a mapping.
    Field(String),
    /// An item of a list, from 0.
    Index(usize),
}

/// Splits a field path into segments. An index that is not a number is dropped.
pub fn parse_path(path: &str) -> Vec<PathSegment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (field, after) = quoted.split_once("\"]").unwrap_or((quoted, ""));
            segments.push(PathSegment::Field(field.to_owned()));
            rest = after;
        } else if let Some(bracket) = rest.strip_prefix('[') {
            let (index, after) = bracket.split_once(']').unwrap_or((bracket, ""));
            if let Ok(index) = index.parse() {
                segments.push(PathSegment::Index(index));
            }
            rest = after;
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let (field, after) = field.split_at(field.find(['.', '[']).unwrap_or(field.len()));
            if !field.is_empty() {
                segments.push(PathSegment::Field(field.to_owned()));
            }
            rest = after;
        }
    }
    segments
}

/// Appends a field name to a path, in quotes when the name has characters with a meaning in paths.
pub fn push_field(path: &mut String, field: &str) {
    if field.contains(['.', '[', '/', '"']) || field.is_empty() {
        path.push_str("[\"");
        path.push_str(field);
        path.push_str("\"]");
    } else {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_quoted_names_and_indexes() {
        let mut path = "spec.http[0].headers".to_owned();
        push_field(&mut path, "x.y");
        assert_eq!(path, "spec.http[0].headers[\"x.y\"]");
        let fields = ["spec", "http", "headers", "x.y"].map(|name| PathSegment::Field(name.to_owned()));
        let [spec, http, headers, quoted] = fields;
        assert_eq!(parse_path(&path), [spec, http, PathSegment::Index(0), headers, quoted]);
    }
}
