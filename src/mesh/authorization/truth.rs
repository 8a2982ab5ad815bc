//! Three-valued logic: a condition holds, does not hold, or depends on a fact that the source does not contain.

use std::ops::Not;

/// A fact about a call that decides a condition and that the source does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnknownFact {
    /// Claims of a token in the call.
    Token,
    /// The ServiceAccount of the caller.
    ServiceAccount,
    /// Whether and how the caller authenticates.
    CallerIdentity,
    /// The address of the calling pod.
    CallerAddress,
    /// The address of the client in front of a gateway.
    ClientAddress,
    /// The address of the server pod.
    ServerAddress,
    /// The authority that the client uses.
    Authority,
    /// A header whose value a proxy or the client decides.
    Header,
    /// Metadata that another filter of the proxy sets.
    FilterMetadata,
}

impl UnknownFact {
    /// The fact as the object of "it depends on".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "the claims of a token",
            Self::ServiceAccount => "the ServiceAccount of the caller",
            Self::CallerIdentity => "how the caller authenticates",
            Self::CallerAddress => "the address of the caller",
            Self::ClientAddress => "the address of the client",
            Self::ServerAddress => "the address of the server's pod",
            Self::Authority => "the authority that the client uses",
            Self::Header => "a header of the call",
            Self::FilterMetadata => "metadata of another filter in the server's proxy",
        }
    }
}

/// The value of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    Yes,
    No,
    Unknown(UnknownFact),
}

impl Truth {
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, rest) | (rest, Self::Yes) => rest,
            (unknown, _) => unknown,
        }
    }

    pub fn or(self, other: Self) -> Self {
        !(!self).and(!other)
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            unknown @ Self::Unknown(_) => unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_operand_decides_where_it_can() {
        let unknown = Truth::Unknown(UnknownFact::Token);
        assert_eq!(Truth::No.and(unknown), Truth::No);
        assert_eq!(unknown.and(Truth::Yes), unknown);
        assert_eq!(unknown.or(Truth::Yes), Truth::Yes);
        assert_eq!(Truth::No.or(unknown), unknown);
        assert_eq!(!unknown, unknown);
        assert_eq!(Truth::No.or(Truth::No), Truth::No);
    }
}
