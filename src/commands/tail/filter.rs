//! Filters calls by the flags of the command line.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::{Context as CelContext, Env, Program, Value};

use super::{SideArg, TailArgs};
use crate::accesslog::{AccessEntry, Direction};
use crate::cli::failure::Failure;
use crate::diagnosis::CallDiagnosis;
use crate::report::tail::{LogOrigin, TailLine};
use crate::vocabulary::response_flags;

/// The conditions that a call must meet. Without conditions every call passes.
pub(super) struct CallFilter {
    conditions: Vec<CallCondition>,
    expression: Option<WhereExpression>,
    /// For saved logs: drops calls that started earlier, in milliseconds since 1970.
    pub(super) from_ms: Option<i64>,
    /// For saved logs: the namespaces of `-n`. Empty means all.
    pub(super) namespaces: Vec<String>,
}

/// One condition on a call.
#[derive(Debug)]
pub(super) enum CallCondition {
    /// It has one of these response flags (short codes).
    Flag(Vec<String>),
    /// Its gRPC status is one of these.
    GrpcStatus(Vec<u8>),
    /// Its path contains this text.
    Method(String),
    /// Its upstream cluster or endpoint contains this text.
    Upstream(String),
    /// It took at least this number of milliseconds.
    MinDuration(u128),
    /// The proxy of this side logged it.
    Side(Direction),
    /// It was for one of these hosts.
    Host(Vec<String>),
}

/// `--where`: a CEL expression over the fields of `-o json`.
struct WhereExpression {
    program: Program,
    env: Arc<Env>,
}

/// Fields that an expression can use.
const FIELDS: [&str; 22] = [
    "time",
    "pod",
    "namespace",
    "container",
    "side",
    "source",
    "destination",
    "method",
    "grpc_status",
    "grpc_status_from",
    "http_status",
    "flags",
    "details",
    "transport_failure",
    "duration_ms",
    "upstream_host",
    "upstream_cluster",
    "subset",
    "request_id",
    "route",
    "ambiguous",
    "verdict",
];

impl CallFilter {
    pub(super) fn new(arguments: &TailArgs) -> Result<Self, Failure> {
        let expression = arguments.expression.as_deref().map(WhereExpression::compile).transpose()?;
        let direction = |side: &SideArg| match side {
            SideArg::Client => Direction::Outbound,
            SideArg::Server => Direction::Inbound,
        };
        let flags: Vec<String> = arguments.flag.iter().map(|name| response_flags::canonical_code(name)).collect();
        let conditions = [
            (!flags.is_empty()).then_some(CallCondition::Flag(flags)),
            (!arguments.grpc_status.is_empty()).then(|| CallCondition::GrpcStatus(arguments.grpc_status.clone())),
            arguments.method.clone().map(CallCondition::Method),
            arguments.upstream.clone().map(CallCondition::Upstream),
            arguments.min_duration.map(|limit| CallCondition::MinDuration(limit.as_millis())),
            arguments.side.as_ref().map(|side| CallCondition::Side(direction(side))),
        ];
        Ok(Self {
            conditions: conditions.into_iter().flatten().collect(),
            expression,
            from_ms: None,
            namespaces: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, condition: CallCondition) {
        self.conditions.push(condition);
    }

    /// Whether a line belongs to a requested namespace. Lines whose namespace is unknown do.
    #[inline]
    pub(super) fn is_in_namespace(&self, origin: &LogOrigin) -> bool {
        self.namespaces.is_empty()
            || origin.namespace.as_ref().is_none_or(|namespace| self.namespaces.contains(namespace))
    }

    /// Whether a call started in the requested time range.
    #[inline]
    pub(super) fn is_in_range(&self, access: &AccessEntry<'_>) -> bool {
        self.from_ms.is_none_or(|from| access.start_ms.is_some_and(|start| start >= from))
    }

    /// Whether a call meets the conditions. `line` is built only for an expression.
    #[inline]
    pub(super) fn passes(
        &self,
        access: &AccessEntry<'_>,
        diagnosis: &CallDiagnosis,
        line: impl FnOnce() -> TailLine,
    ) -> bool {
        self.conditions.iter().all(|condition| condition.matches(access, diagnosis))
            && self.expression.as_ref().is_none_or(|expression| expression.matches(&line()))
    }
}

impl CallCondition {
    fn matches(&self, access: &AccessEntry<'_>, diagnosis: &CallDiagnosis) -> bool {
        let contains = |value: &crate::accesslog::FieldBytes<'_>, text: &str| {
            value.is_some_and(|value| memchr::memmem::find(value, text.as_bytes()).is_some())
        };
        match self {
            Self::Flag(flags) => flags.iter().any(|flag| access.flags.contains(flag)),
            Self::GrpcStatus(codes) => {
                diagnosis.status.and_then(|status| status.code).is_some_and(|code| codes.contains(&code))
            }
            Self::Method(text) => contains(&access.path, text),
            Self::Upstream(text) => contains(&access.upstream_cluster, text) || contains(&access.upstream_host, text),
            Self::MinDuration(limit) => u128::from(access.duration_ms.unwrap_or(0)) >= *limit,
            Self::Side(direction) => access.direction() == Some(*direction),
            Self::Host(hosts) => hosts.iter().any(|host| access.is_for_host(host)),
        }
    }
}

/// Words and operators of an expression. Its parser and its evaluation recurse once for each in the worst case.
const MAX_EXPRESSION_TOKENS: usize = 400;
/// Open brackets of an expression, for each of which the parser recurses through all levels of precedence.
const MAX_EXPRESSION_DEPTH: usize = 16;

/// Rejects an expression that could overflow the stack.
fn check_size(text: &str) -> Result<(), Failure> {
    let (mut tokens, mut depth, mut previous) = (0, 0_usize, None);
    for c in text.chars() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let continues_word = is_word(c) && previous.is_some_and(is_word);
        tokens += usize::from(!continues_word && !c.is_whitespace() && c != ',');
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if tokens > MAX_EXPRESSION_TOKENS || depth > MAX_EXPRESSION_DEPTH {
            let limits =
                format!("at most {MAX_EXPRESSION_TOKENS} words and operators, {MAX_EXPRESSION_DEPTH} levels deep");
            return Err(Failure::usage(format!("cannot use --where: the expression is too large; expected {limits}"))
                .hint("filter the output of -o json with another program instead"));
        }
        previous = Some(c);
    }
    Ok(())
}

/// Stack for compiling an expression: the parser passes through more than ten functions for each level of precedence.
const COMPILER_STACK_BYTES: usize = 256 << 20;

fn compile_on_large_stack(env: &Env, text: &str) -> Result<Result<Program, cel::ParseErrors>, Failure> {
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(COMPILER_STACK_BYTES);
        let compiler = compiler.spawn_scoped(scope, || env.compile(text)).map_err(Failure::from)?;
        compiler.join().map_err(|_| Failure::usage("cannot use --where: the expression is too complex"))
    })
}

impl WhereExpression {
    fn compile(text: &str) -> Result<Self, Failure> {
        let example = "expected a CEL expression over the fields of -o json, such as \
                       'grpc_status == 14 && duration_ms > 500 && verdict.fault'";
        check_size(text)?;
        let env = Arc::new(Env::stdlib());
        let program = compile_on_large_stack(&env, text)?.map_err(|error| {
            let cause = error.to_string().lines().next().unwrap_or_default().to_owned();
            Failure::usage(format!("cannot use --where: {cause}")).hint(example)
        })?;
        let variables: BTreeSet<String> = program.references().variables().into_iter().map(str::to_owned).collect();
        // In `flags.exists(f, f == 'UF')` the macro declares `f`.
        let is_macro_variable = |name: &str| {
            text.split('(')
                .any(|rest| rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(',')))
        };
        if let Some(unknown) =
            variables.iter().find(|name| !FIELDS.contains(&name.as_str()) && !is_macro_variable(name))
        {
            return Err(Failure::usage(format!("cannot use --where: unknown field \"{unknown}\""))
                .hint(format!("available fields: {}", FIELDS.join(", "))));
        }
        Ok(Self { program, env })
    }

    /// A comparison with an absent value is false, not an error.
    fn matches(&self, line: &TailLine) -> bool {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(line) else { return false };
        let mut context = CelContext::with_env(Arc::clone(&self.env));
        for (name, value) in fields {
            context.add_variable_from_value(name, cel_value(value));
        }
        matches!(self.program.execute(&context), Ok(Value::Bool(true)))
    }
}

/// Compiles an expression, and evaluates it for a call without fields.
pub(super) fn evaluate(text: &str) {
    if let Ok(expression) = WhereExpression::compile(text) {
        let mut context = CelContext::with_env(Arc::clone(&expression.env));
        for name in FIELDS {
            context.add_variable_from_value(name, Value::Null);
        }
        let _ = expression.program.execute(&context);
    }
}

fn cel_value(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int)
        }
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(cel_value).collect::<Vec<_>>())),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| (key, cel_value(value)))
                .collect::<std::collections::HashMap<String, Value>>()
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accesslog::{LogLine, LogReader};
    use crate::diagnosis::diagnose;
    use crate::report::tail::AddressNames;

    #[test]
    fn large_expressions_are_errors_and_no_stack_overflow() {
        // The stack of the program's main thread.
        std::thread::Builder::new().stack_size(8 << 20).spawn(check_large_expressions).unwrap().join().unwrap();
    }

    fn check_large_expressions() {
        let chains = |count: usize| {
            [
                vec!["pod == 'a'"; count].join(" && "),
                vec!["duration_ms"; count].join(" + ") + " > 1",
                format!("{}verdict.fault", "!".repeat(count)),
                format!("{}1 < 0", "-".repeat(count)),
                format!("pod{}", ".a".repeat(count)),
                format!("flags{}", "[0]".repeat(count)),
                format!("{}true", "true ? false : ".repeat(count)),
                format!("{}true{}", "(".repeat(count), ")".repeat(count)),
                format!("{}1{} == 1", "[".repeat(count), "]".repeat(count)),
                format!("pod in [{}]", vec!["'a'"; count].join(", ")),
                "(".repeat(count),
                format!("'{}'", "x ".repeat(count)),
            ]
        };
        for text in chains(MAX_EXPRESSION_DEPTH).iter().chain(&chains(60)).chain(&chains(399)) {
            let _ = WhereExpression::compile(text).map(|filter| filter.matches(&sample_line()));
        }
        for text in chains(8_000) {
            let failure = WhereExpression::compile(&text).err().unwrap();
            assert!(failure.message.contains("too large"), "{}", failure.message);
        }
    }

    fn sample_line() -> TailLine {
        let mut reader = LogReader::default();
        let text = "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 200 URX,UF upstream_reset_before_response_started{x} - \"-\" 1 0 700 - \"-\" \
                    \"grpc-go/1\" \"id\" \"echo:50051\" \"10.0.0.1:50051\" outbound|50051|v2|echo.shop.svc.cluster.local - 10.0.0.3:2 10.0.0.4:3 - default";
        let LogLine::Access(access) = reader.read(text.as_bytes()) else { panic!("{text}") };
        TailLine::new(&access, &diagnose(&access), &LogOrigin::default(), &AddressNames::default())
    }

    #[test]
    fn evaluates_expressions_over_the_json_fields() {
        let text = "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 200 URX,UF upstream_reset_before_response_started{x} - \"-\" 1 0 700 - \"-\" \
                    \"grpc-go/1\" \"id\" \"echo:50051\" \"10.0.0.1:50051\" outbound|50051|v2|echo.shop.svc.cluster.local - 10.0.0.3:2 10.0.0.4:3 - default";
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(text.as_bytes()) else { panic!("{text}") };
        let origin = LogOrigin { container: Some("istio-proxy".to_owned()), ..LogOrigin::default() };
        let line = TailLine::new(&access, &diagnose(&access), &origin, &AddressNames::default());
        for (expression, expected) in [
            ("grpc_status == 14 && duration_ms > 500", true),
            ("duration_ms > 700", false),
            ("'UF' in flags", true),
            ("verdict.fault && subset == 'v2'", true),
            ("method.startsWith('/a.B/')", true),
            ("destination.matches('^echo[.]')", true),
            // An absent value is not equal to anything, and comparing it is not an error.
            ("transport_failure.contains('x')", false),
            ("route == 'default' || transport_failure > 3", true),
            ("pod == null", true),
            ("'not a boolean'", false),
        ] {
            assert_eq!(
                WhereExpression::compile(expression).map(|filter| filter.matches(&line)).ok(),
                Some(expected),
                "{expression}"
            );
        }
        for invalid in ["grpc_status ==", "status == 14", "flags.exists(x"] {
            assert!(WhereExpression::compile(invalid).is_err(), "{invalid}");
        }
        // A variable that a macro declares is not a field.
        assert!(WhereExpression::compile("flags.exists(f, f == 'UF')").unwrap().matches(&line));
        let json = serde_json::to_value(&line).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| !["kind", "version"].contains(name));
        names.sort_unstable();
        let mut fields = FIELDS;
        fields.sort_unstable();
        assert_eq!(names, fields);
    }
}
