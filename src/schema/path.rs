//! Paths of fields, such as `spec.http[0].headers["x.y"]`.

/// A piece of a field path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// A field of a mapping.
    Field(String),
    /// An element of a list.
    Index(usize),
}

/// Splits `spec.http[0].headers["x.y"]` into its pieces.
///
/// ```
/// use grpcmesh::schema::path::{parse_path, Segment};
/// assert_eq!(parse_path("a[1]"), vec![Segment::Field("a".into()), Segment::Index(1)]);
/// ```
pub fn parse_path(path: &str) -> Vec<PathSegment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]").unwrap_or(quoted.len());
            segments.push(PathSegment::Field(quoted[..end].to_owned()));
            rest = quoted.get(end + 2..).unwrap_or("");
        } else if let Some(bracket) = rest.strip_prefix('[') {
            let end = bracket.find(']').unwrap_or(bracket.len());
            if let Ok(index) = bracket[..end].parse() {
                segments.push(PathSegment::Index(index));
            }
            rest = bracket.get(end + 1..).unwrap_or("");
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let end = field.find(['.', '[']).unwrap_or(field.len());
            if end > 0 {
                segments.push(PathSegment::Field(field[..end].to_owned()));
            }
            rest = &field[end..];
        }
    }
    segments
}

/// Appends a field to a path, quoted when its name has characters that a path uses.
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
