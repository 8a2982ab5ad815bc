//! Reports to text. VIEW: rendering is last and dumb; it writes to whatever it is handed and decides nothing.

pub mod balance;
pub mod diff;
pub mod doctor;
pub mod explain;
mod finding;
pub mod inspect;
mod json;
mod page;
pub mod route;
pub mod route_test;
pub mod shift;
pub mod style;
mod table;
pub mod tail;
pub mod text;
pub mod yaml;

pub use json::{json, json_line};
