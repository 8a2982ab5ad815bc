//! Reports to text. VIEW: rendering is last and dumb; it writes to whatever it is handed and decides nothing.

pub mod balance;
pub mod diff;
pub mod doctor;
pub mod explain;
mod finding;
pub mod inspect;
mod page;
pub mod route;
pub mod route_test;
pub mod shift;
pub mod style;
mod table;
pub mod tail;
pub mod text;
pub mod yaml;

use std::io::{self, Write};

use serde::Serialize;

/// Writes a report as JSON, indented, with a final line break.
///
/// # Errors
/// Those of `out`.
pub fn json(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// Writes a report as JSON on one line.
///
/// # Errors
/// Those of `out`.
pub fn json_line(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}
