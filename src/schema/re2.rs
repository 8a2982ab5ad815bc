//! Translates RE2 expressions, which Istio and Envoy use, to expressions of the `regex` crate.
//!
//! The two languages differ in details: RE2 accepts `[[a]` and `/a{b}`, quotes with `\Q…\E`, has ASCII classes, and
//! rejects `a**`, `a{2000}` and `\u0041`. Istio's webhook compiles expressions with Go's `regexp`, so the rules here
//! follow its parser. Source: Go, `regexp/syntax/parse.go` with the flags `Perl`.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::OnceLock;

/// The largest count that RE2 accepts in `{n,m}`.
const REPEAT_MAX: u32 = 1000;

/// Compiles an RE2 expression. Like Envoy's `safe_regex`, it must match the whole text.
///
/// # Errors
/// Why RE2 rejects the expression, in a few words.
pub fn compile(pattern: &str) -> Result<regex::Regex, String> {
    let translated = translate(pattern)?;
    regex::Regex::new(&format!("^(?:{translated})$")).map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// Compiles an RE2 expression that may match a part of the text, as in a substitution.
///
/// # Errors
/// Why RE2 rejects the expression, in a few words.
pub fn compile_search(pattern: &str) -> Result<regex::Regex, String> {
    regex::Regex::new(&translate(pattern)?).map_err(|error| error.to_string())
}

/// An RE2 expression, compiled once on first use.
#[derive(Debug, Clone)]
pub struct Re2Pattern {
    text: String,
    compiled: OnceLock<Result<regex::Regex, String>>,
}

impl Re2Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Why RE2 rejects the expression, in a few words; `None` when it is valid.
    pub fn error(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    /// Reports whether the expression matches the whole text. An invalid expression matches nothing.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled().as_ref().is_ok_and(|regex| regex.is_match(text))
    }

    fn compiled(&self) -> &Result<regex::Regex, String> {
        self.compiled.get_or_init(|| compile(&self.text))
    }
}

impl PartialEq for Re2Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Re2Pattern {}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut input = pattern.chars().peekable();
    // RE2 rejects a repetition operator directly after another one.
    let mut follows_repetition = false;
    while let Some(c) = input.next() {
        let mut is_repetition = false;
        match c {
            '*' | '+' | '?' => {
                is_repetition = true;
                out.push(c);
            }
            '{' => match read_repetition(&mut input)? {
                Some(counts) => {
                    is_repetition = true;
                    out.push_str(&counts);
                }
                None => out.push_str("\\{"),
            },
            '}' => out.push_str("\\}"),
            ']' => out.push_str("\\]"),
            '[' => read_class(&mut input, &mut out)?,
            '(' => read_group(&mut input, &mut out)?,
            '\\' => read_escape(&mut input, &mut out)?,
            c => out.push(c),
        }
        if is_repetition {
            if follows_repetition {
                return Err("two repetition operators in a row".to_owned());
            }
            if input.next_if_eq(&'?').is_some() {
                out.push('?');
            }
        }
        follows_repetition = is_repetition;
    }
    Ok(out)
}

/// Reads a repetition after `{`. Returns `None`, and reads nothing, when the brace is a literal.
fn read_repetition(input: &mut Peekable<Chars<'_>>) -> Result<Option<String>, String> {
    let ahead: String = input.clone().take_while(|c| *c != '}').collect();
    let closed = input.clone().any(|c| c == '}');
    let (low, high) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
    let is_count = |text: &str| !text.is_empty() && text.len() < 8 && text.bytes().all(|b| b.is_ascii_digit());
    let has_comma = ahead.contains(',');
    if !closed || !is_count(low) || !(is_count(high) || (has_comma && high.is_empty())) {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<u32>().unwrap_or_default();
    if number(low) > REPEAT_MAX || number(high) > REPEAT_MAX || (!high.is_empty() && number(high) < number(low)) {
        return Err(format!("invalid repetition {{{ahead}}}: the maximum is {REPEAT_MAX}"));
    }
    input.nth(ahead.len());
    Ok(Some(format!("{{{ahead}}}")))
}

/// Reads the part after `(`: a capture group, a named group, or flags.
fn read_group(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('(');
    if input.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    let mut head = String::new();
    for c in input.by_ref() {
        head.push(c);
        if matches!(c, ':' | ')' | '>') || head.len() > 40 {
            break;
        }
    }
    let name = head.strip_prefix("P<").or_else(|| head.strip_prefix('<')).and_then(|name| name.strip_suffix('>'));
    if let Some(name) = name {
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        // Names have no effect on matching. They are dropped, because RE2 accepts the same name twice.
        return if is_name { Ok(()) } else { Err(format!("invalid group name \"{name}\"")) };
    }
    let flags = head.strip_suffix([':', ')']).filter(|flags| flags.chars().all(|c| "imsU-".contains(c)));
    match flags {
        Some(_) => {
            out.push('?');
            out.push_str(&head);
            Ok(())
        }
        None => Err(format!("(?{head} is not supported: RE2 has no look-around")),
    }
}

/// Reads an escape sequence after its backslash, outside a character class.
fn read_escape(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match input.next() {
        None => Err("trailing backslash".to_owned()),
        Some('Q') => {
            let rest: String = input.clone().collect();
            let quoted = rest.split("\\E").next().unwrap_or_default();
            out.push_str(&regex::escape(quoted));
            for _ in 0..quoted.chars().count() + 2 {
                input.next();
            }
            Ok(())
        }
        Some('E') => Ok(()),
        Some('A') => {
            out.push_str("\\A");
            Ok(())
        }
        Some('z') => {
            out.push_str("\\z");
            Ok(())
        }
        Some(c @ ('b' | 'B')) => {
            out.push_str(&format!("(?-u:\\{c})"));
            Ok(())
        }
        Some(c) => match perl_class(c) {
            Some(set) => {
                let not = if c.is_ascii_uppercase() { "^" } else { "" };
                out.push_str(&format!("[{not}{set}]"));
                Ok(())
            }
            None if matches!(c, 'p' | 'P') => read_property(c, input, out),
            None => {
                out.push_str(&regex::escape(&read_literal(c, input)?.to_string()));
                Ok(())
            }
        },
    }
}

/// The ASCII characters of `\d`, `\s` and `\w`; the upper-case forms stand for all other characters.
fn perl_class(c: char) -> Option<&'static str> {
    match c {
        'd' | 'D' => Some("0-9"),
        's' | 'S' => Some("\\t\\n\\x0C\\r "),
        'w' | 'W' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

/// Reads a Unicode general category or script after `\p` or `\P`.
fn read_property(c: char, input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let name: String = match input.next() {
        Some('{') => input.by_ref().take_while(|c| *c != '}').collect(),
        Some(letter) => letter.to_string(),
        None => String::new(),
    };
    let (not, bare) = name.strip_prefix('^').map_or((false, name.as_str()), |bare| (true, bare));
    let negated = (c == 'P') != not;
    let letter = if negated { 'P' } else { 'p' };
    let is_category = bare.len() <= 2 && bare.starts_with(|c: char| "CLMNPSZ".contains(c));
    let property = match bare {
        "Any" => "Any".to_owned(),
        bare if is_category => format!("gc={bare}"),
        bare => format!("sc={bare}"),
    };
    let class = format!("\\{letter}{{{property}}}");
    match regex::Regex::new(&class) {
        Ok(_) => {
            out.push_str(&class);
            Ok(())
        }
        Err(_) => Err(format!("unknown character class \\{c}{{{name}}}")),
    }
}

/// Reads the rest of an escaped character after its first letter `c`.
fn read_literal(c: char, input: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let invalid = || format!("invalid escape sequence \\{c}");
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        '0'..='7' => {
            let is_octal = input.peek().is_some_and(|next| ('0'..='7').contains(next));
            // A single digit other than 0 is a back-reference.
            if c != '0' && !is_octal {
                return Err("RE2 has no back-references".to_owned());
            }
            let mut value = c.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(next) = input.next_if(|next| ('0'..='7').contains(next)) else { break };
                value = value * 8 + next.to_digit(8).unwrap_or_default();
            }
            char::from_u32(value).ok_or_else(invalid)
        }
        'x' => {
            let digits: String = match input.next() {
                Some('{') => input.by_ref().take_while(|c| *c != '}').collect(),
                Some(first) => first.to_string() + &input.next().map(String::from).unwrap_or_default(),
                None => String::new(),
            };
            u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or_else(invalid)
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
        _ => Err(invalid()),
    }
}

/// Reads a character class after `[`.
fn read_class(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let unclosed = || "missing closing ]".to_owned();
    out.push('[');
    if input.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        let c = input.next().ok_or_else(unclosed)?;
        if c == ']' && !first {
            out.push(']');
            return Ok(());
        }
        first = false;
        if c == '[' && input.peek() == Some(&':') {
            let ahead: String = input.clone().take_while(|c| *c != ']').collect();
            if ahead.ends_with(':') && ahead.len() > 1 {
                let name = ahead.trim_matches(':').trim_start_matches('^');
                let classes =
                    ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct"];
                if !classes.contains(&name) && !["space", "upper", "word", "xdigit"].contains(&name) {
                    return Err(format!("unknown character class [{ahead}]"));
                }
                out.push_str(&format!("[{ahead}]"));
                input.nth(ahead.chars().count());
                continue;
            }
        }
        if c == '\\' {
            let next = *input.peek().ok_or_else(unclosed)?;
            if let Some(set) = perl_class(next) {
                input.next();
                if next.is_ascii_uppercase() {
                    out.push_str(&format!("[^{set}]"));
                } else {
                    out.push_str(set);
                }
                continue;
            }
            if matches!(next, 'p' | 'P') {
                input.next();
                read_property(next, input, out)?;
                continue;
            }
        }
        let low = read_class_char(c, input)?;
        let mut ahead = input.clone();
        let is_range = ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']');
        out.push_str(&escape_in_class(low));
        if is_range {
            input.next();
            let c = input.next().ok_or_else(unclosed)?;
            let high = read_class_char(c, input)?;
            if high < low {
                return Err(format!("invalid character range {low}-{high}"));
            }
            out.push('-');
            out.push_str(&escape_in_class(high));
        }
    }
}

/// Reads one character of a class, which may be escaped.
fn read_class_char(c: char, input: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    if c != '\\' {
        return Ok(c);
    }
    let next = input.next().ok_or_else(|| "trailing backslash".to_owned())?;
    read_literal(next, input)
}

/// Escapes punctuation: `[`, `&`, `~` and `-` are operators in classes of the `regex` crate.
fn escape_in_class(c: char) -> String {
    if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in matching {
            assert!(regex.is_match(text), "{pattern} does not match {text}: {regex}");
        }
        for text in other {
            assert!(!regex.is_match(text), "{pattern} matches {text}: {regex}");
        }
    }

    #[test]
    fn translates_syntax_that_only_re2_has() {
        check("[[a]", &["[", "a"], &["]"]);
        check("/a{b}", &["/a{b}"], &["/ab"]);
        check("\\Qa.b\\E+", &["a.b", "a.bb"], &["axb"]);
        check("[\\w-a]+", &["x-a_9"], &["ä"]);
        check("(?P<n>a)(?P<n>b)", &["ab"], &["a"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[a&&b~~-]+", &["a&b~-"], &["c"]);
        check("\\d\\s\\w", &["1 a"], &["\u{661} a"]);
        check("[[:alpha:]]+\\.(?i)X", &["ab.x"], &["1.x"]);
        check("\\x41\\x{42}\\103", &["ABC"], &["abc"]);
        check("a|b", &["a", "b"], &["ab"]);
    }

    #[test]
    fn rejects_what_re2_rejects() {
        for pattern in [
            "a**",
            "a{2000}",
            "\\u0041",
            "(?x)a b",
            "[a--b]",
            "\\p{Alphabetic}",
            "(",
            "a)",
            "[a",
            "(?=a)",
            "(?<!a)",
            "\\1",
            "*",
            "a{2,1}",
            "\\Z",
            "a\\",
            "[[:nope:]]",
            "(?P<a b>c)",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}: {:?}", compile(pattern));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_compiles_or_fails_without_a_panic(pattern in ".{0,40}") {
            let _ = compile(&pattern);
        }

        #[test]
        fn quoted_text_matches_itself(text in "[ -~]{1,20}") {
            proptest::prop_assume!(!text.contains("\\E") && !text.ends_with('\\'));
            let quoted = format!("\\Q{text}\\E");
            proptest::prop_assert!(compile(&quoted).unwrap().is_match(&text));
            let escaped = regex::escape(&text);
            proptest::prop_assert!(compile(&escaped).is_ok_and(|regex| regex.is_match(&text)));
        }
    }
}
