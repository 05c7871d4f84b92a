//! What a secured cluster is made of: a CA, a certificate for each node, a file of API keys; all by the real binary.

use anyhow::{Context, ensure};
use quorate_sdk::Credentials;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Secured {
    folder: PathBuf,
    binary: PathBuf,
    admin: String,
}

impl Secured {
    /// Makes a CA, and a file of keys with one for the admin of every project.
    pub fn make(binary: &Path, folder: PathBuf) -> anyhow::Result<Secured> {
        let mut secured = Secured { folder, binary: binary.into(), admin: String::new() };
        let dir = secured.folder.clone();
        secured.run([
            OsStr::new("cert"),
            "init".as_ref(),
            "--cluster".as_ref(),
            "tests".as_ref(),
            "--dir".as_ref(),
            dir.as_os_str(),
        ])?;
        secured.admin = secured.key("*", "admin", "admin")?;
        Ok(secured)
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        let output = Command::new(&self.binary).args(arguments).env_remove("QUORATE_PROJECT").output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Makes a certificate for a node on loopback; answers the `[tls]` section of its configuration.
    pub fn node(&self, name: &str) -> anyhow::Result<String> {
        let dir = self.folder.display().to_string();
        self.run(["cert", "node", "--dir", &dir, "--name", name, "--addr", "127.0.0.1,localhost"])?;
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}")).display().to_string();
        let (ca, cert, key) = (self.ca_file().display().to_string(), file("crt"), file("key"));
        Ok(format!("\n[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n"))
    }

    /// Makes an API key and appends its entry to the file of keys.
    pub fn key(&self, project: &str, role: &str, subject: &str) -> anyhow::Result<String> {
        let file = self.keys_file().display().to_string();
        let line =
            ["key", "new", "--project", project, "--role", role, "--subject", subject, "--file", &file];
        Ok(self.run(line)?.trim().to_string())
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    pub fn keys_file(&self) -> PathBuf {
        self.folder.join("keys.toml")
    }

    pub fn admin_key(&self) -> &str {
        &self.admin
    }

    /// Everything that a client with this key needs.
    pub fn credentials(&self, key: &str) -> anyhow::Result<Credentials> {
        Ok(Credentials::default().with_ca_file(&self.ca_file()).context("the CA")?.with_api_key(key))
    }
}
