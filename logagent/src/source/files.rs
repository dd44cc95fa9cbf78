//! `stat`, `open` and directory listings, translated into the core's words.
//!
//! Only regular files are ever opened for reading, and only inside the allow-list. Nothing here
//! blocks on a FIFO or creates anything.

use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use logagent_core::identity::{FileId, FileStat};
use logagent_core::tailer::{Blocked, PathSeen};

use super::allow::AllowList;

pub fn stat_of(metadata: &Metadata) -> FileStat {
    FileStat {
        id: FileId {
            dev: metadata.dev(),
            ino: metadata.ino(),
            born_ns: born_ns(metadata),
        },
        size: metadata.size(),
        changed_ns: metadata
            .ctime()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(metadata.ctime_nsec()),
    }
}

/// 0 where the file system does not tell.
fn born_ns(metadata: &Metadata) -> i64 {
    let born = metadata.created().ok();
    let since = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as i64)
}

/// What is at the path now, symlinks followed.
pub fn look(path: &Path, allow: &AllowList) -> PathSeen {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => PathSeen::File(stat_of(&metadata)),
        Ok(metadata) => PathSeen::Blocked(Blocked::Refused(not_regular(path, &metadata))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if allow.may_permit(path) {
                PathSeen::Missing
            } else {
                PathSeen::Blocked(Blocked::Refused(allow.refusal(path)))
            }
        }
        Err(error) => PathSeen::Blocked(refused(path, &error)),
    }
}

/// An open file and the path that it really has.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    pub stat: FileStat,
    pub resolved: PathBuf,
}

/// Opens a regular file inside the allow-list.
pub fn open(path: &Path, allow: &AllowList) -> Result<Opened, Blocked> {
    let resolved = std::fs::canonicalize(path).map_err(|error| refused(path, &error))?;
    if !allow.permits(&resolved) {
        return Err(Blocked::Refused(allow.refusal(&resolved)));
    }
    // Looked at before opening: opening a device may already do something.
    let before = std::fs::metadata(&resolved).map_err(|error| refused(path, &error))?;
    if !before.is_file() {
        return Err(Blocked::Refused(not_regular(path, &before)));
    }
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&resolved)
        .map_err(|error| refused(path, &error))?;
    if !allow.permits_descriptor(&file) {
        return Err(Blocked::Refused(allow.refusal(&resolved)));
    }
    let metadata = file.metadata().map_err(|error| refused(path, &error))?;
    if !metadata.is_file() {
        return Err(Blocked::Refused(not_regular(path, &metadata)));
    }
    Ok(Opened {
        stat: stat_of(&metadata),
        file,
        resolved,
    })
}

/// The stat of an open file, and whether a name still leads to it.
pub fn stat_open(path: &Path, file: &File) -> Result<(FileStat, bool), Blocked> {
    file.metadata()
        .map(|metadata| (stat_of(&metadata), metadata.nlink() > 0))
        .map_err(|error| refused(path, &error))
}

/// The error in the status's words.
pub fn refused(path: &Path, error: &std::io::Error) -> Blocked {
    if error.kind() == ErrorKind::NotFound {
        return Blocked::Missing;
    }
    let reason = match error.kind() {
        ErrorKind::PermissionDenied => "permission denied: let the agent's user read it".to_owned(),
        _ => error.to_string(),
    };
    Blocked::Refused(format!("{}: {reason}", path.display()))
}

fn not_regular(path: &Path, metadata: &Metadata) -> String {
    let kind = if metadata.is_dir() {
        "a directory"
    } else {
        "not a regular file"
    };
    format!(
        "{} is {kind}: only regular files are tailed",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_inside_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let allow = AllowList::new(vec![root.join("log")]);
        std::fs::create_dir(root.join("log")).unwrap();
        let refusal = |path: &Path| match open(path, &allow) {
            Err(Blocked::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        };
        let file = root.join("log/a");
        assert_eq!(open(&file, &allow).err(), Some(Blocked::Missing));
        assert_eq!(look(&file, &allow), PathSeen::Missing);
        std::fs::write(&file, "x\n").unwrap();
        let stat = open(&file, &allow).unwrap().stat;
        assert_eq!(look(&file, &allow), PathSeen::File(stat));
        assert_eq!(stat.size, 2);

        std::fs::write(root.join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("outside"), root.join("log/link")).unwrap();
        assert!(refusal(&root.join("log/link")).contains("allow"));
        assert!(refusal(&root.join("log")).contains("directory"));
        let fifo = root.join("log/fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(refusal(&fifo).contains("regular"));
        assert!(matches!(
            look(&root.join("gone"), &allow),
            PathSeen::Blocked(_)
        ));
        std::os::unix::fs::symlink("loop", root.join("log/loop")).unwrap();
        assert!(matches!(
            look(&root.join("log/loop"), &allow),
            PathSeen::Blocked(_)
        ));
    }
}
