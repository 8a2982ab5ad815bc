//! `--logs`: reads files, directories and standard input line by line.

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

/// Upper bound for a partial line of a container runtime (16 KiB) with its prefix.
const PARTIAL_LINE_BYTES: u64 = 17 << 10;
/// Limit for lines of the other stream between two parts of a line.
const HELD_LINES_MAX: usize = 1_000;
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
        Self { origin, lines, path, joined: Vec::new(), held: VecDeque::new(), truncated_lines: 0, splittable_file }
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

    /// The next line without its line break; `None` at the end. Joins the parts of a line that a container runtime
    /// split; lines of the other stream between the parts follow after it.
    ///
    /// # Errors
    /// Errors of reading and of decompression.
    #[inline]
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        if let Some(path) = self.path.take() {
            self.lines = Some(InputLines::new(decompress(Box::new(File::open(path)?))?.0));
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

/// Opens the logs at `paths`. `pod_name`, as POD or NAMESPACE/POD, replaces the pod names in the paths.
///
/// # Errors
/// A path does not exist or cannot be read, or a directory contains no logs.
pub fn open(paths: &[String], pod_name: Option<&str>) -> Result<Vec<LogFile>, Failure> {
    let named_origin = pod_name.map(|name| match name.split_once('/') {
        Some((namespace, pod)) => {
            LogOrigin { pod: Some(pod.to_owned()), namespace: Some(namespace.to_owned()), ip: None }
        }
        None => LogOrigin { pod: Some(name.to_owned()), namespace: None, ip: None },
    });
    let mut logs = Vec::new();
    for path in paths {
        if path == "-" {
            let origin = named_origin.clone().unwrap_or_default();
            let (reader, _) = decompress(Box::new(io::stdin())).map_err(|error| read_failure(path, &error))?;
            logs.push(LogFile::new(origin, Some(InputLines::new(reader)), None, None));
            continue;
        }
        let mut files = Vec::new();
        if Path::new(path).is_dir() {
            list_logs(Path::new(path), &mut files, &mut BTreeSet::new()).map_err(|error| read_failure(path, &error))?;
            files.retain(|file| container_of(file).is_none_or(|container| container == PROXY_CONTAINER));
            files.sort();
            if files.is_empty() {
                return Err(Failure::unavailable(format!(
                    "{} contains no istio-proxy logs (.log, .txt or .gz)",
                    safe(path)
                ))
                .hint("pass a file or another directory with --logs"));
            }
        } else {
            files.push(PathBuf::from(path));
        }
        for file in files {
            let shown = file.display().to_string();
            let opened = File::open(&file).map_err(|error| read_failure(&shown, &error))?;
            let size = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
            let (reader, is_compressed) = decompress(Box::new(opened)).map_err(|error| read_failure(&shown, &error))?;
            // A pipe cannot be opened twice: it stays open.
            let (lines, lazy_path) =
                if size.is_some() { (None, Some(file.clone())) } else { (Some(InputLines::new(reader)), None) };
            let origin = named_origin.clone().unwrap_or_else(|| origin_of(&file));
            let splittable_file = size.filter(|_| !is_compressed).map(|size| (file, size));
            logs.push(LogFile::new(origin, lines, lazy_path, splittable_file));
        }
    }
    Ok(logs)
}

fn read_failure(path: &str, error: &io::Error) -> Failure {
    let failure = Failure::unavailable(format!("cannot read {}", safe(path))).cause(error);
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("--logs accepts files, directories, and - for standard input"),
        io::ErrorKind::PermissionDenied => failure.hint(format!("check its permissions: ls -l {}", safe(path))),
        _ => failure.hint("check that the file is a log and is complete"),
    }
}

/// Decompresses gzip, detected by its first bytes; `true` if it was compressed.
fn decompress(source: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    // Reads larger than this small buffer bypass it, so nothing is copied twice.
    let mut reader = BufReader::with_capacity(64, source);
    let head = reader.fill_buf()?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16, as PowerShell writes it; save it with: … | Out-File -Encoding utf8";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let is_compressed = head.starts_with(&[0x1f, 0x8b]);
    Ok(if is_compressed {
        (Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, reader))), true)
    } else {
        (Box::new(reader), false)
    })
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
        } else if [".log", ".txt", ".gz"].iter().any(|suffix| name.ends_with(suffix)) || name.contains(".log.") {
            files.push(path);
        }
    }
    Ok(())
}

/// The container in a path of the kubelet's layouts.
fn container_of(path: &Path) -> Option<&str> {
    let mut parts = path.iter().rev().filter_map(|part| part.to_str());
    let (name, directory, pod) = (parts.next()?, parts.next(), parts.next());
    let is_pod_directory =
        |part: &str| part.split('_').count() == 3 && part.rsplit('_').next().is_some_and(|uid| uid.len() >= 32);
    if pod.is_some_and(is_pod_directory) {
        return directory;
    }
    let (container, id) = name.split(".log").next()?.split('_').nth(2)?.rsplit_once('-')?;
    (id.len() == 64).then_some(container)
}

/// The pod in a path of the kubelet's layouts, or else the name of the file.
///
/// Sources: kubelet's `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and
/// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
fn origin_of(path: &Path) -> LogOrigin {
    let origin = |pod: &str, namespace: &str| LogOrigin {
        pod: Some(pod.to_owned()),
        namespace: Some(namespace.to_owned()),
        ip: None,
    };
    for part in path.iter().rev().skip(1).filter_map(|part| part.to_str()) {
        if let [namespace, pod, uid] = part.split('_').collect::<Vec<_>>()[..]
            && uid.len() >= 32
        {
            return origin(pod, namespace);
        }
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.split(".log").next().unwrap_or(name).trim_end_matches(".gz").trim_end_matches(".txt");
    match stem.split('_').collect::<Vec<_>>()[..] {
        [pod, namespace, container] if container.rsplit_once('-').is_some_and(|(_, id)| id.len() == 64) => {
            origin(pod, namespace)
        }
        _ => LogOrigin { pod: Some(stem.to_owned()).filter(|stem| !stem.is_empty()), namespace: None, ip: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_pod_and_container_from_the_path() {
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
        let log = open(&[path.display().to_string()], None).unwrap().remove(0);
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
