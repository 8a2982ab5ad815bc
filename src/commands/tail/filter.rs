//! Which calls are wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::{Context as CelContext, Env, Program, Value};

use super::{SideArg, TailArgs};
use crate::accesslog::{AccessEntry, Direction};
use crate::cli::failure::Failure;
use crate::diagnosis::CallDiagnosis;
use crate::report::tail::TailLine;
use crate::vocabulary::response_flags;

/// What must hold of a call; everything, when nothing was asked.
pub(super) struct CallFilter {
    conditions: Vec<CallCondition>,
    expression: Option<WhereExpression>,
    /// Only calls that began at this time or later, in milliseconds since 1970: for logs that were saved.
    pub(super) from: Option<i64>,
}

/// One condition on a call.
#[derive(Debug)]
pub(super) enum CallCondition {
    /// It has one of these flags, given by their codes.
    Flag(Vec<String>),
    /// It ended with one of these gRPC statuses.
    GrpcStatus(Vec<u8>),
    /// Its path contains this.
    Method(String),
    /// Its cluster or its endpoint contains this.
    Upstream(String),
    /// It took so long or longer, in milliseconds.
    MinDuration(u128),
    /// The proxy of this side tells of it.
    Side(Direction),
    /// It went to one of these hosts.
    Host(Vec<String>),
}

/// `--where`: an expression in CEL over the fields of `-o json`.
struct WhereExpression {
    program: Program,
    env: Arc<Env>,
}

/// The fields that an expression may name.
const FIELDS: [&str; 21] = [
    "time",
    "pod",
    "namespace",
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
    /// Compiles what the flags ask.
    pub(super) fn new(arguments: &TailArgs) -> Result<Self, Failure> {
        let expression = arguments.expression.as_deref().map(WhereExpression::compile).transpose()?;
        let direction = |side: &SideArg| match side {
            SideArg::Client => Direction::Outbound,
            SideArg::Server => Direction::Inbound,
        };
        let flags: Vec<String> = arguments.flag.iter().map(|word| response_flags::code(word)).collect();
        let conditions = [
            (!flags.is_empty()).then_some(CallCondition::Flag(flags)),
            (!arguments.grpc_status.is_empty()).then(|| CallCondition::GrpcStatus(arguments.grpc_status.clone())),
            arguments.method.clone().map(CallCondition::Method),
            arguments.upstream.clone().map(CallCondition::Upstream),
            arguments.min_duration.map(|limit| CallCondition::MinDuration(limit.as_millis())),
            arguments.side.as_ref().map(|side| CallCondition::Side(direction(side))),
        ];
        Ok(Self { conditions: conditions.into_iter().flatten().collect(), expression, from: None })
    }

    /// Asks for more.
    pub(super) fn add(&mut self, condition: CallCondition) {
        self.conditions.push(condition);
    }

    /// Whether a call began when it should.
    #[inline]
    pub(super) fn is_in_time(&self, access: &AccessEntry<'_>) -> bool {
        self.from.is_none_or(|from| access.start.is_some_and(|start| start >= from))
    }

    /// Whether a call passes; `line` is made only when an expression asks for it.
    #[inline]
    pub(super) fn passes(
        &self,
        access: &AccessEntry<'_>,
        verdict: &CallDiagnosis,
        line: impl FnOnce() -> TailLine,
    ) -> bool {
        self.conditions.iter().all(|condition| condition.holds(access, verdict))
            && self.expression.as_ref().is_none_or(|expression| expression.holds(&line()))
    }
}

impl CallCondition {
    fn holds(&self, access: &AccessEntry<'_>, verdict: &CallDiagnosis) -> bool {
        let contains = |value: &crate::accesslog::FieldBytes<'_>, wanted: &str| {
            value.is_some_and(|value| memchr::memmem::find(value, wanted.as_bytes()).is_some())
        };
        match self {
            Self::Flag(flags) => flags.iter().any(|flag| access.flags.has(flag)),
            Self::GrpcStatus(codes) => {
                verdict.status.and_then(|status| status.code).is_some_and(|code| codes.contains(&code))
            }
            Self::Method(wanted) => contains(&access.path, wanted),
            Self::Upstream(wanted) => contains(&access.cluster, wanted) || contains(&access.upstream_host, wanted),
            Self::MinDuration(limit) => u128::from(access.duration.unwrap_or(0)) >= *limit,
            Self::Side(direction) => access.direction() == Some(*direction),
            Self::Host(hosts) => hosts.iter().any(|host| access.goes_to(host)),
        }
    }
}

impl WhereExpression {
    fn compile(text: &str) -> Result<Self, Failure> {
        let example =
            "in CEL over the fields of -o json: --where 'grpc_status == 14 && duration_ms > 500 && verdict.fault'";
        let env = Arc::new(Env::stdlib());
        let program = env.compile(text).map_err(|error| {
            let why = error.to_string().lines().next().unwrap_or_default().to_owned();
            Failure::usage(format!("cannot use --where: {why}")).hint(example)
        })?;
        let named: BTreeSet<String> = program.references().variables().into_iter().map(str::to_owned).collect();
        // In `flags.exists(f, f == 'UF')` the macro names `f` itself.
        let is_own = |name: &str| {
            text.split('(')
                .any(|rest| rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(',')))
        };
        if let Some(unknown) = named.iter().find(|name| !FIELDS.contains(&name.as_str()) && !is_own(name)) {
            return Err(Failure::usage(format!("cannot use --where: there is no field \"{unknown}\""))
                .hint(format!("the fields are {}", FIELDS.join(", "))));
        }
        Ok(Self { program, env })
    }

    /// A comparison with a value that is not there does not hold.
    fn holds(&self, line: &TailLine) -> bool {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(line) else { return false };
        let mut context = CelContext::with_env(Arc::clone(&self.env));
        for (name, value) in fields {
            context.add_variable_from_value(name, of_json(value));
        }
        matches!(self.program.execute(&context), Ok(Value::Bool(true)))
    }
}

fn of_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int)
        }
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(of_json).collect::<Vec<_>>())),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| (key, of_json(value)))
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
    use crate::report::tail::{AddressNames, LogOrigin};

    #[test]
    fn expressions_over_the_fields() {
        let text = "[2026-11-21T09:00:00.000Z] \"POST /a.B/C HTTP/2\" 200 URX,UF upstream_reset_before_response_started{x} - \"-\" 1 0 700 - \"-\" \
                    \"grpc-go/1\" \"id\" \"echo:50051\" \"10.0.0.1:50051\" outbound|50051|v2|echo.shop.svc.cluster.local - 10.0.0.3:2 10.0.0.4:3 - default";
        let mut reader = LogReader::default();
        let LogLine::Access(access) = reader.read(text.as_bytes()) else { panic!("{text}") };
        let line = TailLine::new(&access, &diagnose(&access), &LogOrigin::default(), &AddressNames::default());
        for (expression, wanted) in [
            ("grpc_status == 14 && duration_ms > 500", true),
            ("duration_ms > 700", false),
            ("'UF' in flags", true),
            ("verdict.fault && subset == 'v2'", true),
            ("method.startsWith('/a.B/')", true),
            ("destination.matches('^echo[.]')", true),
            // Absent: neither equal nor an error that ends the run.
            ("transport_failure.contains('x')", false),
            ("route == 'default' || transport_failure > 3", true),
            ("pod == null", true),
            ("'not a truth value'", false),
        ] {
            assert_eq!(
                WhereExpression::compile(expression).map(|one| one.holds(&line)).ok(),
                Some(wanted),
                "{expression}"
            );
        }
        for wrong in ["grpc_status ==", "status == 14", "flags.exists(x"] {
            assert!(WhereExpression::compile(wrong).is_err(), "{wrong}");
        }
        // A macro's own variable is no field.
        assert!(WhereExpression::compile("flags.exists(f, f == 'UF')").unwrap().holds(&line));
        let fields = serde_json::to_value(&line).unwrap();
        let mut names: Vec<_> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| !["kind", "version"].contains(name));
        names.sort_unstable();
        let mut known = FIELDS;
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
