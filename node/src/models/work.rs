//! A place for what is not a model yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ModelError, io_error};

/// A folder inside the models' folder, so that the last step is a rename. It goes when the pull ends.
pub(super) struct WorkDir {
    pub(super) path: PathBuf,
}

const PREFIX: &str = ".pull-";
/// Tells the folders of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl WorkDir {
    pub(super) fn make(dir: &Path) -> Result<WorkDir, ModelError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        remove_orphans(dir);
        let path =
            dir.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        Ok(WorkDir { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a temporary folder was left behind");
        }
    }
}

/// Removes what pulls left that were killed.
fn remove_orphans(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // What cannot be removed costs space, not correctness, and is tried again next time.
            let _next_time = fs::remove_dir_all(entry.path());
        }
    }
}
