//! `agent apply|list|get`.

use crate::failure::{Exit, Failure};
use crate::inputs;
use crate::output::{Out, fields, or_empty, table};
use quorate_sdk::Client;
use quorate_sdk::data::Agent;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Define agents or teams from TOML files, or give them new revisions
    Apply(Apply),
    /// All agents and teams of the project
    List,
    /// One agent or team, with its definition
    Get {
        /// Its name
        name: String,
    },
}

#[derive(clap::Args, Debug)]
pub struct Apply {
    /// A definition; may be given several times, `-` is stdin
    #[arg(short, long, value_name = "FILE", required = true)]
    file: Vec<String>,
    /// Refuse unless this is the etag in force (one file only)
    #[arg(long)]
    etag: Option<String>,
    /// Repeat an earlier apply: the same id gives the first answer (one file only)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Check everything, change nothing
    #[arg(long)]
    validate_only: bool,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Apply(it) => apply(it, client, out).await?,
        Command::List => out.many(&client.agents().list().await?, list_table)?,
        Command::Get { name } => out.one(&client.agents().get(&name).await?, in_full)?,
    }
    Ok(Exit::Ok)
}

async fn apply(it: Apply, client: &Client, out: &mut Out<'_>) -> Result<(), Failure> {
    if it.file.len() > 1 && (it.etag.is_some() || it.request_id.is_some()) {
        let what = "--etag and --request-id belong to one definition, but several files are given";
        return Err(crate::failure::usage("USAGE", what, "apply the files one by one"));
    }
    // Every file is read before the first is applied: a wrong name changes nothing.
    let texts = it.file.iter().map(|file| inputs::read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut agents = vec![];
    for (file, text) in it.file.iter().zip(texts) {
        agents.push(apply_one(&it, text, client).await.map_err(|error| naming(error, file))?);
    }
    match agents.as_slice() {
        [agent] => out.one(agent, |agent| list_table(std::slice::from_ref(agent))),
        all => out.many(all, list_table),
    }
}

async fn apply_one(it: &Apply, text: String, client: &Client) -> Result<Agent, quorate_sdk::Error> {
    let mut apply = client.agents().apply(text);
    if let Some(etag) = &it.etag {
        apply = apply.etag(etag);
    }
    if let Some(id) = &it.request_id {
        apply = apply.request_id(id);
    }
    if it.validate_only {
        apply = apply.validate_only();
    }
    apply.send().await
}

fn naming(mut error: quorate_sdk::Error, file: &str) -> quorate_sdk::Error {
    error.message = format!("{file}: {}", error.message);
    error
}

pub(crate) fn list_table(agents: &[Agent]) -> String {
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let row = |agent: &Agent| {
        vec![
            agent.name.clone(),
            agent.kind.clone(),
            agent.model.clone(),
            short(&agent.revision),
            agent.etag.clone(),
            or_empty(&agent.update_time),
        ]
    };
    let rows: Vec<_> = agents.iter().map(row).collect();
    table(&["NAME", "KIND", "MODEL", "REVISION", "ETAG", "UPDATED"], &rows)
}

pub(crate) fn in_full(agent: &Agent) -> String {
    let head = fields(&[
        ("name", agent.name.clone()),
        ("project", agent.project.clone()),
        ("kind", agent.kind.clone()),
        ("model", agent.model.clone()),
        ("revision", agent.revision.clone()),
        ("etag", agent.etag.clone()),
        ("updated", or_empty(&agent.update_time)),
    ]);
    format!("{head}\n{}\n", crate::output::printable_lines(agent.toml.trim_end()))
}
