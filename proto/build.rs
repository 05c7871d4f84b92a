//! Compiles every `.proto` below `quorate/` without protoc, and keeps the descriptors for reflection.

use prost::Message;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=quorate");
    let files = [protos("quorate/v1"), protos("quorate/internal/v1")].concat();
    let descriptors = protox::compile(files, ["."]).expect("the .proto files compile");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec()).expect("OUT_DIR is writable");
    tonic_prost_build::configure()
        .bytes(".quorate.internal.v1")
        .compile_fds(descriptors)
        .expect("code generation works");
}

fn protos(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(folder))
        .expect("the folder of .proto files exists")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "proto"))
        .collect();
    files.sort();
    files
}
