//! RE2 expressions, which Istio and Envoy use, to expressions of the `regex` crate.
//!
//! The two languages differ at the edges: RE2 takes `[[a]` and `/a{b}` as they stand, quotes with `\Q…\E`, has ASCII
//! classes, and refuses `a**`, `a{2000}` and `\u0041`. Istio's validation compiles with Go's `regexp`, whose parser
//! (`regexp/syntax/parse.go`, flags `Perl`) is the source of the rules here.

use std::sync::OnceLock;

use std::iter::Peekable;
use std::str::Chars;

/// The largest count in `{n,m}`.
const REPEAT_MAX: u32 = 1000;

/// Compiles an RE2 expression that must match a whole text, as Envoy's `safe_regex` does.
///
/// ```
/// use grpcmesh::schema::re2::compile;
/// assert!(compile("/shop\\.Cart/.*").unwrap().is_match("/shop.Cart/Add"));
/// assert!(compile("a**").is_err());
/// ```
///
/// # Errors
/// What RE2 does not take, in a few words.
pub fn compile(pattern: &str) -> Result<regex::Regex, String> {
    let translated = translate(pattern)?;
    regex::Regex::new(&format!("^(?:{translated})$")).map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// An expression that is compiled when it is first used, and once.
#[derive(Debug, Clone)]
pub struct Re2Pattern {
    text: String,
    compiled: OnceLock<Result<regex::Regex, String>>,
}

impl Re2Pattern {
    /// An expression as it is written.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What RE2 does not take, in a few words.
    pub fn refused(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    /// Whether a whole text fits; an expression that RE2 does not take fits nothing.
    pub fn fits(&self, text: &str) -> bool {
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

/// Rewrites an RE2 expression.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut input = pattern.chars().peekable();
    // Whether the last thing was a repetition: another one may not follow.
    let mut repeated = false;
    while let Some(c) = input.next() {
        let mut repeats = false;
        match c {
            '*' | '+' | '?' => {
                repeats = true;
                out.push(c);
            }
            '{' => match counts(&mut input)? {
                Some(counts) => {
                    repeats = true;
                    out.push_str(&counts);
                }
                None => out.push_str("\\{"),
            },
            '}' => out.push_str("\\}"),
            ']' => out.push_str("\\]"),
            '[' => class(&mut input, &mut out)?,
            '(' => group(&mut input, &mut out)?,
            '\\' => escape(&mut input, &mut out)?,
            c => out.push(c),
        }
        if repeats {
            if repeated {
                return Err("a repetition stands after another".to_owned());
            }
            if input.next_if_eq(&'?').is_some() {
                out.push('?');
            }
        }
        repeated = repeats;
    }
    Ok(out)
}

/// Reads what follows `{`, if it is a repetition; else the brace stands for itself and nothing is read.
fn counts(input: &mut Peekable<Chars<'_>>) -> Result<Option<String>, String> {
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
        return Err(format!("{{{ahead}}} is no count of at most {REPEAT_MAX}"));
    }
    input.nth(ahead.len());
    Ok(Some(format!("{{{ahead}}}")))
}

/// Reads what follows `(`: a capture, a named one, or flags.
fn group(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
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
        // Names are of no use here, and RE2 takes one name twice.
        return if is_name { Ok(()) } else { Err(format!("\"{name}\" is no name of a group")) };
    }
    let flags = head.strip_suffix([':', ')']).filter(|flags| flags.chars().all(|c| "imsU-".contains(c)));
    match flags {
        Some(_) => {
            out.push('?');
            out.push_str(&head);
            Ok(())
        }
        None => Err(format!("(?{head} is not supported: there is no look-around")),
    }
}

/// Reads what follows a backslash outside a class.
fn escape(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match input.next() {
        None => Err("it ends in a backslash".to_owned()),
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
            None if matches!(c, 'p' | 'P') => property(c, input, out),
            None => {
                out.push_str(&regex::escape(&literal(c, input)?.to_string()));
                Ok(())
            }
        },
    }
}

/// The ASCII characters of `\d`, `\s`, `\w`, and of what their capitals leave out.
fn perl_class(c: char) -> Option<&'static str> {
    match c {
        'd' | 'D' => Some("0-9"),
        's' | 'S' => Some("\\t\\n\\x0C\\r "),
        'w' | 'W' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

/// Reads what follows `\p`: a general category or a script, as Go has them.
fn property(c: char, input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let name: String = match input.next() {
        Some('{') => input.by_ref().take_while(|c| *c != '}').collect(),
        Some(letter) => letter.to_string(),
        None => String::new(),
    };
    let (not, bare) = name.strip_prefix('^').map_or((false, name.as_str()), |bare| (true, bare));
    let negated = (c == 'P') != not;
    let letter = if negated { 'P' } else { 'p' };
    let is_category = bare.len() <= 2 && bare.starts_with(|c: char| "CLMNPSZ".contains(c));
    let wanted = match bare {
        "Any" => "Any".to_owned(),
        bare if is_category => format!("gc={bare}"),
        bare => format!("sc={bare}"),
    };
    let written = format!("\\{letter}{{{wanted}}}");
    match regex::Regex::new(&written) {
        Ok(_) => {
            out.push_str(&written);
            Ok(())
        }
        Err(_) => Err(format!("\\{c}{{{name}}} is not a class")),
    }
}

/// Reads an escaped character whose first letter was `c`.
fn literal(c: char, input: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let unknown = || format!("\\{c} is not an escape");
    match c {
        'a' => Ok('\u{7}'),
        'f' => Ok('\u{c}'),
        'n' => Ok('\n'),
        'r' => Ok('\r'),
        't' => Ok('\t'),
        'v' => Ok('\u{b}'),
        '0'..='7' => {
            let more = input.peek().is_some_and(|next| ('0'..='7').contains(next));
            // A single digit but 0 is a back-reference.
            if c != '0' && !more {
                return Err("there are no back-references".to_owned());
            }
            let mut value = c.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let Some(next) = input.next_if(|next| ('0'..='7').contains(next)) else { break };
                value = value * 8 + next.to_digit(8).unwrap_or_default();
            }
            char::from_u32(value).ok_or_else(unknown)
        }
        'x' => {
            let digits: String = match input.next() {
                Some('{') => input.by_ref().take_while(|c| *c != '}').collect(),
                Some(first) => first.to_string() + &input.next().map(String::from).unwrap_or_default(),
                None => String::new(),
            };
            u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).ok_or_else(unknown)
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c),
        _ => Err(unknown()),
    }
}

/// Reads what follows `[`.
fn class(input: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let unclosed = || "a [ has no ]".to_owned();
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
                let known = ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct"];
                if !known.contains(&name) && !["space", "upper", "word", "xdigit"].contains(&name) {
                    return Err(format!("[{ahead}] is not a class"));
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
                property(next, input, out)?;
                continue;
            }
        }
        let low = one(c, input)?;
        let mut ahead = input.clone();
        let is_range = ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']');
        out.push_str(&in_class(low));
        if is_range {
            input.next();
            let c = input.next().ok_or_else(unclosed)?;
            let high = one(c, input)?;
            if high < low {
                return Err(format!("{low}-{high} is no range"));
            }
            out.push('-');
            out.push_str(&in_class(high));
        }
    }
}

/// One character of a class.
fn one(c: char, input: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    if c != '\\' {
        return Ok(c);
    }
    let next = input.next().ok_or_else(|| "it ends in a backslash".to_owned())?;
    literal(next, input)
}

/// A character as it must be written in a class here, where `[`, `&`, `~` and `-` mean something.
fn in_class(c: char) -> String {
    if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in yes {
            assert!(regex.is_match(text), "{pattern} does not match {text}: {regex}");
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} matches {text}: {regex}");
        }
    }

    #[test]
    fn what_only_re2_takes_means_what_it_means_there() {
        matches("[[a]", &["[", "a"], &["]"]);
        matches("/a{b}", &["/a{b}"], &["/ab"]);
        matches("\\Qa.b\\E+", &["a.b", "a.bb"], &["axb"]);
        matches("[\\w-a]+", &["x-a_9"], &["ä"]);
        matches("(?P<n>a)(?P<n>b)", &["ab"], &["a"]);
        matches("[]a]", &["]", "a"], &["b"]);
        matches("[a&&b~~-]+", &["a&b~-"], &["c"]);
        matches("\\d\\s\\w", &["1 a"], &["\u{661} a"]);
        matches("[[:alpha:]]+\\.(?i)X", &["ab.x"], &["1.x"]);
        matches("\\x41\\x{42}\\103", &["ABC"], &["abc"]);
        matches("a|b", &["a", "b"], &["ab"]);
    }

    #[test]
    fn what_re2_refuses_is_refused() {
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
        fn no_text_is_too_odd(pattern in ".{0,40}") {
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
