//! The work folder as a capability: paths are looked up below it by the kernel, so that neither `..` nor a link leads
//! out, however they change meanwhile.

use crate::reason;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions, OpenOptionsExt};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

/// Entries that one listing shows.
const ENTRIES: usize = 1000;

pub(super) struct Folder(Dir);

/// Why nothing was done.
pub(super) struct Denied {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

type Done = Result<String, Denied>;

impl Folder {
    /// Makes the folder where it is missing.
    pub(super) fn open(path: &Path) -> Result<Folder, Denied> {
        let opened =
            std::fs::create_dir_all(path).and_then(|()| Dir::open_ambient_dir(path, ambient_authority()));
        opened.map(Folder).map_err(|error| Denied {
            reason: reason::FOLDER_ERROR,
            message: format!(
                "The task's work folder cannot be used: {error}. Tell the operator of this node."
            ),
        })
    }

    pub(super) fn read(&self, path: &str, offset: u64, most_bytes: u64) -> Done {
        let mut file = self.open_file(path)?;
        let read = || -> io::Result<(Vec<u8>, u64)> {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            Read::take(&mut file, most_bytes).read_to_end(&mut bytes)?;
            Ok((bytes, length))
        };
        let (bytes, length) = with_io(read, path, "read")?;
        let text = String::from_utf8_lossy(&bytes);
        let end = offset + bytes.len() as u64;
        Ok(match end < length && !bytes.is_empty() {
            true => format!("{text}\n[bytes {offset} to {end} of {length}; go on with offset {end}]"),
            false => text.into_owned(),
        })
    }

    /// The file is whole or as before: written aside, then renamed.
    pub(super) fn write(&self, path: &str, text: &str, most_bytes: usize) -> Done {
        if text.len() > most_bytes {
            return Err(too_large(path, text.len() as u64, most_bytes));
        }
        let inside = inside(path)?;
        self.refuse_other_kinds(&inside, path)?;
        with_io(|| self.replace(&inside, text), path, "written")?;
        Ok(format!("{} bytes written to {path}", text.len()))
    }

    pub(super) fn edit(&self, path: &str, old: &str, new: &str, most_bytes: usize) -> Done {
        let file = self.open_file(path)?;
        let length = with_io(|| Ok(file.metadata()?.len()), path, "read")?;
        if length > most_bytes as u64 {
            return Err(too_large(path, length, most_bytes));
        }
        let mut text = String::new();
        with_io(|| Read::take(file, most_bytes as u64).read_to_string(&mut text), path, "read as text")?;
        match text.matches(old).count() {
            1 => self.write(path, &text.replacen(old, new, 1), most_bytes),
            found => Err(Denied {
                reason: reason::INVALID_ARGUMENTS,
                message: format!(
                    "The text to replace occurs {found} times in {path}; it must occur once. Read the file and give more \
                     of what surrounds it."
                ),
            }),
        }
    }

    pub(super) fn list(&self, path: &str) -> Done {
        let inside = inside(path)?;
        let names = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in self.0.read_dir(&inside)?.take(ENTRIES + 1) {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type()?;
                names.push(match () {
                    () if kind.is_dir() => format!("{name}/"),
                    () if kind.is_file() => format!("{name} {}", entry.metadata()?.len()),
                    () => format!("{name} (neither file nor folder)"),
                });
            }
            Ok(names)
        };
        let mut names = with_io(names, path, "listed")?;
        names.sort();
        if names.len() > ENTRIES {
            names.truncate(ENTRIES);
            names.push(format!("[more than {ENTRIES} entries]"));
        }
        Ok(if names.is_empty() { "(empty)".into() } else { names.join("\n") })
    }

    /// Never waits: a pipe in the folder is opened without a reader and then refused.
    fn open_file(&self, path: &str) -> Result<File, Denied> {
        let inside = inside(path)?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let file = with_io(|| self.0.open_with(&inside, &options), path, "opened")?;
        let is_file = with_io(|| Ok(file.metadata()?.is_file()), path, "looked at")?;
        if is_file { Ok(file) } else { Err(no_file(path)) }
    }

    fn refuse_other_kinds(&self, inside: &Path, path: &str) -> Result<(), Denied> {
        match self.0.symlink_metadata(inside) {
            Ok(there) if !there.is_file() => Err(no_file(path)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn replace(&self, inside: &Path, text: &str) -> io::Result<()> {
        if let Some(parent) = inside.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.0.create_dir_all(parent)?;
        }
        let aside = aside(inside)?;
        let written = self.write_new(&aside, text).and_then(|()| self.0.rename(&aside, &self.0, inside));
        if written.is_err() {
            let _ = self.0.remove_file(&aside);
        }
        written
    }

    fn write_new(&self, aside: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        self.0.open_with(aside, &options)?.write_all(text.as_bytes())
    }
}

/// Refuses at once what can only be meant to lead out; everything else the kernel looks up below the folder.
fn inside(path: &str) -> Result<PathBuf, Denied> {
    let leads_out = |part: Component<'_>| {
        matches!(part, Component::ParentDir | Component::RootDir | Component::Prefix(_))
    };
    if path.contains('\0') || Path::new(path).components().any(leads_out) {
        return Err(outside(path));
    }
    Ok(PathBuf::from(path))
}

/// A name beside the file that no two calls share.
fn aside(inside: &Path) -> io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = inside.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let short: String = name.to_string_lossy().chars().take(40).collect();
    Ok(inside.with_file_name(format!(".{short}.{}.{number}.new", std::process::id())))
}

fn outside(path: &str) -> Denied {
    Denied {
        reason: reason::PATH_DENIED,
        message: format!(
            "{path} leads out of your folder. Give a path relative to it, without .. and links to elsewhere."
        ),
    }
}

fn no_file(path: &str) -> Denied {
    Denied {
        reason: reason::PATH_DENIED,
        message: format!("{path} is no ordinary file. Choose another path."),
    }
}

fn too_large(path: &str, bytes: u64, most_bytes: usize) -> Denied {
    Denied {
        reason: reason::FILE_TOO_LARGE,
        message: format!(
            "{path} would have {bytes} bytes, more than {most_bytes}. Use several smaller files."
        ),
    }
}

fn with_io<T>(work: impl FnOnce() -> io::Result<T>, path: &str, verb: &str) -> Result<T, Denied> {
    work().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Denied {
            reason: reason::PATH_DENIED,
            message: format!("{path} could not be {verb}: it is not there. List the folder to see what is."),
        },
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Denied {
            reason: reason::PATH_DENIED,
            message: format!("{path} could not be {verb}: something on the way there is no folder of yours."),
        },
        // What the kernel, or the library in its place, answers to a path that leads out.
        io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices => outside(path),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => outside(path),
        _ => {
            Denied { reason: reason::FOLDER_ERROR, message: format!("{path} could not be {verb}: {error}.") }
        }
    })
}
