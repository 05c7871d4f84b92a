//! What the readers read: text files below a folder, cut at paragraphs into parts that a small model can hold.

use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use worker_inference::Tokenizer;

/// Files that are read; further ones are listed as skipped.
pub(crate) const FILES_MAX: usize = 64;
/// Tokens of one part.
pub(crate) const PART_TOKENS: usize = 1_500;
/// Parts in all: the writer's window holds this many notes.
pub(crate) const PARTS_MAX: usize = 96;
/// A larger file is no document.
const FILE_BYTES_MAX: u64 = 4 << 20;

pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Default)]
pub(crate) struct Documents {
    pub(crate) files: usize,
    pub(crate) parts: Vec<Part>,
    /// Path and why.
    pub(crate) skipped: Vec<(String, String)>,
}

/// Reads one file, or every `.md` and `.txt` file below a folder.
pub(crate) fn collect(input: &Path, tokenizer: &Tokenizer) -> anyhow::Result<Documents> {
    ensure!(input.exists(), "{} does not exist: set INPUT to a file or a folder", input.display());
    let mut paths = Vec::new();
    match input.is_dir() {
        true => walk(input, &mut paths)?,
        false => paths.push(input.to_path_buf()),
    }
    paths.sort();
    let base = if input.is_dir() { input } else { input.parent().unwrap_or(input) };
    let mut documents = Documents::default();
    for path in paths {
        let name = path.strip_prefix(base).unwrap_or(&path).display().to_string();
        match take(&path, &documents).and_then(|text| Ok((cut(&text, tokenizer)?, text))) {
            Ok((parts, _)) => documents.add(&name, parts),
            Err(why) => documents.skipped.push((name, why.to_string())),
        }
    }
    if documents.parts.is_empty() {
        bail!(
            "{} holds no text to read: at least one UTF-8 .md or .txt file that is not empty is needed",
            input.display()
        );
    }
    Ok(documents)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        // Links are not followed: they may lead round in circles.
        match path.symlink_metadata()?.file_type() {
            kind if kind.is_dir() && !hidden => walk(&path, paths)?,
            kind if kind.is_file() && !hidden => paths.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// The file's text, or why it is skipped.
fn take(path: &Path, so_far: &Documents) -> anyhow::Result<String> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    ensure!(matches!(ending.as_str(), "md" | "txt"), "not .md or .txt");
    ensure!(so_far.files < FILES_MAX, "more than {FILES_MAX} files");
    ensure!(path.metadata()?.len() <= FILE_BYTES_MAX, "larger than {} MiB", FILE_BYTES_MAX >> 20);
    let text = String::from_utf8(std::fs::read(path)?).map_err(|_| anyhow::anyhow!("not UTF-8"))?;
    ensure!(!text.trim().is_empty(), "empty");
    Ok(text)
}

impl Documents {
    fn add(&mut self, name: &str, parts: Vec<String>) {
        let of = parts.len();
        self.files += 1;
        for (index, text) in parts.into_iter().enumerate() {
            let name = if of == 1 { name.to_string() } else { format!("{name} ({} of {of})", index + 1) };
            // A name travels in the task; very long paths keep their end, which tells them apart.
            let name: String = name.chars().rev().take(100).collect::<Vec<_>>().into_iter().rev().collect();
            if self.parts.len() == PARTS_MAX {
                self.skipped.push((name, format!("more than {PARTS_MAX} parts")));
            } else {
                self.parts.push(Part { name, text });
            }
        }
    }
}

/// Cuts a text at blank lines into parts of at most [`PART_TOKENS`] tokens; a paragraph that is longer is cut inside.
pub(crate) fn cut(text: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<String>> {
    let count = |text: &str| -> anyhow::Result<usize> { Ok(tokenizer.encode(text, false)?.len()) };
    let mut parts: Vec<String> = Vec::new();
    let mut part = String::new();
    let mut tokens = 0;
    for paragraph in paragraphs(text) {
        for piece in pieces(paragraph, tokenizer)? {
            let more = count(&piece)?;
            if tokens + more > PART_TOKENS && !part.trim().is_empty() {
                parts.push(std::mem::take(&mut part));
                tokens = 0;
            }
            part.push_str(&piece);
            tokens += more;
        }
    }
    if !part.trim().is_empty() {
        parts.push(part);
    }
    Ok(parts)
}

/// Paragraphs with the blank lines that end them.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive("\n\n")
}

/// The paragraph whole, or halved until each piece fits.
fn pieces(paragraph: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<String>> {
    if tokenizer.encode(paragraph, false)?.len() <= PART_TOKENS {
        return Ok(vec![paragraph.to_string()]);
    }
    let middle = paragraph.len() / 2;
    let at_space =
        paragraph[..floor(paragraph, middle)].rfind(char::is_whitespace).map(|at| floor_after(paragraph, at));
    let at = at_space.filter(|at| *at > 0).unwrap_or_else(|| floor(paragraph, middle).max(1));
    let (left, right) = paragraph.split_at(at);
    Ok([pieces(left, tokenizer)?, pieces(right, tokenizer)?].concat())
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Just behind the character at `at`.
fn floor_after(text: &str, at: usize) -> usize {
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}
