//! `memory remember|search|list|forget`.

use crate::failure::{Exit, Failure};
use crate::inputs;
use crate::output::{Out, fields, or_empty, table};
use quorate_sdk::data::{Found, Memory};
use quorate_sdk::{Client, Memories, SearchKind};

/// Characters of an id in a table: enough to name the item.
const ID_CHARS: usize = 12;
/// Characters of a text in a table.
const TEXT_CHARS: usize = 100;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Keep a text; one that is there already is kept once
    Remember(Remember),
    /// The best hits for a question
    Search(Search),
    /// Everything in a scope, oldest first
    List(List),
    /// Erase an item, or a whole scope, on every node and for good
    Forget(Forget),
}

/// Whose memory; the project's own when nothing is said.
#[derive(clap::Args, Debug)]
struct Whose {
    /// What this agent remembers over all its tasks
    #[arg(long, value_name = "NAME", conflicts_with_all = ["task", "scope"])]
    agent: Option<String>,
    /// What belongs to this task tree, by the uid of its root
    #[arg(long, value_name = "ID", conflicts_with = "scope")]
    task: Option<String>,
    /// In full: projects/NAME, projects/NAME/agents/NAME or tasks/ID
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
}

#[derive(clap::Args, Debug)]
pub struct Remember {
    #[arg(value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    text: Option<String>,
    /// A UTF-8 file with the text; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// A word to find and to filter it by; may be given several times
    #[arg(long, value_name = "WORD")]
    tag: Vec<String>,
    /// Where it comes from
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Repeating with the same id adds nothing
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

#[derive(clap::Args, Debug)]
pub struct Search {
    #[arg(value_name = "QUERY")]
    query: String,
    #[command(flatten)]
    whose: Whose,
    /// Hits wanted, at most 100
    #[arg(long, value_name = "N", default_value_t = 5)]
    most: u32,
    /// words, vectors or both [default: both, where the node has an encoder]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    by: Option<SearchKind>,
    /// Only items that have it; may be given several times
    #[arg(long, value_name = "WORD")]
    tag: Vec<String>,
}

#[derive(clap::Args, Debug)]
pub struct List {
    #[command(flatten)]
    whose: Whose,
}

#[derive(clap::Args, Debug)]
pub struct Forget {
    /// The item's id, or the beginning of it
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// Everything in the scope
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    whose: Whose,
    /// One word for the record, such as USER_REQUEST; it is kept, so nothing about the item belongs here
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
}

fn kind(text: &str) -> Result<SearchKind, String> {
    match text {
        "words" => Ok(SearchKind::Words),
        "vectors" => Ok(SearchKind::Vectors),
        "both" => Ok(SearchKind::Both),
        _ => Err(format!("{text:?} is not words, vectors or both")),
    }
}

impl Whose {
    fn memories<'a>(&self, client: &'a Client) -> Memories<'a> {
        let memories = client.memories();
        match (&self.agent, &self.task, &self.scope) {
            (Some(agent), _, _) => memories.agent(agent),
            (None, Some(task), _) => memories.task(task),
            (None, None, Some(scope)) => memories.scope(scope),
            (None, None, None) => memories,
        }
    }
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Remember(it) => out.one(&remember(it, client).await?, in_full)?,
        Command::Search(it) => {
            let found = search(it, client).await?;
            out.many(&found.hits, |_| hits_table(&found))?;
            if found.kind == SearchKind::Words {
                out.note("compared by words alone")?;
            } else if found.items_with_vectors < found.items {
                let (with, all) = (found.items_with_vectors, found.items);
                out.note(&format!(
                    "{with} of {all} items have vectors yet; the others are found by their words"
                ))?;
            }
        }
        Command::List(it) => out.many(&list(&it.whose.memories(client)).await?, list_table)?,
        Command::Forget(it) => {
            let memories = it.whose.memories(client);
            let reason = it.reason.as_deref().unwrap_or_default();
            let gone = match &it.id {
                Some(id) => memories.forget(id, reason).await?,
                None => memories.forget_all(reason).await?,
            };
            out.note(&format!("{gone} forgotten; other nodes erase them within seconds"))?;
        }
    }
    Ok(Exit::Ok)
}

async fn remember(it: Remember, client: &Client) -> Result<Memory, Failure> {
    let text = match (it.text, &it.file) {
        (Some(text), _) => text,
        (None, file) => inputs::read(file.as_deref().unwrap_or("-"))?,
    };
    let mut remember = it.whose.memories(client).remember(text);
    for tag in it.tag {
        remember = remember.tag(tag);
    }
    if let Some(source) = it.source {
        remember = remember.source(source);
    }
    if let Some(id) = it.request_id {
        remember = remember.request_id(id);
    }
    Ok(remember.send().await?)
}

async fn search(it: Search, client: &Client) -> Result<Found, Failure> {
    let mut search = it.whose.memories(client).search(it.query).most(it.most);
    for tag in it.tag {
        search = search.tag(tag);
    }
    if let Some(kind) = it.by {
        search = search.kind(kind);
    }
    Ok(search.send().await?)
}

async fn list(memories: &Memories<'_>) -> Result<Vec<Memory>, Failure> {
    let mut page = memories.page(None).await?;
    let mut items = std::mem::take(&mut page.items);
    while let Some(token) = page.next_page_token {
        page = memories.page(Some(&token)).await?;
        items.append(&mut page.items);
    }
    Ok(items)
}

fn short(text: &str, most: usize) -> String {
    let cut: String = text.chars().take(most).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

fn id(item: &Memory) -> String {
    item.id.chars().take(ID_CHARS).collect()
}

fn in_full(item: &Memory) -> String {
    fields(&[
        ("id", item.id.clone()),
        ("scope", item.scope.clone()),
        ("text", short(&item.text, TEXT_CHARS)),
        ("tags", item.tags.join(", ")),
        ("source", or_empty(&item.source)),
        ("author", item.author.clone()),
        ("created", item.create_time.to_string()),
    ])
}

fn hits_table(found: &Found) -> String {
    let row = |hit: &quorate_sdk::MemoryHit| {
        let cosine = hit.cosine.map(|cosine| format!("{cosine:.2}")).unwrap_or_default();
        let score = format!("{:.2}", hit.score);
        vec![id(&hit.item), score, hit.words.join(" "), cosine, short(&hit.item.text, TEXT_CHARS)]
    };
    let rows: Vec<_> = found.hits.iter().map(row).collect();
    table(&["ID", "SCORE", "WORDS", "COSINE", "TEXT"], &rows)
}

fn list_table(items: &[Memory]) -> String {
    let row = |item: &Memory| {
        vec![
            id(item),
            item.create_time.to_string(),
            item.author.clone(),
            item.tags.join(" "),
            or_empty(&item.source),
            short(&item.text, TEXT_CHARS),
        ]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    table(&["ID", "CREATED", "AUTHOR", "TAGS", "SOURCE", "TEXT"], &rows)
}
