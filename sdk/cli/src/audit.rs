//! `audit`: who changed limits, prices and nodes, when and why.

use crate::failure::{Exit, Failure};
use crate::output::{Format, Out};
use crate::quota::audit_line;
use quorate_sdk::Client;
use std::time::Duration;

/// How often a follower asks.
const ASK: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
pub struct Audit {
    /// Only events after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    /// Only about this and what lies below it: a quota path, nodes/n4, a model
    #[arg(long, default_value = "")]
    subject: String,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn perform(it: Audit, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let mut after = it.after;
    let mut first = true;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let (events, next) = client.cluster().audit(after, &it.subject).await?;
        for event in &events {
            match out.format {
                Format::Table | Format::Csv => out.text(&audit_line(event))?,
                Format::Json | Format::Jsonl => out.element(event, std::mem::take(&mut first))?,
            }
        }
        after = next.or(events.last().map(|event| event.number)).unwrap_or(after);
        if next.is_some() {
            continue;
        }
        if !it.follow {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(ASK) => {}
            _ = &mut interrupted => break,
        }
    }
    if out.format == Format::Json {
        out.end_of_elements(first)?;
    }
    Ok(Exit::Ok)
}
