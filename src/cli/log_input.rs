//! Opens logs as people store them: compressed, in an archive, or as UTF-16. The first bytes decide, not the name.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;

use super::input_lines::BUFFER;

/// Enough of a file to recognize it: the name of the tar format is at byte 257.
const HEAD_BYTES: usize = 512;
/// Archives in archives, and compression in compression, up to this depth.
const LAYERS_MAX: usize = 4;
/// Limit for the dictionary of an xz file, in KiB: `xz -9` needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 160 << 10;

type Source = Box<dyn Read + Send>;

/// The content of a file.
pub(super) enum LogInput {
    /// One log. `is_plain`: the bytes of the file itself.
    Text { text: Source, is_plain: bool },
    /// The files of an archive.
    Archive(Vec<ArchiveFile>),
}

/// A file of an archive, in memory.
pub(super) struct ArchiveFile {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

/// Opens a file, or what is compressed or archived in it. `max_size` limits what the files of an archive take in memory;
/// a compressed log of any size is read in bounded memory.
///
/// # Errors
/// Errors of reading, and formats that cannot be read.
pub(super) fn open_input(source: Source, max_size: u64) -> io::Result<LogInput> {
    let mut source = source;
    let mut is_plain = true;
    for _ in 0..LAYERS_MAX {
        let head = read_head(&mut source, is_plain)?;
        let format = detect(&head);
        let whole = Cursor::new(head).chain(source);
        let reader = BufReader::with_capacity(BUFFER, whole);
        source = match format {
            FileFormat::Text => return Ok(LogInput::Text { text: unbuffered(reader), is_plain }),
            FileFormat::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            FileFormat::Zstd => Box::new(ZstdFrames { source: Some(reader), decoder: None }),
            FileFormat::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB)),
            FileFormat::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            FileFormat::Utf16(order) => Box::new(Utf16Reader { source: reader, order, decoded: VecDeque::new() }),
            FileFormat::Tar => return read_tar(reader, max_size).map(LogInput::Archive),
            FileFormat::Zip => return read_zip(reader, max_size).map(LogInput::Archive),
            FileFormat::Other(name, command) => {
                return Err(invalid(format!(
                    "the file is compressed with {name}; decompress it first: {command} FILE | kubectl grpcmesh tail --logs -"
                )));
            }
        };
        is_plain = false;
    }
    Err(invalid(format!("the file is compressed more than {LAYERS_MAX} times")))
}

/// Lines are read in large pieces, which a buffer would only copy.
fn unbuffered(reader: BufReader<io::Chain<Cursor<Vec<u8>>, Source>>) -> Source {
    Box::new(reader.into_inner())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The first bytes. A log that is still being written may have few of them: one read has to be enough.
fn read_head(source: &mut Source, is_plain: bool) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut length = 0;
    while let Some(rest) = head.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if is_plain && length >= 4 {
            break;
        }
    }
    head.truncate(length);
    Ok(head)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileFormat {
    Text,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Tar,
    Zip,
    Utf16(ByteOrder),
    /// A format that is not read: its name, and the command that decompresses it.
    Other(&'static str, &'static str),
}

/// Recognizes a file by its first bytes.
///
/// Sources: RFC 1952 (gzip), RFC 8878 (zstd), the xz file format 1.2, `bzip2.h`, POSIX `ustar`, PKWARE's APPNOTE 4.3.
fn detect(head: &[u8]) -> FileFormat {
    let is_skippable_frame =
        head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && head.first().is_some_and(|byte| byte & 0xf0 == 0x50);
    match head {
        [0x1f, 0x8b, ..] => FileFormat::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => FileFormat::Zstd,
        _ if is_skippable_frame => FileFormat::Zstd,
        [0xfd, b'7', b'z', b'X', ..] => FileFormat::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => FileFormat::Bzip2,
        [b'P', b'K', 3, 4, ..] => FileFormat::Zip,
        [0xff, 0xfe, ..] => FileFormat::Utf16(ByteOrder::Little),
        [0xfe, 0xff, ..] => FileFormat::Utf16(ByteOrder::Big),
        // Text in ASCII without a mark.
        [1..=127, 0, 1..=127, 0, ..] => FileFormat::Utf16(ByteOrder::Little),
        [0, 1..=127, 0, 1..=127, ..] => FileFormat::Utf16(ByteOrder::Big),
        [0x04, 0x22, 0x4d, 0x18, ..] => FileFormat::Other("lz4", "lz4cat"),
        [0x1f, 0x9d, ..] => FileFormat::Other("compress", "zcat"),
        [b'7', b'z', 0xbc, 0xaf, ..] => FileFormat::Other("7-Zip", "7z x -so"),
        _ if head.get(257..262) == Some(b"ustar") => FileFormat::Tar,
        _ => FileFormat::Text,
    }
}

/// The frames of a zstd file, one after another: `cat a.zst b.zst` is a valid file.
struct ZstdFrames<R: BufRead> {
    source: Option<R>,
    decoder: Option<ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut decoder) = self.decoder.take() {
                let count = decoder.read(buffer)?;
                if count > 0 {
                    self.decoder = Some(decoder);
                    return Ok(count);
                }
                self.source = Some(decoder.into_inner());
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            let head = source.fill_buf()?;
            if head.is_empty() {
                return Ok(0);
            }
            if let Some(length) = skippable_length(&mut source)? {
                io::copy(&mut source.by_ref().take(length), &mut io::sink())?;
                self.source = Some(source);
                continue;
            }
            self.decoder = Some(ruzstd::decoding::StreamingDecoder::new(source).map_err(io::Error::other)?);
        }
    }
}

/// The length of the skippable frame (RFC 8878, section 3.1.2) at this position, whose header is consumed.
fn skippable_length(source: &mut impl BufRead) -> io::Result<Option<u64>> {
    let is_skippable = matches!(source.fill_buf()?, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if !is_skippable {
        return Ok(None);
    }
    let mut header = [0; 8];
    source.read_exact(&mut header)?;
    let [_, _, _, _, length @ ..] = header;
    Ok(Some(u64::from(u32::from_le_bytes(length))))
}

/// Converts UTF-16 to UTF-8.
struct Utf16Reader<R: BufRead> {
    source: R,
    order: ByteOrder,
    decoded: VecDeque<u8>,
}

impl<R: BufRead> Utf16Reader<R> {
    /// The next unit; `None` at the end.
    fn next_unit(&mut self) -> io::Result<Option<u16>> {
        let mut bytes = [0; 2];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(match self.order {
                ByteOrder::Little => u16::from_le_bytes(bytes),
                ByteOrder::Big => u16::from_be_bytes(bytes),
            })),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<R: BufRead> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A line break ends a piece, so that a slow input appears line by line.
        while self.decoded.len() < buffer.len() {
            let Some(unit) = self.next_unit()? else { break };
            let pair = if (0xd800..0xdc00).contains(&unit) { self.next_unit()? } else { None };
            for c in char::decode_utf16([unit].into_iter().chain(pair)) {
                let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                if c != '\u{feff}' {
                    self.decoded.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            if unit == u16::from(b'\n') {
                break;
            }
        }
        self.decoded.read(buffer)
    }
}

/// Reads the files of an archive while they fit.
struct ArchiveReader {
    files: Vec<ArchiveFile>,
    left: u64,
}

impl ArchiveReader {
    fn add(&mut self, path: PathBuf, content: impl Read) -> io::Result<()> {
        let is_hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
        if is_hidden || !super::log_files::has_log_name(&path) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        content.take(self.left.saturating_add(1)).read_to_end(&mut bytes)?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the logs in the archive are larger than the limit when decompressed",
            )
        })?;
        self.files.push(ArchiveFile { path, content: bytes });
        Ok(())
    }
}

fn read_tar(source: impl Read, max_size: u64) -> io::Result<Vec<ArchiveFile>> {
    let mut reader = ArchiveReader { files: Vec::new(), left: max_size };
    for entry in tar::Archive::new(source).entries()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            reader.add(entry.path()?.into_owned(), entry)?;
        }
    }
    Ok(reader.files)
}

/// The directory of a zip file is at its end, so that the file is read whole.
fn read_zip(source: impl Read, max_size: u64) -> io::Result<Vec<ArchiveFile>> {
    let mut bytes = Vec::new();
    source.take(max_size.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_size {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the archive is larger than the limit"));
    }
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(io::Error::other)?;
    let mut reader = ArchiveReader { files: Vec::new(), left: max_size };
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(io::Error::other)?;
        if file.is_file() {
            let path = file.name().map(|name| PathBuf::from(&*name)).map_err(io::Error::other)?;
            reader.add(path, file)?;
        }
    }
    Ok(reader.files)
}
