//! `--logs`: files, folders and standard input, line by line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::failure::Failure;
use crate::render::text::safe;
use crate::report::tail::Origin;

/// A longer line is cut: headers may be 60 KiB, and nothing that Envoy writes comes near this.
const LINE_MAX: usize = 4 << 20;

/// One log.
pub struct Log {
    /// The pod it is of.
    pub origin: Origin,
    reader: Box<dyn BufRead>,
    /// Lines that were cut.
    pub cut: u64,
}

impl Log {
    /// Reads the next line into `buffer`, without its line break; `false` at the end.
    ///
    /// # Errors
    /// Those of reading, and of broken compression.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        let mut cut = false;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                self.cut += u64::from(cut);
                return Ok(!buffer.is_empty() || cut);
            }
            let end = memchr::memchr(b'\n', available);
            let part = &available[..end.unwrap_or(available.len())];
            let room = LINE_MAX.saturating_sub(buffer.len()).min(part.len());
            buffer.extend_from_slice(&part[..room]);
            cut |= room < part.len();
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                self.cut += u64::from(cut);
                return Ok(true);
            }
        }
    }
}

/// Opens what `words` name. `name` is the pod of all of them, if given.
///
/// # Errors
/// A path that is not there or cannot be read, and a folder without logs.
pub fn open(words: &[String], name: Option<&str>) -> Result<Vec<Log>, Failure> {
    let given = name.map(|name| match name.split_once('/') {
        Some((namespace, pod)) => Origin { pod: Some(pod.to_owned()), namespace: Some(namespace.to_owned()), ip: None },
        None => Origin { pod: Some(name.to_owned()), namespace: None, ip: None },
    });
    let mut logs = Vec::new();
    for word in words {
        if word == "-" {
            let origin = given.clone().unwrap_or_default();
            logs.push(Log { origin, reader: unpacked(Box::new(io::stdin())).map_err(|e| cannot(word, &e))?, cut: 0 });
            continue;
        }
        let path = Path::new(word);
        let mut files = Vec::new();
        if path.is_dir() {
            list(path, &mut files, &mut BTreeSet::new()).map_err(|error| cannot(word, &error))?;
            files.sort();
            if files.is_empty() {
                return Err(Failure::source(format!("there is no .log, .txt or .gz file in {}", safe(word)))
                    .hint("name a file, or another folder"));
            }
        } else {
            files.push(path.to_owned());
        }
        for file in files {
            let shown = file.display().to_string();
            let opened = File::open(&file).and_then(|file| unpacked(Box::new(file))).map_err(|e| cannot(&shown, &e))?;
            let origin = given.clone().unwrap_or_else(|| origin_of(&file));
            logs.push(Log { origin, reader: opened, cut: 0 });
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
fn unpacked(source: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    const BUFFER: usize = 1 << 20;
    let mut reader = BufReader::with_capacity(BUFFER, source);
    let is_packed = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if is_packed {
        Box::new(BufReader::with_capacity(BUFFER, flate2::read::MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
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

/// The pod that a path names: a node's own layouts, else the file's name.
///
/// Sources: kubelet's `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
fn origin_of(path: &Path) -> Origin {
    let named = |pod: &str, namespace: &str| Origin {
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
        _ => Origin { pod: Some(stem.to_owned()).filter(|stem| !stem.is_empty()), namespace: None, ip: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pods() {
        let of = |path: &str| {
            let Origin { pod, namespace, ip: _ } = origin_of(Path::new(path));
            (pod.unwrap_or_default(), namespace.unwrap_or_default())
        };
        let uid = "0f3c1b2a-1111-2222-3333-444455556666";
        let id = "a".repeat(64);
        assert_eq!(of(&format!("/var/log/pods/shop_echo-1_{uid}/istio-proxy/0.log")), ("echo-1".into(), "shop".into()));
        assert_eq!(
            of(&format!("/var/log/containers/echo-1_shop_istio-proxy-{id}.log")),
            ("echo-1".into(), "shop".into())
        );
        assert_eq!(of("logs/echo-1.log.gz"), ("echo-1".into(), String::new()));
    }

    #[test]
    fn lines_come_whole_and_too_long_ones_are_cut() {
        let mut bytes = b"one\r\n\ntwo".to_vec();
        bytes.push(b'\n');
        bytes.extend(std::iter::repeat_n(b'x', LINE_MAX + 5));
        let mut log = Log { origin: Origin::default(), reader: Box::new(io::Cursor::new(bytes)), cut: 0 };
        let (mut buffer, mut lengths) = (Vec::new(), Vec::new());
        while log.next(&mut buffer).unwrap() {
            lengths.push(buffer.len());
        }
        assert_eq!((lengths, log.cut), (vec![4, 0, 3, LINE_MAX], 1));
    }
}
