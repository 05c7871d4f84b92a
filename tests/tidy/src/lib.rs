//! The house rules as tests: who may import whom, who owns which dependency, what words stay outside.
//!
//! The tests read the sources and `cargo metadata`; nothing here is linked into the product.

use std::path::{Path, PathBuf};

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("tests/tidy is two folders down")
        .to_path_buf()
}

/// Every file with one of the endings below a folder, without build output and hidden folders.
pub fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).expect("the folder is readable");
    for path in entries.map(|entry| entry.expect("readable entry").path()) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let skipped =
            name.starts_with('.') || matches!(name.as_str(), "target" | "demo-out" | "node_modules");
        if path.is_dir() && !skipped {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The path as people write it, from the top of the repository.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
