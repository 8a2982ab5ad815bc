//! `--logs`: files, folders and standard input, line by line.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::input_lines::{BUFFER, InputLines, LINE_MAX};
use crate::accesslog::prefix;
use crate::render::text::safe;
use crate::report::tail::LogOrigin;
use crate::schema::core::PROXY_CONTAINER;

/// A runtime's piece of a line with what stands before it.
const PIECE: u64 = 17 << 10;
/// Lines that may stand between two pieces of a line.
const HELD: usize = 1_000;
/// A part of a log below this is read sooner than a thread is started for it.
const WORTH_A_READER: u64 = 8 << 20;

/// One log.
pub struct LogFile {
    /// The pod it is of.
    pub origin: LogOrigin,
    /// Opened when it is first read, and given back at the end: a folder may hold more logs than files may be open.
    lines: Option<InputLines>,
    path: Option<PathBuf>,
    /// A line whose pieces were put together.
    joined: Vec<u8>,
    /// Lines of the other stream that stood between the pieces.
    held: VecDeque<Vec<u8>>,
    /// Lines that were cut.
    pub cut: u64,
    /// The file, if it is one that can be read in several places at once, and its size.
    file: Option<(PathBuf, u64)>,
}

impl LogFile {
    fn new(origin: LogOrigin, lines: Option<InputLines>, path: Option<PathBuf>, file: Option<(PathBuf, u64)>) -> Self {
        Self { origin, lines, path, joined: Vec::new(), held: VecDeque::new(), cut: 0, file }
    }

    /// The log in about equal parts that end with a line, for as many readers; `None` when it cannot be divided or is
    /// not worth it.
    ///
    /// # Errors
    /// Those of reading.
    pub fn parts(&self, most: usize) -> io::Result<Option<Vec<Self>>> {
        let Some((path, size)) = &self.file else { return Ok(None) };
        let count = most.min(usize::try_from(size / WORTH_A_READER).unwrap_or(usize::MAX));
        if count < 2 {
            return Ok(None);
        }
        let mut starts = vec![0];
        for part in 1..count as u64 {
            starts.push(seam(path, size / count as u64 * part, *size)?);
        }
        starts.push(*size);
        let part = |pair: &[u64]| -> io::Result<Self> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(pair[0]))?;
            let lines = InputLines::new(Box::new(file.take(pair[1].saturating_sub(pair[0]))));
            Ok(Self::new(self.origin.clone(), Some(lines), None, None))
        };
        starts.windows(2).map(part).collect::<io::Result<Vec<_>>>().map(Some)
    }

    /// The next line, without its line break; `None` at the end. Pieces of one line that a container runtime cut are put
    /// together; lines of the other stream that stand between them come after it.
    ///
    /// # Errors
    /// Those of reading, and of broken compression.
    #[inline]
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if let Some(path) = self.path.take() {
            self.lines = Some(InputLines::new(unpacked(Box::new(File::open(path)?))?.0));
        }
        if let Some(held) = self.held.pop_front() {
            self.joined = held;
        } else {
            let Some(lines) = &mut self.lines else { return Ok(None) };
            if !lines.advance()? {
                self.cut += lines.cut;
                self.lines = None;
                return Ok(None);
            }
            if !prefix::is_partial(lines.line()) {
                return Ok(self.lines.as_ref().map(InputLines::line));
            }
            self.joined.clear();
            self.joined.extend_from_slice(lines.line());
        }
        if prefix::is_partial(&self.joined) {
            self.join()?;
        }
        Ok(Some(&self.joined))
    }

    /// Adds the further pieces to the line that was cut.
    fn join(&mut self) -> io::Result<()> {
        let stream = prefix::stream(&self.joined).map(|(stream, _)| stream);
        let mut is_cut = false;
        let mut take = |joined: &mut Vec<u8>, piece: &[u8]| {
            let rest = prefix::strip(piece).line;
            let room = LINE_MAX.saturating_sub(joined.len()).min(rest.len());
            joined.extend_from_slice(&rest[..room]);
            is_cut |= room < rest.len();
            prefix::is_partial(piece)
        };
        let is_ours = |line: &[u8]| prefix::stream(line).map(|(stream, _)| stream) == stream;
        let mut goes_on = true;
        // What was held back for another line stands before what is read now.
        while let Some(at) = self.held.iter().position(|line| is_ours(line)).filter(|_| goes_on) {
            let Some(piece) = self.held.remove(at) else { break };
            goes_on = take(&mut self.joined, &piece);
        }
        while let Some(lines) = self.lines.as_mut().filter(|_| goes_on && self.held.len() < HELD) {
            if !lines.advance()? {
                break;
            }
            if is_ours(lines.line()) {
                goes_on = take(&mut self.joined, lines.line());
            } else {
                self.held.push_back(lines.line().to_vec());
            }
        }
        self.cut += u64::from(is_cut);
        Ok(())
    }
}

/// Where a line begins at or after a place, such that no line before it goes on there.
fn seam(path: &Path, at: u64, size: u64) -> io::Result<u64> {
    // A runtime's pieces are 16 KiB; the line that holds the place is looked at whole.
    let from = at.saturating_sub(PIECE);
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::Start(from))?;
    let (mut place, mut line) = (from, Vec::new());
    if from > 0 {
        place += file.read_until(b'\n', &mut line)? as u64;
    }
    // Whether a line of each stream goes on: those of the other one may stand between two pieces.
    let mut open = [false; 2];
    while place < size && (place <= at || open.contains(&true)) {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        place += read as u64;
        if let Some((stream, goes_on)) = prefix::stream(&line) {
            open[usize::from(stream == prefix::RuntimeStream::Err)] = goes_on;
        }
    }
    Ok(place)
}

/// Opens what `words` name. `name` is the pod of all of them, if given.
///
/// # Errors
/// A path that is not there or cannot be read, and a folder without logs.
pub fn open(words: &[String], name: Option<&str>) -> Result<Vec<LogFile>, Failure> {
    let given = name.map(|name| match name.split_once('/') {
        Some((namespace, pod)) => {
            LogOrigin { pod: Some(pod.to_owned()), namespace: Some(namespace.to_owned()), ip: None }
        }
        None => LogOrigin { pod: Some(name.to_owned()), namespace: None, ip: None },
    });
    let mut logs = Vec::new();
    for word in words {
        if word == "-" {
            let origin = given.clone().unwrap_or_default();
            let (reader, _) = unpacked(Box::new(io::stdin())).map_err(|e| cannot(word, &e))?;
            logs.push(LogFile::new(origin, Some(InputLines::new(reader)), None, None));
            continue;
        }
        let path = Path::new(word);
        let mut files = Vec::new();
        if path.is_dir() {
            list(path, &mut files, &mut BTreeSet::new()).map_err(|error| cannot(word, &error))?;
            files.retain(|file| container_of(file).is_none_or(|container| container == PROXY_CONTAINER));
            files.sort();
            if files.is_empty() {
                return Err(Failure::source(format!(
                    "there is no log of a proxy in {} (.log, .txt or .gz)",
                    safe(word)
                ))
                .hint("name a file, or another folder"));
            }
        } else {
            files.push(path.to_owned());
        }
        for file in files {
            let shown = file.display().to_string();
            let opened = File::open(&file).map_err(|error| cannot(&shown, &error))?;
            let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
            let (reader, is_packed) = unpacked(Box::new(opened)).map_err(|error| cannot(&shown, &error))?;
            // What cannot be read twice, such as a pipe, stays open.
            let (lines, path) =
                if size.is_some() { (None, Some(file.clone())) } else { (Some(InputLines::new(reader)), None) };
            let origin = given.clone().unwrap_or_else(|| origin_of(&file));
            let file = size.filter(|_| !is_packed).map(|size| (file, size));
            logs.push(LogFile::new(origin, lines, path, file));
        }
    }
    Ok(logs)
}

fn cannot(word: &str, error: &io::Error) -> Failure {
    let failure = Failure::source(format!("cannot read {}", safe(word))).cause(error);
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("--logs takes files, folders and - for standard input"),
        io::ErrorKind::PermissionDenied => failure.hint("check who may read it: ls -l"),
        _ => failure.hint("is it a log, and whole?"),
    }
}

/// Unpacks gzip, recognised by its first bytes.
fn unpacked(source: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    // Larger reads go past so small a buffer: nothing is copied twice.
    let mut reader = BufReader::with_capacity(64, source);
    let head = reader.fill_buf()?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        let why = "it is UTF-16, as PowerShell writes it; save it with: … | Out-File -Encoding utf8";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let is_packed = head.starts_with(&[0x1f, 0x8b]);
    Ok(if is_packed {
        (Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, reader))), true)
    } else {
        (Box::new(reader), false)
    })
}

fn list(folder: &Path, files: &mut Vec<std::path::PathBuf>, seen: &mut BTreeSet<std::path::PathBuf>) -> io::Result<()> {
    if !seen.insert(folder.canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            list(&path, files, seen)?;
        } else if [".log", ".txt", ".gz"].iter().any(|suffix| name.ends_with(suffix)) || name.contains(".log.") {
            files.push(path);
        }
    }
    Ok(())
}

/// The container that a path names, in a node's own layouts.
fn container_of(path: &Path) -> Option<&str> {
    let mut parts = path.iter().rev().filter_map(|part| part.to_str());
    let (name, folder, pod) = (parts.next()?, parts.next(), parts.next());
    let is_pod =
        |part: &str| part.split('_').count() == 3 && part.rsplit('_').next().is_some_and(|uid| uid.len() >= 32);
    if pod.is_some_and(is_pod) {
        return folder;
    }
    let (container, id) = name.split(".log").next()?.split('_').nth(2)?.rsplit_once('-')?;
    (id.len() == 64).then_some(container)
}

/// The pod that a path names: a node's own layouts, else the file's name.
///
/// Sources: kubelet's `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
fn origin_of(path: &Path) -> LogOrigin {
    let named = |pod: &str, namespace: &str| LogOrigin {
        pod: Some(pod.to_owned()),
        namespace: Some(namespace.to_owned()),
        ip: None,
    };
    for part in path.iter().rev().skip(1).filter_map(|part| part.to_str()) {
        if let [namespace, pod, uid] = part.split('_').collect::<Vec<_>>()[..]
            && uid.len() >= 32
        {
            return named(pod, namespace);
        }
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.split(".log").next().unwrap_or(name).trim_end_matches(".gz").trim_end_matches(".txt");
    match stem.split('_').collect::<Vec<_>>()[..] {
        [pod, namespace, container] if container.rsplit_once('-').is_some_and(|(_, id)| id.len() == 64) => {
            named(pod, namespace)
        }
        _ => LogOrigin { pod: Some(stem.to_owned()).filter(|stem| !stem.is_empty()), namespace: None, ip: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pods() {
        let of = |path: &str| {
            let LogOrigin { pod, namespace, ip: _ } = origin_of(Path::new(path));
            (pod.unwrap_or_default(), namespace.unwrap_or_default())
        };
        let uid = "0f3c1b2a-1111-2222-3333-444455556666";
        let id = "a".repeat(64);
        assert_eq!(of(&format!("/var/log/pods/shop_echo-1_{uid}/istio-proxy/0.log")), ("echo-1".into(), "shop".into()));
        assert_eq!(
            of(&format!("/var/log/containers/echo-1_shop_istio-proxy-{id}.log")),
            ("echo-1".into(), "shop".into())
        );
        assert_eq!(container_of(Path::new(&format!("/var/log/pods/shop_echo-1_{uid}/app/0.log"))), Some("app"));
        assert_eq!(container_of(Path::new(&format!("x/echo-1_shop_istio-proxy-{id}.log"))), Some(PROXY_CONTAINER));
        assert_eq!(container_of(Path::new("logs/echo-1.log.gz")), None);
        assert_eq!(of("logs/echo-1.log.gz"), ("echo-1".into(), String::new()));
    }

    #[test]
    fn lines_of_the_other_stream_between_pieces_are_kept() {
        let text = "2026-11-21T09:00:00.1Z stdout P one \n2026-11-21T09:00:00.1Z stderr F other\n2026-11-21T09:00:00.1Z stderr P cut \n\
                    2026-11-21T09:00:00.1Z stdout F two\n2026-11-21T09:00:00.1Z stderr F off\nlast";
        let lines = InputLines::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())));
        let mut log = LogFile::new(LogOrigin::default(), Some(lines), None, None);
        let mut found = Vec::new();
        while let Some(line) = log.next_line().unwrap() {
            found.push(String::from_utf8_lossy(prefix::strip(line).line).into_owned());
        }
        assert_eq!(found, ["one two", "other", "cut off", "last"]);
    }

    #[test]
    fn no_seam_is_within_a_line_of_either_stream() {
        let path = std::env::temp_dir().join(format!("grpcmesh-seam-{}.log", std::process::id()));
        let lines = ["out P a", "err P b", "out F c", "err F d", "out F e", "err P f", "out F g", "err F h", "out F i"];
        let text: String = lines.map(|one| format!("2026-11-21T09:00:00.1Z std{one}\n")).concat();
        std::fs::write(&path, &text).unwrap();
        let size = text.len() as u64;
        let length = size / lines.len() as u64;
        // After "d", "e", "h" and "i" nothing goes on.
        let whole: Vec<u64> = [4, 5, 8, 9].iter().map(|count| count * length).collect();
        for at in 0..size {
            let seam = seam(&path, at, size).unwrap();
            assert!(whole.contains(&seam) && (seam > at), "{at}: {seam}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn parts_end_with_a_whole_line() {
        let path = std::env::temp_dir().join(format!("grpcmesh-parts-{}.log", std::process::id()));
        let mut text = String::new();
        for at in 0..60_000 {
            let filling = "x".repeat(400);
            text += &format!("2026-11-21T09:00:00.1Z stdout P {at}-{filling}\n2026-11-21T09:00:00.1Z stdout F -{at}\n");
        }
        std::fs::write(&path, &text).unwrap();
        let log = open(&[path.display().to_string()], None).unwrap().remove(0);
        let mut count = 0;
        for mut part in log.parts(3).unwrap().unwrap() {
            while let Some(line) = part.next_line().unwrap() {
                let line = String::from_utf8_lossy(prefix::strip(line).line).into_owned();
                let (first, rest) = line.split_once("-x").unwrap();
                assert!(rest.ends_with(&format!("-{first}")), "{line}");
                count += 1;
            }
        }
        std::fs::remove_file(path).unwrap();
        assert_eq!(count, 60_000);
    }

    #[test]
    fn pieces_of_a_line_are_put_together() {
        let bytes = b"2026-11-21T09:00:00.1Z stdout P one \n2026-11-21T09:00:00.1Z stdout P two \n2026-11-21T09:00:00.1Z stdout F three\nnext".to_vec();
        let lines = InputLines::new(Box::new(io::Cursor::new(bytes)));
        let mut log = LogFile::new(LogOrigin::default(), Some(lines), None, None);
        assert_eq!(log.next_line().unwrap().map(|line| prefix::strip(line).line), Some(&b"one two three"[..]));
        assert_eq!(log.next_line().unwrap(), Some(&b"next"[..]));
        assert_eq!(log.next_line().unwrap(), None);
    }
}
