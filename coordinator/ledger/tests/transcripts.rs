//! Runs every file of `tests/transcripts`: command lines in, what came out below each, indented. `UPDATE=1` writes
//! what comes out today into the files; the difference is then reviewed by eye.

use crate::script::Script;
use std::fs;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the transcripts are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}

/// The same commands and comments with today's output.
fn replay(text: &str) -> String {
    let mut script = Script::default();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for answer in script.run(line).unwrap_or_else(|why| panic!("{line}: {why}")) {
            out.push_str(&format!("  {answer}\n"));
        }
    }
    out
}

#[test]
fn transcripts_come_out_as_written() {
    let files = files();
    assert!(files.len() >= 8, "only {} transcripts found", files.len());
    for path in files {
        let text = fs::read_to_string(&path).expect("a transcript can be read");
        let today = replay(&text);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &today).expect("a transcript can be written");
        } else {
            assert!(text == today, "{} differs; today it gives:\n{today}", path.display());
        }
    }
}
