//! Tests on a real mesh. They are ignored by default. Run them with `tests/lab/run`, or with `just lab-test NAME` on a
//! running lab.

mod analysis;
mod balance;
mod diff;
mod doctor;
mod effects;
mod faults;
mod gateway_api;
mod inspect;
mod krew;
mod live;
mod route;
mod shift;
mod support;
mod tail;
mod tail_settings;
