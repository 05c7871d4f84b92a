//! Follows a task while it runs: committed events on stderr, live text on stdout.
//!
//! `cargo run -p quorate-sdk --example watch -- TASK [FROM_SEQUENCE]`
//! Kill nodes as you like: it goes on at another one, without a gap and without a duplicate.

use quorate_sdk::data::EventKind;
use quorate_sdk::{Client, Code, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let usage =
        || Error::local(Code::InvalidArgument, "USAGE", "no task is named", "give its id: watch TASK");
    let task = arguments.next().ok_or_else(usage)?;
    let from = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut watch = Client::from_env()?.tasks().watch(&task).from(from);
    while let Some(event) = watch.next().await? {
        match event.kind {
            EventKind::State { state, reason, .. } => {
                eprintln!("[{}] {} {reason}", event.sequence, state.name())
            }
            EventKind::Step { step, .. } => eprintln!("[{}] step {step} is committed", event.sequence),
            EventKind::Token { text, .. } => print!("{text}"),
            EventKind::Retract { step, .. } => {
                eprintln!("[forget the text of step {step}: its node was lost]")
            }
            EventKind::Gap { first, last } => eprintln!("[events {first} to {last} are no longer kept]"),
        }
    }
    println!();
    Ok(())
}
