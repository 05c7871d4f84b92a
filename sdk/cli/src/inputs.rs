//! Texts from files and from stdin, with their limits checked before they are read.

use crate::failure::{Failure, usage};
use quorate_sdk::limits;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a UTF-8 text of at most one segment. `-` is stdin.
pub(crate) fn read(path: &str) -> Result<String, Failure> {
    if path == "-" {
        return text("stdin", io::stdin().lock());
    }
    if Path::new(path).is_dir() {
        let next = format!("name its files, such as -f {}/*.md", path.trim_end_matches('/'));
        return Err(usage("IS_A_FOLDER", format!("{path:?} is a folder, not a file"), &next));
    }
    let file = File::open(path).map_err(|why| unreadable(path, &why))?;
    text(path, file)
}

fn text(name: &str, source: impl Read) -> Result<String, Failure> {
    let limit = limits::SEGMENT_BYTES;
    let mut bytes = Vec::new();
    source.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|why| unreadable(name, &why))?;
    if bytes.len() > limit {
        let message =
            format!("{name:?} is larger than {limit} bytes ({} MiB), the limit of one text", limit >> 20);
        return Err(usage("REQUEST_TOO_LARGE", message, "cut it into several files"));
    }
    String::from_utf8(bytes).map_err(|why| {
        let message = format!("{name:?} is not UTF-8 text (byte {})", why.utf8_error().valid_up_to());
        usage("NOT_TEXT", message, "convert it to UTF-8 text first")
    })
}

fn unreadable(name: &str, why: &io::Error) -> Failure {
    usage("UNREADABLE", format!("{name:?} cannot be read: {why}"), "check the name and your right to read it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<String, Failure>) -> (String, String) {
        match result {
            Err(Failure::Error(error)) => (error.reason.clone(), error.next.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_are_read_and_everything_else_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        std::fs::write(at("good.md"), "grün").unwrap();
        assert_eq!(read(&at("good.md")).unwrap(), "grün");
        std::fs::write(at("bad.md"), [b'a', 0xff]).unwrap();
        assert_eq!(refusal(read(&at("bad.md"))).0, "NOT_TEXT");
        assert_eq!(refusal(read(&at("absent.md"))).0, "UNREADABLE");
        let (reason, next) = refusal(read(folder.path().to_str().unwrap()));
        assert_eq!(reason, "IS_A_FOLDER");
        assert!(next.contains("/*.md"), "{next}");
        assert_eq!(refusal(text("endless", io::repeat(b'x'))).0, "REQUEST_TOO_LARGE");
    }
}
