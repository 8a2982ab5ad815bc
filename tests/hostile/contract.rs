//! What every run must satisfy, whatever its input is.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A run that ended, or was killed after its time.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub time: Duration,
}

/// Longest run. Debug builds on a busy machine are slow; a run that hangs takes forever.
pub const MAX_TIME: Duration = Duration::from_mins(1);
/// Virtual memory of one run, in KiB.
const MAX_MEMORY_KIB: u64 = 6 << 20;

/// Runs a command with limits of time and memory.
pub fn run(command: &mut Command) -> Ended {
    let start = Instant::now();
    let mut child = limited(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = reader(child.stdout.take().unwrap());
    let stderr = reader(child.stderr.take().unwrap());
    let code = wait(&mut child, MAX_TIME);
    Ended { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap(), time: start.elapsed() }
}

/// Waits for the end; kills the program after `limit`, and returns no code then.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same command with limited memory.
fn limited(command: &Command) -> Command {
    if !cfg!(unix) {
        unreachable!("these tests need a Unix shell");
    }
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("ulimit -v {MAX_MEMORY_KIB}; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

fn reader(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(64 << 20).read_to_end(&mut bytes);
        bytes
    })
}

/// Whether a character could steer a terminal.
pub fn steers(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// Asserts the contract: an exit code of it, UTF-8 without control characters, valid JSON, no panic, and an end in time.
/// `input` is shown when it fails.
#[track_caller]
pub fn assert_contract(ended: &Ended, is_json: bool, input: &str) {
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let stdout = String::from_utf8(ended.stdout.clone()).unwrap_or_else(|_| panic!("stdout is not UTF-8\n{input}"));
    let shown = format!("{input}\ncode {:?} after {:?}\n{stderr}", ended.code, ended.time);
    assert!(matches!(ended.code, Some(0..=4)), "{shown}");
    for text in ["panicked at", "overflowed its stack", "RUST_BACKTRACE", "memory allocation of"] {
        assert!(!stderr.contains(text), "{text}: {shown}");
    }
    let steering = stdout.chars().chain(stderr.chars()).find(|c| steers(*c));
    assert_eq!(steering, None, "{shown}");
    if is_json {
        let mut values = serde_json::Deserializer::from_str(&stdout).into_iter::<serde_json::Value>();
        assert!(values.all(|value| value.is_ok()), "invalid JSON: {shown}\n{stdout}");
    }
}
