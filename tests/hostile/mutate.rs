//! Random input: fixtures that are damaged at random, and every command that reads them.
//!
//! `cargo test` runs a few seeds. `just hostile SECONDS` runs new ones for that long, and prints the seed of a failure, which
//! `HOSTILE_SEED` repeats.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contract::{assert_contract, run};
use super::support::TestEnv;

/// A generator of numbers that is the same on every machine (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap()
    }

    fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Texts that broke parsers: controls, direction marks, structure, sizes, numbers, names that are not ASCII.
const TOKENS: &[&str] = &[
    "\u{1b}[2J",
    "\u{9b}31m",
    "\u{202e}",
    "\u{0}",
    "\u{85}",
    "\u{feff}",
    "\r",
    "\t",
    "ключ: 1\n",
    "名: {é: ü}\n",
    "\u{1f980}",
    "{",
    "}",
    "[",
    "]",
    "- ",
    ": ",
    "? ",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a\n",
    "<<: [1]\n",
    "!!binary ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "null",
    "~",
    "-1",
    "99999999999999999999",
    "1e309",
    ".nan",
    "0x",
    "true",
    "weight: ",
    "\n",
    "\n\n  ",
    "items: ",
    "kind: List\n",
    "../../etc/passwd",
    "%%",
    "%REQ(",
    "${jndi:x}",
    "=cmd|'/c calc'!A1",
];

fn fixtures(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let has_extension = |path: &PathBuf| {
        path.extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| extensions.contains(&extension))
    };
    let mut paths: Vec<PathBuf> = paths.filter(has_extension).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn line_starts(text: &[u8]) -> Vec<usize> {
    let breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    std::iter::once(0).chain(breaks).collect()
}

/// Damages a text in one place.
fn mutate(text: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let position = random.below(text.len() + 1);
    let starts = line_starts(text);
    let line = |random: &mut Random| {
        let index = random.below(starts.len());
        starts[index]..starts.get(index + 1).copied().unwrap_or(text.len())
    };
    match random.below(9) {
        0 => text.truncate(position),
        1 if position < text.len() => text[position] ^= 1 << random.below(8),
        2 => {
            let range = line(random);
            text.drain(range);
        }
        3 => {
            let (copied, at) = (text[line(random)].to_vec(), line(random).start);
            text.splice(at..at, copied);
        }
        4 => {
            let at = random.below(other.len() + 1);
            let part = other[at..].iter().take(random.below(400)).copied().collect::<Vec<_>>();
            text.splice(position..position, part);
        }
        5 => {
            let repeated = random.choose(TOKENS).repeat(1 << random.below(14));
            text.splice(position..position, repeated.into_bytes());
        }
        6 => {
            // Indentation decides the structure of YAML.
            let at = line(random).start;
            text.splice(at..at, std::iter::repeat_n(b' ', random.below(4)));
        }
        7 => {
            let (first, second) = (line(random), line(random));
            let moved = text[first.clone()].to_vec();
            if second.start <= first.start {
                text.drain(first);
                text.splice(second.start..second.start, moved);
            }
        }
        _ => {
            text.splice(position..position, random.choose(TOKENS).bytes());
        }
    }
}

/// Runs one command on one damaged fixture.
fn run_seed(seed: u64) {
    let mut random = Random(seed);
    let logs = random.below(4) == 0;
    let paths = if logs {
        fixtures("tests/fixtures/accesslog", &["log"])
    } else {
        [
            fixtures("tests/fixtures/healthy", &["yaml"]),
            fixtures("src/demo", &["yaml"]),
            fixtures("tests/hostile/corpus", &["yaml", "json"]),
        ]
        .concat()
    };
    let path = random.choose(&paths).clone();
    let mut text = std::fs::read(&path).unwrap();
    let other = std::fs::read(random.choose(&paths)).unwrap();
    for _ in 0..=random.below(6) {
        mutate(&mut text, &other, &mut random);
    }
    let env = TestEnv::new();
    let file = env.write("input.yaml", &text);
    let commands: &[&[&str]] = if logs {
        &[
            &["tail", "--all", "--logs", &file],
            &["tail", "--all", "-o", "json", "--logs", &file],
            &["tail", "-o", "csv", "--logs", &file],
            &["tail", "--summary", "-o", "json", "--logs", &file],
            &["tail", "--raw", "--logs", &file],
            &["tail", "--join", "--logs", &file],
        ]
    } else {
        &[
            &["inspect", "--all-services", "--from", &file],
            &["inspect", "--keep-going", "-o", "json", "--from", &file],
            &["inspect", "--keep-going", "-o", "yaml", "--from", &file],
            &["inspect", "--keep-going", "checkout.shop", "--from", &file],
            &["route", "checkout.shop:50051", "/shop.Checkout/Pay", "-o", "json", "--keep-going", "--from", &file],
            &["route", "reviews.default:9080", "/a", "--keep-going", "--from", &file],
            &["diff", "--keep-going", "-o", "json", "--from", "demo", "-f", &file],
            &["snapshot", "--keep-going", "-o", "-", "--from", &file],
            &["snapshot", "--keep-going", "--redact", "-o", "-", "--from", &file],
            &["shift", "pay.shop", "--to", "v2=25", "--edit", &file],
            &["shift", "reviews", "--to", "v3=25", "--dry-run", "--edit", &file],
            &["route", "--test", &file, "--from", "demo", "-o", "junit"],
        ]
    };
    let arguments = random.choose(commands);
    let ended = run(&mut env.command(arguments));
    let is_json = arguments.windows(2).any(|pair| pair == ["-o", "json"] || pair == ["-o", "-"]);
    let input = format!("HOSTILE_SEED={seed}: {} of {}", arguments.join(" "), path.display());
    assert_contract(&ended, is_json, &input);
}

#[test]
fn damaged_files_end_within_the_contract() {
    let seeds: Vec<u64> = match std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..80).collect(),
    };
    seeds.into_iter().for_each(run_seed);
}

#[test]
#[ignore = "runs as long as HOSTILE_SECONDS says: just hostile SECONDS"]
fn damaged_files_for_a_while() {
    let seconds: u64 = std::env::var("HOSTILE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let start = Instant::now();
    let first = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() << 20;
    let mut runs = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        run_seed(first + runs);
        runs += 1;
    }
    println!("{runs} runs from seed {first}");
}
