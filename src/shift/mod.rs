//! Moves weights between the backends of a route rule.
//!
//! CORE. [`split`] reads the rules and weights of a route object, and [`selection`] finds the rules of a mesh that can be
//! shifted. [`plan`] turns desired weights (`v2=25`) into exact weights for one rule, and [`steps`] does so step by step.
//! [`preflight`] checks a plan, [`affected`] finds the proxies that use a rule, and [`survey`] compares what they run.
//! [`patch`] turns plans into one JSON Patch that tests its preconditions and writes nothing but the weights and the
//! [`record`]; the record holds what a rollback needs. [`machine`] decides everything that a run does, from these parts and
//! from what it observes; [`notice`] is what it reports. [`edit`] writes weights into a manifest.

pub(crate) mod affected;
pub(crate) mod edit;
pub(crate) mod machine;
pub(crate) mod notice;
pub(crate) mod patch;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod record;
pub(crate) mod selection;
pub(crate) mod shares;
pub(crate) mod split;
pub(crate) mod steps;
pub(crate) mod survey;
