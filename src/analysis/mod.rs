//! Judging a canary by what its callers see.
//!
//! CORE. What callers counted between two moments is a [`window::Window`]: calls and errors of the canary, of the
//! baseline in the same time, and of neither. A window is [judged](verdict::judge) against limits; what follows from one
//! verdict after the other (go on, count longer, go back, give up waiting) is a [`step_policy::Course`]. Windows are made of
//! three sources that see different things: [`prometheus`] series, Envoy's per-endpoint [`counters`], and access logs
//! ([`calls`]). Which of what they tell belongs to whom is in [`sides`].

pub(crate) mod calls;
pub(crate) mod cohorts;
pub(crate) mod counters;
pub(crate) mod prometheus;
pub(crate) mod step_policy;
pub(crate) mod verdict;
pub(crate) mod window;
