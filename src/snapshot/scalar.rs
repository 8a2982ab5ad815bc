//! Resolves plain YAML scalars like kubectl: booleans, numbers, null and strings.

use std::borrow::Cow;

use granit_parser::{ScalarStyle, Tag};

/// A resolved scalar.
pub(super) enum ScalarValue<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A JSON literal: a number, `true`, `false` or `null`.
    Literal(Cow<'static, str>),
}

impl ScalarValue<'_> {
    /// Converts the scalar to a key: kubectl converts numbers and booleans to their text.
    pub(super) fn into_key(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Literal(literal) => literal.into_owned(),
        }
    }
}

/// Resolves a scalar by its style, tag and text.
pub(super) fn resolve<'a>(value: &'a str, style: ScalarStyle, tag: Option<&Tag>) -> Result<ScalarValue<'a>, String> {
    let text = || Ok(ScalarValue::Text(Cow::Borrowed(value)));
    let core = tag.and_then(Tag::core_suffix);
    match core {
        Some("str") => return text(),
        Some(_) => {}
        None if tag.is_some() || style != ScalarStyle::Plain => return text(),
        None => {}
    }
    let literal = |text: &'static str| Ok(ScalarValue::Literal(Cow::Borrowed(text)));
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return literal("null"),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return literal("true"),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return literal("false");
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => return Err(format!("{value} cannot be represented in JSON")),
        _ => {}
    }
    if !value.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return text();
    }
    match number_to_json(value) {
        Some(number) => Ok(ScalarValue::Literal(Cow::Owned(number))),
        None => text(),
    }
}

/// Converts a plain scalar that go-yaml v2 reads as a number to JSON.
fn number_to_json(value: &str) -> Option<String> {
    let plain: Cow<'_, str> =
        if value.contains('_') { Cow::Owned(value.replace('_', "")) } else { Cow::Borrowed(value) };
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, plain.get(1..)?),
        b'+' => (false, plain.get(1..)?),
        _ => (false, &*plain),
    };
    if let Some(magnitude) = parse_integer(digits) {
        if !negative {
            return u64::try_from(magnitude).ok().map(|n| n.to_string());
        }
        let limit = 1_u128 << 63;
        if magnitude <= limit {
            return Some(if magnitude == 0 { "0".to_owned() } else { format!("-{magnitude}") });
        }
    }
    if !is_float(&plain) {
        return None;
    }
    let float: f64 = plain.parse().ok()?;
    if !float.is_finite() {
        return None;
    }
    Some(if float.fract() == 0.0 && float.abs() < 1e21 { format!("{float:.0}") } else { format!("{float}") })
}

/// Parses like Go's `strconv.ParseInt(s, 0, 64)`, without a sign: the prefix selects the base, and a leading 0 means octal.
fn parse_integer(digits: &str) -> Option<u128> {
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (digits.get(2..)?, 16),
        [b'0', b'b' | b'B', ..] => (digits.get(2..)?, 2),
        [b'0', b'o' | b'O', ..] => (digits.get(2..)?, 8),
        [b'0', _, ..] => (digits.get(1..)?, 8),
        _ => (digits, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let number = u128::from_str_radix(digits, radix).ok()?;
    (number <= u128::from(u64::MAX)).then_some(number)
}

/// Matches go-yaml's `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_mantissa = match mantissa.split_once('.') {
        None => all_digits(mantissa),
        Some(("", fraction)) => all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && (fraction.is_empty() || all_digits(fraction)),
    };
    is_mantissa && exponent.is_none_or(|e| all_digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
}

pub(super) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

pub(super) fn write_string(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // Serializing a string cannot fail.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}
