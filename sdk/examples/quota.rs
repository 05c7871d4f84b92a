//! Holds a project's queue back, shows why a task waits, and lets it go.
//!
//! `cargo run -p quorate-sdk --example quota -- AGENT`

use quorate_sdk::{Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let agent = std::env::args().nth(1).unwrap_or_else(|| "reader".to_string());
    let client = Client::from_env()?;
    let path = format!("projects/{}", client.project());

    client.quotas().set(&path).limit("running", Some(0)).reason("maintenance").send().await?;
    let task = client.tasks().create(&agent).input("Say hello.").send().await?;
    for blocker in client.tasks().explain(&task.id).await?.blockers {
        println!("waits: {} ({} of {})", blocker.message, blocker.available, blocker.limit);
    }

    client.quotas().set(&path).limit("running", None).reason("maintenance is over").send().await?;
    let done = client.tasks().wait(&task.id).await?;
    println!("{}", client.tasks().result(&done).await?);
    Ok(())
}
