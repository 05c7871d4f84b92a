//! Wall clocks of single nodes that a test can set: a shim between the program and the C library, made by `cc` at the
//! start of the test. The monotonic clock stays as it is, as on a machine whose time is corrected.

use anyhow::{Context, ensure};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug)]
pub struct Clocks {
    shim: PathBuf,
    folder: PathBuf,
}

impl Clocks {
    /// Compiles the shim from its source into a folder.
    pub fn make(source: &Path, folder: &Path) -> anyhow::Result<Clocks> {
        let shim = folder.join("clock.so");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).output();
        let built = built.context("cc makes the clock shim; install a C compiler")?;
        ensure!(built.status.success(), "the clock shim: {}", String::from_utf8_lossy(&built.stderr));
        Ok(Clocks { shim, folder: folder.to_path_buf() })
    }

    /// What a node's environment has to say.
    pub fn environment(&self, node: &str) -> anyhow::Result<Vec<(String, String)>> {
        std::fs::write(self.file(node), [0; 8])?;
        Ok(self.environment_as_is(node))
    }

    /// The same for another process that shares the node's clock.
    pub fn environment_as_is(&self, node: &str) -> Vec<(String, String)> {
        let (file, shim) = (self.file(node).display().to_string(), self.shim.display().to_string());
        vec![("LD_PRELOAD".into(), shim), ("QUORATE_TEST_CLOCK".into(), file)]
    }

    /// Makes a node's wall clock differ by so much, at once.
    pub fn set(&self, node: &str, difference_ms: i64) -> anyhow::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(self.file(node))?;
        Ok(file.write_all_at(&(difference_ms * 1_000_000).to_ne_bytes(), 0)?)
    }

    fn file(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.clock"))
    }
}
