//! Moves weights between the backends of a route rule.
//!
//! CORE. [`split`] reads the rules and weights of a route object. [`plan`] turns desired weights (`v2=25`) into exact
//! weights for one rule, and [`steps`] does so step by step. [`patch`] turns plans into one JSON Patch that tests its
//! preconditions and writes nothing but the weights and the [`record`]; the record holds what a rollback needs.
//! [`affected`] finds the proxies that use a rule, and [`edit`] writes weights into a manifest.

pub(crate) mod affected;
pub(crate) mod edit;
pub(crate) mod patch;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod shares;
pub(crate) mod split;
pub(crate) mod steps;
