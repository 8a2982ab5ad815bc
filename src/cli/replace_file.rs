//! Replaces files as a whole: writes beside the file and renames, so that it is always complete, whatever happens.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Who may read the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Only its owner: it holds data of a cluster.
    Private,
    /// Mode and owner of the file that is replaced.
    Kept,
}

/// Most symbolic links in a row, as in Linux.
const MAX_LINKS: usize = 40;

/// The file beside the target that is being written.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Removes the file that [`replace_file`] is writing, because the program ends now.
pub fn remove_unfinished() {
    if let Some(path) = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = std::fs::remove_file(path);
    }
}

fn set_unfinished(path: Option<PathBuf>) {
    *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = path;
}

/// Replaces the content of `path` by what `write` writes. Follows symbolic links, also to a file that does not exist yet. Writes
/// directly to pipes and devices.
///
/// # Errors
/// A file cannot be written. The old content is still there then.
pub fn replace_file(
    path: &Path,
    access: FileAccess,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let existing = std::fs::metadata(path).ok();
    if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return write(&mut OpenOptions::new().write(true).open(path)?);
    }
    let target = follow_links(path)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let part = target.with_file_name(name);
    set_unfinished(Some(part.clone()));
    let result = create_private(&part).and_then(|mut file| {
        write(&mut file)?;
        file.flush()?;
        file.sync_all()?;
        match existing.filter(|_| access == FileAccess::Kept) {
            Some(existing) if !keep_access(&part, &existing) => copy_into(&part, &target),
            _ => std::fs::rename(&part, &target),
        }
    });
    let _ = std::fs::remove_file(&part);
    set_unfinished(None);
    result
}

/// The file that a path leads to through symbolic links, whether it exists or not.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("")).join(link),
            // Not a link, or nothing yet.
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Gives the new file the mode and the owner of the old one. Returns false if that is not permitted.
fn keep_access(part: &Path, existing: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let Ok(new) = std::fs::metadata(part) else { return false };
        let (uid, gid) = (existing.uid(), existing.gid());
        // After the owner, because a change of the owner clears bits of the mode.
        if (new.uid(), new.gid()) != (uid, gid) && chown(part, Some(uid), Some(gid)).is_err() {
            return false;
        }
    }
    std::fs::set_permissions(part, existing.permissions()).is_ok()
}

/// Writes over a file whose owner the new file cannot get. The new content is complete beside it until that is done.
fn copy_into(part: &Path, target: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).truncate(true).open(target)?;
    io::copy(&mut File::open(part)?, &mut target)?;
    target.sync_all()
}

/// Creates a file that only its owner can read. Never follows a link that is there already.
fn create_private(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("grpcmesh-replace-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn write_new(file: &mut File) -> io::Result<()> {
        file.write_all(b"new")
    }

    #[test]
    fn keeps_mode_and_follows_links() {
        let folder = Folder::new("links");
        let (file, link, other) = (folder.0.join("file"), folder.0.join("link"), folder.0.join("other"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("other", &link).unwrap();
        symlink("file", &other).unwrap();
        let before = std::fs::metadata(&file).unwrap();
        replace_file(&link, FileAccess::Kept, write_new).unwrap();
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!((after.mode() & 0o777, after.uid(), after.gid()), (0o640, before.uid(), before.gid()));
        assert!(link.is_symlink() && other.is_symlink());
        assert_ne!(before.ino(), after.ino(), "the file was written in place");
        assert_eq!(folder.files(), ["file", "link", "other"]);
    }

    #[test]
    fn a_link_to_a_file_that_does_not_exist_creates_the_file() {
        let folder = Folder::new("dangling");
        symlink("target", folder.0.join("link")).unwrap();
        replace_file(&folder.0.join("link"), FileAccess::Private, write_new).unwrap();
        assert!(folder.0.join("link").is_symlink());
        assert_eq!(std::fs::read_to_string(folder.0.join("target")).unwrap(), "new");
        assert_eq!(std::fs::metadata(folder.0.join("target")).unwrap().mode() & 0o777, 0o600);
        symlink("loop", folder.0.join("loop")).unwrap();
        assert!(replace_file(&folder.0.join("loop"), FileAccess::Private, write_new).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let folder = Folder::new("failed");
        let file = folder.0.join("file");
        std::fs::write(&file, "old").unwrap();
        let fail = |file: &mut File| file.write_all(b"half").and_then(|()| Err(io::Error::other("disk full")));
        assert!(replace_file(&file, FileAccess::Kept, fail).is_err());
        assert_eq!(
            (std::fs::read_to_string(&file).unwrap().as_str(), folder.files()),
            ("old", vec!["file".to_owned()])
        );
    }
}
