//! The encoder from where `make encoder` puts it.

use std::path::PathBuf;
use std::sync::Arc;

use kernels::{Cpu, Isa};
use memory::MiniLm;

pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub(crate) fn files() -> [Vec<u8>; 2] {
    let folder = std::env::var_os("QUORATE_ENCODER").map_or(root().join(".tools/encoder"), PathBuf::from);
    ["model.safetensors", "tokenizer.json"].map(|name| {
        let path = folder.join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make encoder`", path.display()))
    })
}

pub(crate) fn encoder(threads: usize) -> MiniLm {
    encoder_on(Isa::pick(None).expect("every processor has a plain path"), threads)
}

pub(crate) fn encoder_on(isa: Isa, threads: usize) -> MiniLm {
    let [weights, vocabulary] = files();
    MiniLm::new(&weights, &vocabulary, Arc::new(Cpu::new(isa, threads, |_| ()))).expect("the known encoder")
}
