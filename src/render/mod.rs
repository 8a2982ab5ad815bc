//! Reports to text. VIEW: rendering is last and dumb; it writes to whatever it is handed and decides nothing.

pub(crate) mod balance;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
mod finding;
pub(crate) mod inspect;
mod json;
mod page;
pub(crate) mod route;
pub(crate) mod route_test;
pub(crate) mod shift;
pub mod style;
mod table;
pub(crate) mod tail;
pub(crate) mod text;
pub(crate) mod yaml;

pub use json::{json, json_line};
