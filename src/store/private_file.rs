//! Files that only their owner may read: mode 600 from the first moment on, and never written through a symbolic link,
//! which somebody else may have put there to have another file overwritten.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::random_hex;

const MODE: u32 = 0o600;

/// What is wrong with something in the data folder, and what to do.
pub fn data_folder(path: &Path, cause: &io::Error) -> String {
    let advice = match cause.kind() {
        ErrorKind::PermissionDenied => {
            ": this user may not: run haus as the user who made the folder, or choose one of your own, such as \
             HAUS_DATA_DIR=$HOME/haus-data"
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory | ErrorKind::NotFound => {
            ": choose a folder that can be written, such as HAUS_DATA_DIR=$HOME/haus-data"
        }
        ErrorKind::StorageFull => ": the disk is full",
        _ => "",
    };
    format!("HAUS_DATA_DIR: {}: {cause}{advice}", path.display())
}

/// Opens a file to write to its end, and makes it where there is none; an existing one becomes private.
pub fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(no_links()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// Writes a file that must not exist yet, whole or not at all.
///
/// # Errors
/// `AlreadyExists` when it does.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let fresh = write_beside(path, text)?;
    let done = fs::hard_link(&fresh, path);
    fs::remove_file(&fresh)?;
    done
}

/// Writes a file whole or not at all; an existing one, or a link of its name, is replaced.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = write_beside(path, text)?;
    fs::rename(&fresh, path).inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// A new file of a name that nobody could foresee.
fn write_beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", random_hex::<8>()?));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&fresh)?;
    let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    match done {
        Ok(()) => Ok(fresh),
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            Err(error)
        }
    }
}

fn no_links() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::{append, create, replace};

    #[test]
    fn links_are_never_written_through_and_files_are_private() {
        let folder = std::env::temp_dir().join(format!("haus-private-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).expect("folder");
        let (victim, path) = (folder.join("victim"), folder.join("file"));
        let mode = || fs::symlink_metadata(&path).expect("file").permissions().mode() & 0o7777;
        let relink = || {
            fs::write(&victim, "untouched").expect("victim");
            let _ = fs::remove_file(&path);
            symlink(&victim, &path).expect("link");
        };
        relink();
        assert!(append(&path).is_err());
        assert!(create(&path, "secret").is_err());
        replace(&path, "secret").expect("replaced");
        assert_eq!(fs::read_to_string(&victim).expect("victim"), "untouched");
        assert!(fs::symlink_metadata(&path).expect("file").is_file() && mode() == 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
        drop(append(&path).expect("appended"));
        assert_eq!(mode(), 0o600, "an old one becomes private");
        fs::remove_file(&path).expect("removed");
        create(&path, "secret").expect("created");
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(&folder).expect("folder").count(), 2, "nothing is left beside them");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
