//! Tests on a real mesh. They are ignored unless asked for: `tests/lab/run`, or `just lab-test NAME` on a running lab.

mod balance;
mod diff;
mod doctor;
mod effects;
mod faults;
mod guard;
mod inspect;
mod krew;
mod live;
mod route;
mod shift;
mod support;
mod tail;
mod tail_settings;
