//! One task: apply an agent, ask it something, print what it says.
//!
//! `quorate dev`, then `cargo run -p quorate-sdk --example hello -- "What is a quorum?"`

use quorate_sdk::{Client, Error};

const AGENT: &str = r#"
name = "hello"
model = "smollm2"
system = "You answer in one short sentence."
max_tokens = 48
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let question = std::env::args().nth(1).unwrap_or_else(|| "What is a quorum?".to_string());
    let client = Client::from_env()?;
    client.agents().apply(AGENT).send().await?;
    let task = client.tasks().create("hello").input(question).send().await?;
    let done = client.tasks().wait(&task.id).await?;
    println!("{}", client.tasks().result(&done).await?);
    Ok(())
}
