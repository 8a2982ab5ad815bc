//! Booleans as Go reads them, in labels, annotations and environment variables.

/// The values that Go's `strconv.ParseBool` accepts. `None`: any other text, which istiod treats as absent or false.
pub fn parse(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
