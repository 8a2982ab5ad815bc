//! Moving weights between the backends of a rule.
//!
//! CORE. A wish (`v2=25`) and a rule of an object ([`split`]) make a [`plan`]: exact weights, whose shares are those that
//! were wished. A plan becomes one JSON Patch ([`patch`]) that tests what it rests on, writes nothing but weights, and puts
//! down in the same stroke what was there before ([`record`]), so that there is always a way back.

pub(crate) mod affected;
pub(crate) mod edit;
pub(crate) mod patch;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod shares;
pub(crate) mod split;
pub(crate) mod steps;
