//! What agents and people remember: scopes as chains in the ledger, opened here when somebody asks.
//!
//! A scope's head is in the ledger; its records, items and notes are segments, which this node pulls and keeps when it
//! opens the scope. Changes are stored on the scope's home first, then the head moves from the one that was seen: of two
//! writers at the same time one reads again, so nothing is lost. What is open is a cache and never more.
//!
//! Read: this file (what can be done), `scope` (whose it is), `opened` (a scope in memory), `chains` (the world), `error`.

mod cache;
pub(crate) mod chains;
mod error;
mod opened;
#[cfg(test)]
pub(crate) mod tests;

use crate::keep::Keep;
use ::memory::{Act, Encode, How, MiniLm, Note, Record, Scope};
use cache::{Cache, Held};
use chains::{Chains, Move, Real};
use coordinator::Client;
use opened::Opened;
use std::path::Path;
use std::sync::Arc;
use types::{Hash, ProjectName, limits};

pub(crate) use error::MemoryError;

/// Writers of one scope that get in each other's way: each try but the last means that another one got through.
const TRIES: usize = 32;
/// Segments that one change of the ledger forgets, with room for the summaries of the last item.
const ERASED_AT_ONCE: usize = limits::FORGET / 2;
/// Items that get their vectors while somebody waits: each takes some tens of milliseconds.
const ENCODED_AT_ONCE: usize = 32;

/// All memories, as this node sees them.
pub(crate) struct Memories {
    chains: Arc<dyn Chains>,
    encoder: Option<Arc<dyn Encode>>,
    cache: Cache,
}

/// Where something is remembered: a scope within a project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) project: ProjectName,
    pub(crate) scope: Scope,
}

/// What is to be remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) tags: Vec<String>,
    pub(crate) source: String,
    pub(crate) author: String,
    /// The same request adds one item, however often it comes.
    pub(crate) request_id: String,
    pub(crate) at_ms: u64,
}

/// Who forgets, when and why, in a word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reason {
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) at_ms: u64,
}

/// What is kept of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    pub(crate) id: Hash,
    pub(crate) text: String,
    pub(crate) tags: Vec<String>,
    pub(crate) source: String,
    pub(crate) author: String,
    pub(crate) at_ms: u64,
    /// Its number in the chain.
    pub(crate) n: u64,
    pub(crate) replaces: Vec<Hash>,
    pub(crate) summarised: bool,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) how: How,
    pub(crate) tags: Vec<String>,
    pub(crate) most: usize,
}

/// An item that was found, and why.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) item: Item,
    pub(crate) hit: ::memory::Hit,
}

/// The hits of one scope.
#[derive(Clone, Debug)]
pub(crate) struct Hits {
    pub(crate) hits: Vec<Found>,
    /// What was compared.
    pub(crate) how: How,
    pub(crate) coverage: ::memory::Coverage,
}

impl Place {
    /// The chain's name in the ledger. An agent's ends with what no name holds, so that no path begins another.
    fn path(&self) -> String {
        let path = match &self.scope {
            Scope::Project(_) => "memory/project".to_string(),
            Scope::Agent(_, agent) => format!("memory/agents/{agent}/"),
            Scope::Task(uid) => format!("memory/tasks/{uid}"),
        };
        match path.len() <= limits::NAME_BYTES {
            true => path,
            false => format!("memory/named/{}", Hash::of(path.as_bytes())),
        }
    }
}

impl Memories {
    pub(crate) fn new(client: Client, keep: Keep, encoder: Option<Arc<dyn Encode>>) -> Arc<Memories> {
        Memories::over(Arc::new(Real { client, keep }), encoder)
    }

    fn over(chains: Arc<dyn Chains>, encoder: Option<Arc<dyn Encode>>) -> Arc<Memories> {
        Arc::new(Memories { chains, encoder, cache: Cache::default() })
    }

    /// Whether questions are compared by meaning here, too.
    pub(crate) fn has_vectors(&self) -> bool {
        self.encoder.is_some()
    }

    /// Nothing of a project's memories stays open: something was forgotten there.
    pub(crate) fn close_project(&self, project: &ProjectName) {
        self.cache.close(|place| place.project == *project);
    }

    /// Adds an item, or answers with the one that is there: from the same request, or with the same text.
    pub(crate) async fn remember(&self, place: &Place, text: Text) -> Result<Item, MemoryError> {
        let new = opened::NewItem::make(place, &text)?;
        let mut held = self.cache.hold(place).await;
        for _ in 0..TRIES {
            let opened = self.current(place, &mut held).await?;
            let Some((act, segments)) = opened.to_remember(&*self.chains, place, &new, &text).await? else {
                let item = opened.same(&new)?;
                return self.shown(place, &mut held, item).await;
            };
            let item = match &act {
                Act::Remember { item, .. } => *item,
                _ => return Err(MemoryError::Busy),
            };
            let change = Written { acts: vec![act], segments, author: &text.author, at_ms: text.at_ms };
            if self.append(place, &mut held, change).await? {
                self.current(place, &mut held).await?;
                return self.shown(place, &mut held, item).await;
            }
        }
        Err(MemoryError::Busy)
    }

    /// The best hits. Without an encoder here words alone are compared, and the answer says so.
    pub(crate) async fn search(&self, place: &Place, question: &Question) -> Result<Hits, MemoryError> {
        let mut held = self.cache.hold(place).await;
        let how = if self.has_vectors() { question.how } else { How::Words };
        let encoder = self.encoder.clone().filter(|_| how != How::Words);
        let opened = self.current(place, &mut held).await?;
        let vector = match encoder {
            Some(encoder) => {
                opened.encode(&*self.chains, place, &encoder, ENCODED_AT_ONCE).await?;
                let text = question.text.clone();
                let vector = tokio::task::spawn_blocking(move || encoder.question(&text)).await;
                Some(vector.map_err(|error| MemoryError::Encoder(error.to_string()))?)
            }
            None => None,
        };
        let tags: Vec<&str> = question.tags.iter().map(String::as_str).collect();
        let query = ::memory::Query {
            text: &question.text,
            vector: vector.as_deref(),
            how,
            tags: &tags,
            most: question.most,
        };
        let (found, coverage) = (opened.index.search(&query), opened.index.coverage());
        let mut hits = Vec::with_capacity(found.len());
        for hit in found {
            hits.push(Found { item: opened.item(&*self.chains, place, hit.item).await?, hit });
        }
        Ok(Hits { hits, how, coverage })
    }

    /// Items behind a number of the chain, oldest first, and whether there are more.
    pub(crate) async fn list(
        &self,
        place: &Place,
        after: u64,
        most: usize,
    ) -> Result<(Vec<Item>, bool), MemoryError> {
        let mut held = self.cache.hold(place).await;
        let opened = self.current(place, &mut held).await?;
        let mut order: Vec<(u64, Hash)> = opened
            .shelf
            .entries()
            .map(|(item, entry)| (entry.n, *item))
            .filter(|(n, _)| *n > after)
            .collect();
        order.sort_unstable();
        let more = order.len() > most;
        let mut items = Vec::new();
        for (_, item) in order.into_iter().take(most) {
            items.push(opened.item(&*self.chains, place, item).await?);
        }
        Ok((items, more))
    }

    /// One item, by its id or the beginning of it.
    pub(crate) async fn get(&self, place: &Place, id: &str) -> Result<Item, MemoryError> {
        let mut held = self.cache.hold(place).await;
        let item = self.current(place, &mut held).await?.named(id)?;
        self.shown(place, &mut held, item).await
    }

    /// Erases one item with all summaries that were made from it, or everything. Answers how many items are gone.
    pub(crate) async fn forget(
        &self,
        place: &Place,
        id: Option<&str>,
        reason: &Reason,
    ) -> Result<u64, MemoryError> {
        let mut held = self.cache.hold(place).await;
        let (mut gone, mut tries) = (0, 0);
        while tries < TRIES {
            let opened = self.current(place, &mut held).await?;
            let (acts, items) = match id {
                Some(id) => opened.to_forget([opened.named(id)?], &reason.reason)?,
                None => opened.to_forget(opened.items(), &reason.reason)?,
            };
            if acts.is_empty() {
                return Ok(gone);
            }
            let change = Written { acts, segments: Vec::new(), author: &reason.author, at_ms: reason.at_ms };
            if !self.append(place, &mut held, change).await? {
                tries += 1;
                continue;
            }
            gone += items;
            if id.is_some() {
                return Ok(gone);
            }
        }
        Err(MemoryError::Busy)
    }

    /// The scope as the ledger has it now.
    async fn current<'a>(&self, place: &Place, held: &'a mut Held) -> Result<&'a mut Opened, MemoryError> {
        let head = self.chains.head(&place.project, &place.path()).await?;
        // It is put back when it agrees with the head: what failed half-way is built again.
        let mut opened = held.take().unwrap_or_else(|| Opened::new(self.encoder.as_deref()));
        if !opened.follow(&*self.chains, place, head.as_ref()).await? {
            opened = Opened::new(self.encoder.as_deref());
            if !opened.follow(&*self.chains, place, head.as_ref()).await? {
                return Err(MemoryError::Damaged("its records do not lead to the first one".into()));
            }
        }
        Ok(held.put(opened))
    }

    async fn shown(&self, place: &Place, held: &mut Held, item: Hash) -> Result<Item, MemoryError> {
        let opened = held.get().ok_or(MemoryError::Absent { item: item.short() })?;
        opened.item(&*self.chains, place, item).await
    }

    /// Stores a change and moves the head; false: another writer was first, and nothing has changed.
    async fn append(&self, place: &Place, held: &mut Held, change: Written<'_>) -> Result<bool, MemoryError> {
        let opened = held.get().ok_or(MemoryError::Busy)?;
        let (records, erased) = opened.records_of(place, &change)?;
        let Some((head, _)) = records.last() else { return Ok(true) };
        let to = Move {
            path: place.path(),
            after: opened.shelf.head().map(|(hash, _)| hash),
            head: *head,
            forget: erased.clone(),
            author: change.author.to_string(),
        };
        let segments = change.segments.into_iter().chain(records).collect();
        let home = self.chains.put(&place.project, segments, &opened.home, opened.chain()).await?;
        let moved = self.chains.move_head(&place.project, to, home).await?;
        if moved && !erased.is_empty() {
            // Here at once; the other nodes hear of it from the ledger.
            self.chains.erase(&place.project, &erased).await?;
        }
        Ok(moved)
    }
}

/// What a change adds to the chain.
struct Written<'a> {
    acts: Vec<Act>,
    segments: Vec<(Hash, bytes::Bytes)>,
    author: &'a str,
    at_ms: u64,
}

impl Written<'_> {
    /// The records behind one, with their names and stored forms.
    fn records(&self, place: &Place, before: Option<(Hash, u64)>) -> Vec<(Hash, Record, bytes::Bytes)> {
        let mut before = before;
        let mut records = Vec::with_capacity(self.acts.len());
        for act in &self.acts {
            let record = Record::after(before, act.clone(), self.author, self.at_ms);
            let sealed = record.seal(&place.project);
            before = Some((sealed.hash, record.n));
            records.push((sealed.hash, record, sealed.bytes.into()));
        }
        records
    }
}

/// A sealed note, where there is something to note.
fn note(place: &Place, item: Hash, text: &Text) -> Result<Option<context::Sealed>, MemoryError> {
    let note = Note::new(item, text.at_ms, text.source.as_str(), text.tags.iter().cloned());
    note.check().map_err(|error| MemoryError::Invalid(error.to_string()))?;
    Ok((!note.is_empty()).then(|| note.seal(&place.project)))
}

/// The encoder in a folder, as `make encoder` leaves it there.
pub(crate) fn encoder(folder: &Path) -> anyhow::Result<Arc<dyn Encode>> {
    use anyhow::Context;
    let read = |name: &str| {
        let file = folder.join(name);
        let next = "[memory] encoder names a folder with model.safetensors and tokenizer.json";
        std::fs::read(&file).with_context(|| format!("{} cannot be read; {next}", file.display()))
    };
    let (weights, vocabulary) = (read("model.safetensors")?, read("tokenizer.json")?);
    Ok(Arc::new(MiniLm::on_one_thread(&weights, &vocabulary)?))
}
