//! Inside: the three programs that this program becomes, one after another.

mod guard;
mod init;
mod landlocked;
mod memory;
mod outer;
mod root;

use crate::wire::{self, News, Order};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

/// The first argument that makes this program a stage.
pub const VERB: &str = "sandbox-stage";
/// The user and group inside. Not root, and not the one outside.
const INNER_ID: u32 = 1000;

/// Call this first thing in `main`, before any thread is started: it returns None unless this process was started as
/// a stage (`PROGRAM sandbox-stage …`), and the exit code of the stage where it was.
pub fn stage(mut arguments: impl Iterator<Item = String>) -> Option<ExitCode> {
    if arguments.next()? != VERB {
        return None;
    }
    let control = match control() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("{VERB} is for the sandbox itself: its stdin is a socket ({error})");
            return Some(ExitCode::from(2));
        }
    };
    let done = match arguments.next().as_deref() {
        Some("outer") => outer::run(&control, arguments.next().as_deref()),
        Some("init") => init::run(&control),
        Some("guard") => guard::run(&control),
        _ => Err("unknown stage".to_string()),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            drop(wire::send(&control, &News::Failed(why)));
            ExitCode::from(1)
        }
    })
}

/// The socket that every stage has as its stdin.
fn control() -> io::Result<UnixStream> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    let control = UnixStream::from(own);
    control.peer_addr()?;
    Ok(control)
}

/// This program again, as the next stage.
fn next(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([VERB, name]).env_clear();
    command
}

fn receive(control: &UnixStream) -> Result<Order, String> {
    wire::receive(control).map_err(|error| format!("no order: {error}"))
}

fn tell(control: &UnixStream, news: impl Into<News>) -> Result<(), String> {
    wire::send(control, &news.into()).map_err(|error| format!("nobody listens: {error}"))
}

/// An error with what was tried.
fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
