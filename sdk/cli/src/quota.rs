//! `quota get|set|tree|usage|watch`.

mod show;

pub(crate) use show::{change_table, tree_table, usage_table};

use crate::failure::{Exit, Failure};
use crate::output::{Format, Out, printable};
use crate::values;
use quorate_sdk::Client;
use quorate_sdk::data::Quota;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Limits of one place, and what is used of them
    Get {
        /// `cluster`, `projects/NAME`, `projects/NAME/agents/NAME` or `tasks/ID`
        path: String,
    },
    /// Change limits; every node obeys at once
    Set(Set),
    /// The tree: what is limited, used, reserved, guaranteed and borrowed at each place
    Tree,
    /// How far each limit is used
    Usage {
        /// This place and those below it; all when not given
        path: Option<String>,
    },
    /// Follow what changes, until Ctrl-C
    Watch {
        /// This place and those below it; all when not given
        path: Option<String>,
    },
}

#[derive(clap::Args, Debug)]
pub struct Set {
    /// `cluster`, `projects/NAME`, `projects/NAME/agents/NAME` or `tasks/ID`
    path: String,
    /// A key such as running, tokens_day or micro_usd_total, with an amount (4, 60k, 4GiB, 2.5usd) or `none`; other keys stay as they are
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = values::limit)]
    limits: Vec<(String, Option<u64>)>,
    /// Why, for whoever reads it later
    #[arg(long)]
    reason: Option<String>,
    /// Refuse unless this is the etag in force
    #[arg(long)]
    etag: Option<String>,
    /// Repeat an earlier change: the same id gives the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Change nothing; show what would be, and which running tasks would have to wait
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Get { path } => out.one(&client.quotas().get(&path).await?, one_table)?,
        Command::Set(it) => out.one(&set(it, client).await?, change_table)?,
        Command::Tree => out.many(&client.quotas().list().await?, tree_table)?,
        Command::Usage { path } => {
            let quotas = client.quotas().list_below(&path.unwrap_or_default()).await?;
            out.many(&quotas, usage_table)?;
        }
        Command::Watch { path } => watch(&path.unwrap_or_default(), client, out).await?,
    }
    Ok(Exit::Ok)
}

async fn set(it: Set, client: &Client) -> Result<Quota, quorate_sdk::Error> {
    let mut change = client.quotas().set(&it.path);
    for (key, limit) in it.limits {
        change = change.limit(key, limit);
    }
    if let Some(reason) = it.reason {
        change = change.reason(reason);
    }
    if let Some(etag) = it.etag {
        change = change.etag(etag);
    }
    if let Some(id) = it.request_id {
        change = change.request_id(id);
    }
    if it.dry_run {
        change = change.validate_only();
    }
    change.send().await
}

fn one_table(quota: &Quota) -> String {
    usage_table(std::slice::from_ref(quota))
}

async fn watch(path: &str, client: &Client, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut watch = client.quotas().watch(path);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut first = true;
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            _ = &mut interrupted => break,
        };
        match out.format {
            Format::Table | Format::Csv => out.text(&show::event(&event))?,
            Format::Json | Format::Jsonl => out.element(&event, std::mem::take(&mut first))?,
        }
    }
    if out.format == Format::Json {
        out.end_of_elements(first)?;
    }
    Ok(())
}

/// One audit event, for a person.
pub(crate) fn audit_line(event: &quorate_sdk::data::AuditEvent) -> String {
    let author = if event.author.is_empty() { "the cluster" } else { &event.author };
    let why = if event.reason.is_empty() { String::new() } else { format!(" ({})", event.reason) };
    let line = format!("{} {} by {author}: {}{why}", event.action, event.subject, event.change);
    format!("{} #{} {}\n", event.time, event.number, printable(&line))
}
