//! `--logs`: reads files, directories and standard input line by line.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::input_lines::{InputLines, LINE_MAX};
use super::log_input::{ArchiveFile, LogInput, open_input};
use crate::accesslog::{PodNames, names_in_path, prefix};
use crate::render::text::safe;
use crate::report::tail::LogOrigin;
use crate::schema::core::PROXY_CONTAINER;

/// Upper bound for a partial line of a container runtime (16 KiB) with its prefix.
const PARTIAL_LINE_BYTES: u64 = 17 << 10;
/// Limit for lines of the other stream between two parts of a line.
const HELD_LINES_MAX: usize = 1_000;
/// Ends of file names that are not part of the name of a pod.
const STEM_ENDS: [&str; 12] =
    [".gz", ".zst", ".xz", ".bz2", ".zip", ".tgz", ".tar", ".txt", ".json", ".jsonl", ".ndjson", ".csv"];
/// Ends of the names of logs.
const LOG_ENDS: [&str; 13] =
    [".log", ".txt", ".gz", ".zst", ".xz", ".bz2", ".zip", ".tgz", ".tar", ".json", ".jsonl", ".ndjson", ".csv"];
/// Smaller parts of a log are not worth a thread.
const MIN_PART_BYTES: u64 = 8 << 20;

/// One log, opened lazily.
pub struct LogFile {
    /// The pod that wrote the log.
    pub origin: LogOrigin,
    /// Opened on the first read and closed at the end: a directory may contain more logs than the limit for open files.
    lines: Option<InputLines>,
    path: Option<PathBuf>,
    /// A line joined from the parts that a runtime wrote.
    joined: Vec<u8>,
    /// Lines of the other stream from between the parts.
    held: VecDeque<Vec<u8>>,
    /// Number of lines truncated to [`LINE_MAX`].
    pub truncated_lines: u64,
    /// Why the log could not be opened.
    open_error: Option<io::Error>,
    /// Path and size of an uncompressed regular file, which can be read at several positions at once.
    splittable_file: Option<(PathBuf, u64)>,
}

impl LogFile {
    fn new(
        origin: LogOrigin,
        lines: Option<InputLines>,
        path: Option<PathBuf>,
        splittable_file: Option<(PathBuf, u64)>,
    ) -> Self {
        Self {
            origin,
            lines,
            path,
            joined: Vec::new(),
            held: VecDeque::new(),
            truncated_lines: 0,
            open_error: None,
            splittable_file,
        }
    }

    /// Splits the log into at most `max_parts` parts of about equal size that end with a whole line. `None` if the log
    /// is compressed, not a regular file, or too small.
    ///
    /// # Errors
    /// Errors of reading the file.
    pub fn split(&self, max_parts: usize) -> io::Result<Option<Vec<Self>>> {
        let Some((path, size)) = &self.splittable_file else { return Ok(None) };
        let count = max_parts.min(usize::try_from(size / MIN_PART_BYTES).unwrap_or(usize::MAX));
        if count < 2 {
            return Ok(None);
        }
        let mut starts = vec![0];
        for part in 1..count as u64 {
            starts.push(find_split(path, size / count as u64 * part, *size)?);
        }
        starts.push(*size);
        let part = |(start, end): (&u64, &u64)| -> io::Result<Self> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*start))?;
            let lines = InputLines::new(Box::new(file.take(end.saturating_sub(*start))));
            Ok(Self::new(self.origin.clone(), Some(lines), None, None))
        };
        starts.iter().zip(starts.iter().skip(1)).map(part).collect::<io::Result<Vec<_>>>().map(Some)
    }

    /// Whether the next line may have to be waited for.
    pub fn may_wait(&self) -> bool {
        self.held.is_empty() && !self.lines.as_ref().is_some_and(InputLines::has_line)
    }

    /// The next line without its line break; `None` at the end. Joins the parts of a line that a container runtime
    /// split; lines of the other stream between the parts follow after it.
    ///
    /// # Errors
    /// Errors of reading and of decompression.
    #[inline]
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if let Some(path) = self.path.take()
            && let LogInput::Text { text, .. } = open_input(Box::new(File::open(path)?), 0)?
        {
            self.lines = Some(InputLines::new(text));
        }
        if let Some(error) = self.open_error.take() {
            return Err(error);
        }
        if let Some(held) = self.held.pop_front() {
            self.joined = held;
        } else {
            let Some(lines) = &mut self.lines else { return Ok(None) };
            if !lines.advance()? {
                self.truncated_lines += lines.truncated;
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
            self.join_parts()?;
        }
        Ok(Some(&self.joined))
    }

    /// Appends the further parts of the partial line in `joined`.
    fn join_parts(&mut self) -> io::Result<()> {
        let stream = prefix::stream(&self.joined).map(|(stream, _)| stream);
        let mut is_truncated = false;
        let mut append = |joined: &mut Vec<u8>, part: &[u8]| {
            let rest = prefix::strip(part).line;
            let length = LINE_MAX.saturating_sub(joined.len()).min(rest.len());
            joined.extend_from_slice(rest.get(..length).unwrap_or_default());
            is_truncated |= length < rest.len();
            prefix::is_partial(part)
        };
        let is_same_stream = |line: &[u8]| prefix::stream(line).map(|(stream, _)| stream) == stream;
        let mut is_partial = true;
        // Lines that were held back come before the lines that are read now.
        while let Some(index) = self.held.iter().position(|line| is_same_stream(line)).filter(|_| is_partial) {
            let Some(part) = self.held.remove(index) else { break };
            is_partial = append(&mut self.joined, &part);
        }
        while let Some(lines) = self.lines.as_mut().filter(|_| is_partial && self.held.len() < HELD_LINES_MAX) {
            if !lines.advance()? {
                break;
            }
            if is_same_stream(lines.line()) {
                is_partial = append(&mut self.joined, lines.line());
            } else {
                self.held.push_back(lines.line().to_vec());
            }
        }
        self.truncated_lines += u64::from(is_truncated);
        Ok(())
    }
}

/// The start of the first line at or after `target` at which no partial line of either stream is open.
fn find_split(path: &Path, target: u64, size: u64) -> io::Result<u64> {
    // Start before the line that contains `target`, to see whether it is partial.
    let from = target.saturating_sub(PARTIAL_LINE_BYTES);
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::Start(from))?;
    let (mut position, mut line) = (from, Vec::new());
    if from > 0 {
        position += file.read_until(b'\n', &mut line)? as u64;
    }
    // Whether a partial line of stdout and of stderr is open: the streams may be interleaved.
    let mut open = [false; 2];
    while position < size && (position <= target || open.contains(&true)) {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        position += length as u64;
        if let Some((stream, is_partial)) = prefix::stream(&line) {
            let [stdout, stderr] = &mut open;
            *(if stream == prefix::RuntimeStream::Stderr { stderr } else { stdout }) = is_partial;
        }
    }
    Ok(position)
}

/// Which logs to open, and how.
#[derive(Debug, Clone, Copy)]
pub struct LogSource<'a> {
    /// Files, directories, or `-` for standard input.
    pub paths: &'a [String],
    /// POD or NAMESPACE/POD, in place of the pod names in the paths.
    pub pod_name: Option<&'a str>,
    /// Limit for the files of an archive in memory.
    pub max_size: u64,
}

/// Opens the logs of `source`. A file of several that cannot be opened fails when it is read, so that the others are
/// read.
///
/// # Errors
/// The only path cannot be read, or a directory contains no logs.
pub fn open(source: LogSource<'_>) -> Result<Vec<LogFile>, Failure> {
    let mut logs = Vec::new();
    for path in source.paths {
        if path == "-" {
            let input =
                open_input(Box::new(io::stdin()), source.max_size).map_err(|error| read_failure(path, &error))?;
            add_input(input, None, source, &mut logs);
            continue;
        }
        let mut files = Vec::new();
        if Path::new(path).is_dir() {
            list_logs(Path::new(path), &mut files, &mut BTreeSet::new()).map_err(|error| read_failure(path, &error))?;
            files.retain(|file| is_proxy_log(file));
            files.sort();
            if files.is_empty() {
                return Err(Failure::unavailable(format!(
                    "{} contains no istio-proxy logs (.log, .txt, .json or compressed)",
                    safe(path)
                ))
                .hint("pass a file or another directory with --logs"));
            }
        } else {
            files.push(PathBuf::from(path));
        }
        let is_only_file = source.paths.len() == 1 && files.len() == 1;
        for file in files {
            match open_file(&file, source, &mut logs) {
                Err(error) if is_only_file => return Err(read_failure(&file.display().to_string(), &error)),
                Err(error) => {
                    let mut log = LogFile::new(source.origin(&file), None, None, None);
                    log.open_error = Some(error);
                    logs.push(log);
                }
                Ok(()) => {}
            }
        }
    }
    Ok(logs)
}

impl LogSource<'_> {
    /// The pod that the user names, or else the one in the path.
    fn origin(&self, path: &Path) -> LogOrigin {
        match self.pod_name.map(|name| name.split_once('/').map_or((None, name), |(space, pod)| (Some(space), pod))) {
            Some((namespace, pod)) => {
                LogOrigin { pod: Some(pod.to_owned()), namespace: namespace.map(str::to_owned), ..LogOrigin::default() }
            }
            None => origin_of(path),
        }
    }
}

/// Whether a file in a directory or an archive may be the log of a proxy.
fn is_proxy_log(path: &Path) -> bool {
    origin_of(path).container.is_none_or(|container| container == PROXY_CONTAINER)
}

fn open_file(path: &Path, source: LogSource<'_>, logs: &mut Vec<LogFile>) -> io::Result<()> {
    let opened = File::open(path)?;
    let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let input = open_input(Box::new(opened), source.max_size)?;
    match (input, size) {
        // A pipe cannot be opened twice: it stays open.
        (LogInput::Text { is_plain, .. }, Some(size)) => {
            let splittable_file = is_plain.then(|| (path.to_owned(), size));
            logs.push(LogFile::new(source.origin(path), None, Some(path.to_owned()), splittable_file));
        }
        (input, _) => add_input(input, Some(path), source, logs),
    }
    Ok(())
}

/// Adds a log that stays open, or the logs of an archive.
fn add_input(input: LogInput, path: Option<&Path>, source: LogSource<'_>, logs: &mut Vec<LogFile>) {
    let origin = source.origin(path.unwrap_or(Path::new("")));
    match input {
        LogInput::Text { text, .. } => logs.push(LogFile::new(origin, Some(InputLines::new(text)), None, None)),
        LogInput::Archive(files) => {
            for ArchiveFile { path, content } in files.into_iter().filter(|file| is_proxy_log(&file.path)) {
                let mut log = LogFile::new(source.origin(&path), None, None, None);
                // A file in an archive may be compressed itself.
                match open_input(Box::new(io::Cursor::new(content)), source.max_size) {
                    Ok(LogInput::Text { text, .. }) => log.lines = Some(InputLines::new(text)),
                    Ok(LogInput::Archive(_)) => log.open_error = Some(io::Error::other("an archive in an archive")),
                    Err(error) => log.open_error = Some(error),
                }
                logs.push(log);
            }
        }
    }
}

fn read_failure(path: &str, error: &io::Error) -> Failure {
    let failure = Failure::unavailable(format!("cannot read {}", safe(path))).cause(error);
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("--logs accepts files, directories, and - for standard input"),
        io::ErrorKind::PermissionDenied => failure.hint(format!("check its permissions: ls -l {}", safe(path))),
        io::ErrorKind::FileTooLarge => {
            failure.hint("if you trust the file, raise the limit with --max-source-size, such as 2Gi")
        }
        _ => failure.hint("check that the file is a log and is complete"),
    }
}

/// Collects log files recursively; `visited` guards against cycles of symbolic links.
fn list_logs(directory: &Path, files: &mut Vec<PathBuf>, visited: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if !visited.insert(directory.canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            list_logs(&path, files, visited)?;
        } else if has_log_name(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a file in a directory or an archive has the name of a log.
pub(super) fn has_log_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    LOG_ENDS.iter().any(|end| name.ends_with(end)) || name.contains(".log.")
}

/// The pod in a path of the kubelet's layouts, or else the name of the file.
fn origin_of(path: &Path) -> LogOrigin {
    let owned = |name: Option<&str>| name.map(str::to_owned);
    if let Some(PodNames { pod, namespace, container }) = path.to_str().and_then(names_in_path) {
        let container = owned(container);
        return LogOrigin { pod: owned(pod), namespace: owned(namespace), container, ip: None };
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut stem = name.split(".log").next().unwrap_or(name);
    while let Some(shorter) = STEM_ENDS.iter().find_map(|end| stem.strip_suffix(end)) {
        stem = shorter;
    }
    LogOrigin { pod: Some(stem.to_owned()).filter(|stem| !stem.is_empty()), ..LogOrigin::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_pod_and_container_from_the_path() {
        let of = |path: &str| {
            let LogOrigin { pod, namespace, container: _, ip: _ } = origin_of(Path::new(path));
            (pod.unwrap_or_default(), namespace.unwrap_or_default())
        };
        let uid = "0f3c1b2a-1111-2222-3333-444455556666";
        let id = "a".repeat(64);
        assert_eq!(of(&format!("/var/log/pods/shop_echo-1_{uid}/istio-proxy/0.log")), ("echo-1".into(), "shop".into()));
        assert_eq!(
            of(&format!("/var/log/containers/echo-1_shop_istio-proxy-{id}.log")),
            ("echo-1".into(), "shop".into())
        );
        let container = |path: &str| origin_of(Path::new(path)).container;
        assert_eq!(container(&format!("/var/log/pods/shop_echo-1_{uid}/app/0.log")).as_deref(), Some("app"));
        assert_eq!(container(&format!("x/echo-1_shop_istio-proxy-{id}.log")).as_deref(), Some(PROXY_CONTAINER));
        assert_eq!(container("logs/echo-1.log.gz"), None);
        assert_eq!(of("logs/echo-1.log.gz"), ("echo-1".into(), String::new()));
    }

    #[test]
    fn keeps_lines_of_the_other_stream_between_the_parts_of_a_line() {
        let text = "2026-11-21T09:00:00.1Z stdout P one \n2026-11-21T09:00:00.1Z stderr F other\n2026-11-21T09:00:00.1Z stderr P cut \n\
                    2026-11-21T09:00:00.1Z stdout F two\n2026-11-21T09:00:00.1Z stderr F off\nlast";
        let lines = InputLines::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())));
        let mut log = LogFile::new(LogOrigin::default(), Some(lines), None, None);
        let mut lines = Vec::new();
        while let Some(line) = log.next_line().unwrap() {
            lines.push(String::from_utf8_lossy(prefix::strip(line).line).into_owned());
        }
        assert_eq!(lines, ["one two", "other", "cut off", "last"]);
    }

    #[test]
    fn never_splits_a_partial_line_of_either_stream() {
        let path = std::env::temp_dir().join(format!("grpcmesh-split-{}.log", std::process::id()));
        let lines = ["out P a", "err P b", "out F c", "err F d", "out F e", "err P f", "out F g", "err F h", "out F i"];
        let text: String = lines.map(|line| format!("2026-11-21T09:00:00.1Z std{line}\n")).concat();
        std::fs::write(&path, &text).unwrap();
        let size = text.len() as u64;
        let length = size / lines.len() as u64;
        // No partial line is open after "d", "e", "h" and "i".
        let valid_splits: Vec<u64> = [4, 5, 8, 9].iter().map(|count| count * length).collect();
        for target in 0..size {
            let split = find_split(&path, target, size).unwrap();
            assert!(valid_splits.contains(&split) && split > target, "{target}: {split}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn splits_a_log_between_whole_lines() {
        let path = std::env::temp_dir().join(format!("grpcmesh-parts-{}.log", std::process::id()));
        let mut text = String::new();
        for number in 0..60_000 {
            let filling = "x".repeat(400);
            text += &format!(
                "2026-11-21T09:00:00.1Z stdout P {number}-{filling}\n2026-11-21T09:00:00.1Z stdout F -{number}\n"
            );
        }
        std::fs::write(&path, &text).unwrap();
        let paths = [path.display().to_string()];
        let log = open(LogSource { paths: &paths, pod_name: None, max_size: 1 << 20 }).unwrap().remove(0);
        let mut count = 0;
        for mut part in log.split(3).unwrap().unwrap() {
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
    fn joins_the_parts_of_a_line() {
        let bytes = b"2026-11-21T09:00:00.1Z stdout P one \n2026-11-21T09:00:00.1Z stdout P two \n2026-11-21T09:00:00.1Z stdout F three\nnext".to_vec();
        let lines = InputLines::new(Box::new(io::Cursor::new(bytes)));
        let mut log = LogFile::new(LogOrigin::default(), Some(lines), None, None);
        assert_eq!(log.next_line().unwrap().map(|line| prefix::strip(line).line), Some(&b"one two three"[..]));
        assert_eq!(log.next_line().unwrap(), Some(&b"next"[..]));
        assert_eq!(log.next_line().unwrap(), None);
    }
}
