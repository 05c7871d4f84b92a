//! Each rule names the place that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tidy::{files, root, shown};

/// Which of our crates each of our crates may import. The borders of ARCHITECTURE.md, as a table.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("sys", &[]),
    ("kernels", &[]),
    ("proto", &["types"]),
    ("context", &["types"]),
    ("evaluate", &["context", "types"]),
    ("ledger", &["types"]),
    ("mind", &["context", "types"]),
    ("tools", &["types"]),
    ("sandbox", &["sys"]),
    ("providers", &["types"]),
    ("memory", &["context", "kernels", "types"]),
    ("worker-inference", &["kernels", "types", "sys"]),
    ("coordinator", &["ledger", "proto", "types", "sys"]),
    (
        "node",
        &[
            "mind",
            "tools",
            "sandbox",
            "providers",
            "memory",
            "coordinator",
            "ledger",
            "worker-inference",
            "context",
            "evaluate",
            "proto",
            "types",
            "sys",
        ],
    ),
    ("quorate-sdk", &["proto", "types"]),
    ("cli", &["quorate-sdk"]),
    ("quorate", &["cli", "node", "worker-inference", "context"]),
    ("quorate-tests", &["quorate-sdk"]),
    ("demo", &["quorate-sdk", "quorate-tests", "worker-inference", "sys"]),
    ("sim", &["context", "ledger", "mind", "types"]),
    ("replay", &["ledger", "types"]),
    ("creators", &["proto", "quorate-sdk", "quorate-tests"]),
    ("tidy", &[]),
];

/// Dependencies with an owner: crate (two where each reads files of its own) and the files that may name it.
const OWNERS: &[(&str, &str, &[&str])] = &[
    ("openraft", "coordinator", &["coordinator/src/raft", "coordinator/src/wal", "coordinator/tests"]),
    ("sled", "node", &["node/src/store"]),
    ("ractor", "node", &["node/src/agents"]),
    ("nvml_wrapper", "node", &["node/src/device"]),
    ("tokenizers", "worker-inference memory", &["worker-inference/src/tokenizer", "node/memory/src/minilm"]),
    ("safetensors", "memory", &["node/memory/src/minilm"]),
    ("rust_stemmers", "memory", &["node/memory/src/words"]),
    ("rcgen", "node", &["node/src/tls", "node/providers/tests"]),
    ("tokio_rustls", "node", &["node/src/tls"]),
    ("reqwest", "providers tools", &["node/providers/src", "node/tools/src"]),
    ("zeroize", "providers memory", &["node/providers/src", "node/memory"]),
    ("llguidance", "worker-inference", &["worker-inference/src/grammar"]),
    ("rmcp", "tools", &["node/tools/src/mcp"]),
    ("jsonschema", "tools", &["node/tools/src/schema"]),
    ("cap_std", "tools", &["node/tools/src/files"]),
    ("landlock", "sandbox", &["node/sandbox/src/stage/landlocked"]),
    ("seccompiler", "sandbox", &["node/sandbox/src/calls"]),
];

/// What the pure crates must never see, in their sources.
const PURE: &[(&str, &[&str])] = &[
    (
        "coordinator/ledger/src",
        &["tokio", "tonic", "openraft", "sled", "HashMap", "SystemTime", "Instant::now", "f32", "f64"],
    ),
    ("node/mind/src", &["tokio", "tonic", "ractor", "sled", "HashMap", "SystemTime", "Instant::now"]),
    ("context/src", &["tokio", "tonic", "sled", "HashMap", "SystemTime", "Instant::now"]),
    (
        "context/eval/src",
        &["tokio", "tonic", "sled", "HashMap", "SystemTime", "Instant::now", "fs", "mul_add"],
    ),
    (
        "node/memory/src",
        &["tokio", "tonic", "ractor", "sled", "HashMap", "SystemTime", "Instant::now", "mul_add", "fs"],
    ),
    ("worker-inference/src", &["tokio", "tonic", "ractor"]),
    ("node/sandbox/src", &["tokio", "tonic", "ractor"]),
];

fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// Our crates and the normal and build dependencies of each.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_string();
    packages
        .map(|package| {
            let edges = package["dependencies"].as_array().expect("dependencies").iter();
            let shipped = edges.filter(|edge| edge["kind"].as_str() != Some("dev"));
            (text(&package["name"]), shipped.map(|edge| text(&edge["name"])).collect())
        })
        .collect()
}

#[test]
fn crates_import_only_what_the_borders_allow() {
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    assert_eq!(ours, table.keys().copied().collect(), "every crate has its line in the table");
    for (name, edges) in &dependencies {
        for edge in edges.iter().filter(|edge| ours.contains(edge.as_str())) {
            assert!(table[name.as_str()].contains(&edge.as_str()), "{name} must not import {edge}");
        }
    }
}

#[test]
fn each_owned_dependency_is_named_only_by_its_owner() {
    let dependencies = dependencies();
    for (dependency, owner, places) in OWNERS {
        let package = dependency.replace('_', "-");
        for (name, edges) in &dependencies {
            assert!(
                !edges.contains(&package) || owner.split(' ').any(|owner| owner == name),
                "{name} must not depend on {package}: {owner} owns it"
            );
        }
        for file in files(&root(), &[".rs"]) {
            let path = shown(&file);
            if path.starts_with("tests/tidy") || places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            let source = std::fs::read_to_string(&file).expect("readable");
            let used =
                source.contains(&format!("{dependency}::")) || source.contains(&format!("use {dependency};"));
            assert!(!used, "{path} must not use {dependency}: it belongs to {places:?}");
        }
    }
}

#[test]
fn pure_rooms_see_no_clock_no_runtime_no_hash_order() {
    for (folder, banned) in PURE {
        for file in files(&root().join(folder), &[".rs"]) {
            for (number, line) in code_lines(&file) {
                let word = banned.iter().find(|word| names(&line, word));
                assert!(word.is_none(), "{}:{number} names {:?}", shown(&file), word);
            }
        }
    }
}

/// Lines without their comments.
fn code_lines(file: &std::path::Path) -> Vec<(usize, String)> {
    let source = std::fs::read_to_string(file).expect("readable");
    let bare = |line: &str| line.split("//").next().unwrap_or("").to_string();
    source.lines().map(bare).enumerate().map(|(index, line)| (index + 1, line)).collect()
}

fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_part);
        let after = line[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !after
    })
}

#[test]
fn unsafe_code_lives_in_two_rooms() {
    for file in files(&root(), &[".rs"]) {
        let path = shown(&file);
        if path.starts_with("worker-inference/kernels")
            || path.starts_with("sys/")
            || path.starts_with("tests/tidy")
        {
            continue;
        }
        for (number, line) in code_lines(&file) {
            let found = names(&line, "unsafe") && !line.contains("unsafe_code");
            assert!(!found, "{path}:{number} has unsafe code outside kernels and sys");
        }
    }
}

#[test]
fn tests_wait_for_conditions_instead_of_sleeping() {
    for folder in
        ["tests", "coordinator/tests", "worker-inference/tests", "node/providers/tests", "sdk/tests"]
    {
        let folder = root().join(folder);
        for file in if folder.exists() { files(&folder, &[".rs"]) } else { Vec::new() } {
            for (number, line) in code_lines(&file) {
                let sleeps = names(&line, "sleep") && !shown(&file).starts_with("tests/tidy");
                assert!(!sleeps, "{}:{number} sleeps; wait for a condition with a deadline", shown(&file));
            }
        }
    }
}

#[test]
fn no_file_is_an_alarm() {
    // 500 lines without tests is where a room wants another door. An exception needs its reason here.
    let known: &[(&str, &str)] = &[];
    for file in files(&root(), &[".rs"]) {
        let path = shown(&file);
        let source = std::fs::read_to_string(&file).expect("readable");
        let body = source.split("#[cfg(test)]\nmod ").next().unwrap_or("");
        let lines = body.lines().count();
        let excused = known.iter().any(|(name, _)| *name == path);
        assert!(lines <= 600 || excused, "{path} has {lines} lines before its tests");
    }
}

#[test]
fn one_copy_of_what_must_be_one() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    for package in ["tonic", "prost", "tokenizers", "rustls", "openraft"] {
        let copies = lock.matches(&format!("name = \"{package}\"\n")).count();
        assert!(copies <= 1, "{copies} copies of {package} in Cargo.lock");
    }
    for refused in ["aws-lc-sys", "librocksdb-sys", "bincode"] {
        assert!(!lock.contains(&format!("name = \"{refused}\"\n")), "{refused} is in Cargo.lock");
    }
}

#[test]
fn nothing_tells_of_one_machine() {
    let words = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/tmp/", "target"].concat(),
        ["/tmp/", "brief"].concat(),
    ];
    for file in files(&root(), &[".rs", ".md", ".toml", ".sh", ".proto", "Makefile", ".json", ".txt"]) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} names {word}", shown(&file));
        }
    }
}

#[test]
fn relative_links_in_the_docs_lead_somewhere() {
    for file in files(&root(), &[".md"]) {
        let text = std::fs::read_to_string(&file).expect("readable");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or("");
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let there = file.parent().expect("a folder").join(path).exists();
            assert!(there, "{} links to {target}, which is not there", shown(&file));
        }
    }
}
