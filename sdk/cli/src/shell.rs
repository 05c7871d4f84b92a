//! What a shell and `man` know of the command line, written from its own definition so that neither can lag behind.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct Completions {
    /// The shell that is to complete words
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    /// Prints the script that the shell reads.
    pub fn print(&self, line: &mut Command, out: &mut dyn Write) -> io::Result<()> {
        // Made in memory first: the generator panics where it cannot write, as into a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, line, "quorate", &mut script);
        out.write_all(&script)
    }
}

#[derive(Args, Debug)]
pub struct Man {
    /// Where to write them; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

impl Man {
    /// Writes one page a verb, such as quorate-task-create.1.
    pub fn write(&self, line: Command) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        write_pages(line, &self.dir)
    }
}

fn write_pages(mut line: Command, folder: &Path) -> io::Result<()> {
    line = line.disable_help_subcommand(true);
    line.build();
    clap_mangen::generate_to(line, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Command {
        Command::new("quorate").subcommand(Command::new("task").subcommand(Command::new("create")))
    }

    #[test]
    fn a_shell_is_told_of_every_verb() {
        let mut script = Vec::new();
        Completions { shell: Shell::Bash }.print(&mut line(), &mut script).expect("memory takes it");
        let script = String::from_utf8(script).expect("text");
        assert!(script.contains("task") && script.contains("create"), "{script}");
    }

    #[test]
    fn every_verb_has_its_page() {
        let folder = tempfile::tempdir().expect("a folder");
        Man { dir: folder.path().join("man1") }.write(line()).expect("a folder takes pages");
        for page in ["quorate.1", "quorate-task.1", "quorate-task-create.1"] {
            assert!(folder.path().join("man1").join(page).is_file(), "{page} is missing");
        }
    }
}
