//! Files inside the task's folder, and attempts to get out of it.

use crate::common::{call, made, refused, said, soon, toolbox};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::process::Command;
use tempfile::TempDir;
use tools::{Outcome, Toolbox};

struct Desk {
    toolbox: Toolbox,
    place: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { toolbox: toolbox("[files]\nfile_bytes = 5000"), place: tempfile::tempdir().expect("a folder") }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.place.path().join("tasks/one")
    }

    async fn call(&self, tool: &str, arguments: Value) -> Outcome {
        soon(tool, made(&self.toolbox, call(tool, arguments, &self.folder()))).await
    }

    async fn write(&self, path: &str, text: &str) -> Outcome {
        self.call("files.write", json!({"path": path, "text": text})).await
    }

    async fn read(&self, path: &str) -> Outcome {
        self.call("files.read", json!({"path": path})).await
    }
}

#[tokio::test]
async fn files_are_written_read_listed_and_edited() {
    let desk = Desk::new();
    assert_eq!(said(desk.call("files.list", json!({})).await), "(empty)");
    said(desk.write("notes/today.md", "one two three").await);
    said(desk.write("notes/today.md", "one two two").await);
    said(desk.write("a.txt", "").await);
    assert_eq!(said(desk.read("notes/today.md").await), "one two two");
    assert_eq!(said(desk.call("files.list", json!({})).await), "a.txt 0\nnotes/");
    assert_eq!(said(desk.call("files.list", json!({"path": "notes"})).await), "today.md 11");
    let edit = |old: &str, new: &str| json!({"path": "notes/today.md", "old": old, "new": new});
    let (reason, message) = refused(desk.call("files.edit", edit("two", "2")).await);
    assert!(reason == "INVALID_ARGUMENTS" && message.contains("2 times"), "{message}");
    said(desk.call("files.edit", edit("one two", "1")).await);
    assert_eq!(said(desk.read("notes/today.md").await), "1 two");
}

#[tokio::test]
async fn parts_of_a_file_say_where_they_end() {
    let desk = Desk::new();
    said(desk.write("a", "0123456789").await);
    let part = |offset: u64, bytes: u64| json!({"path": "a", "offset": offset, "bytes": bytes});
    assert_eq!(
        said(desk.call("files.read", part(2, 3)).await),
        "234\n[bytes 2 to 5 of 10; go on with offset 5]"
    );
    assert_eq!(said(desk.call("files.read", part(8, 100)).await), "89");
    assert_eq!(said(desk.call("files.read", part(100, 1)).await), "");
}

#[tokio::test]
async fn no_path_and_no_link_leads_out() {
    let desk = Desk::new();
    let outside = desk.place.path().join("secret");
    std::fs::write(&outside, "secret").expect("written");
    std::fs::create_dir_all(desk.folder().join("below")).expect("made");
    let link = |target: &str, name: &str| symlink(target, desk.folder().join(name)).expect("linked");
    link("../../secret", "relative");
    link(outside.to_str().expect("text"), "absolute");
    link("../..", "up");
    link("/", "root");
    link("/proc/self/root", "proc");
    link("loop", "loop");
    link("/proc/self/environ", "environ");
    let absolute = outside.display().to_string();
    for path in [
        "../../secret",
        "below/../../../secret",
        absolute.as_str(),
        "/etc/passwd",
        "relative",
        "absolute",
        "up/secret",
        "root/etc/passwd",
        "proc/etc/passwd",
        "loop",
        "environ",
        "below/../../one/../../secret",
        "a\0b",
    ] {
        for outcome in [desk.read(path).await, desk.write(path, "gone").await] {
            let (reason, message) = refused(outcome);
            assert_eq!(reason, "PATH_DENIED", "{path}: {message}");
        }
    }
    for path in ["..", "up", "root", "/"] {
        assert_eq!(refused(desk.call("files.list", json!({"path": path})).await).0, "PATH_DENIED", "{path}");
    }
    let edit = json!({"path": "relative", "old": "secret", "new": "gone"});
    assert_eq!(refused(desk.call("files.edit", edit).await).0, "PATH_DENIED");
    assert_eq!(refused(desk.write("up/new", "x").await).0, "PATH_DENIED");
    assert_eq!(std::fs::read_to_string(outside).expect("read"), "secret");
    assert!(!desk.place.path().join("new").exists());
}

#[tokio::test]
async fn links_inside_are_followed_for_reading() {
    let desk = Desk::new();
    said(desk.write("a", "text").await);
    symlink("a", desk.folder().join("b")).expect("linked");
    assert_eq!(said(desk.read("b").await), "text");
}

#[tokio::test]
async fn pipes_devices_and_folders_are_no_files() {
    let desk = Desk::new();
    said(desk.write("below/a", "").await);
    let pipe = desk.folder().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    for path in ["pipe", "below"] {
        assert_eq!(refused(desk.read(path).await).0, "PATH_DENIED", "{path}");
        assert_eq!(refused(desk.write(path, "x").await).0, "PATH_DENIED", "{path}");
    }
    assert!(said(desk.call("files.list", json!({})).await).contains("pipe (neither file nor folder)"));
}

#[tokio::test]
async fn large_files_are_refused_and_leave_nothing() {
    let desk = Desk::new();
    assert_eq!(refused(desk.write("a", &"x".repeat(5001)).await).0, "FILE_TOO_LARGE");
    assert_eq!(refused(desk.read("a").await).0, "PATH_DENIED");
    assert_eq!(said(desk.call("files.list", json!({})).await), "(empty)");
    std::fs::write(desk.folder().join("large"), "y".repeat(200_000)).expect("written");
    let edit = json!({"path": "large", "old": "y", "new": "z"});
    assert_eq!(refused(desk.call("files.edit", edit).await).0, "FILE_TOO_LARGE");
    let text = said(desk.read("large").await);
    assert!(text.len() <= 64 << 10 && text.contains("of 200000; go on with offset"), "{}", text.len());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said_so() {
    let desk = Desk::new();
    std::fs::write(desk.place.path().join("tasks"), "a file").expect("written");
    assert_eq!(refused(desk.read("a").await).0, "FOLDER_ERROR");
}
