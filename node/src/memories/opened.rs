//! One scope in memory: what its records say is there, the index over it, and what tells repetitions.

use super::chains::Chains;
use super::{ERASED_AT_ONCE, Item, MemoryError, Place, Text, Written, note};
use ::memory::{Act, Encode, Index, Note, Record, Shelf};
use bytes::Bytes;
use context::{Kind, Segment, Visibility};
use ledger::rows::HeadRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{Hash, NodeId, limits};

/// Records, each under its hash.
type Sealed = Vec<(Hash, Bytes)>;

/// Characters of an id that are enough to look for it.
const ID_CHARS: usize = 8;

pub(super) struct Opened {
    pub(super) shelf: Shelf,
    pub(super) index: Index,
    /// Nodes that hold the whole chain.
    pub(super) home: Vec<NodeId>,
    records: Vec<Hash>,
    /// Items that were forgotten.
    gone: BTreeSet<Hash>,
    /// Items by their texts.
    by_text: BTreeMap<Hash, Hash>,
    /// Items by the requests that brought them.
    by_request: BTreeMap<String, Hash>,
}

/// An item before it is known whether it is new.
pub(super) struct NewItem {
    pub(super) hash: Hash,
    bytes: Bytes,
    text: Hash,
    request: String,
    request_id: String,
}

impl NewItem {
    /// The item carries its request in place of an author (whom the record names): no two requests share a segment, so
    /// erasing one takes nothing from another, and what was forgotten can be remembered anew.
    pub(super) fn make(place: &Place, text: &Text) -> Result<NewItem, MemoryError> {
        if text.text.trim().is_empty() {
            return Err(MemoryError::Invalid("text: is empty".into()));
        }
        let scope = place.scope.to_string();
        let parts = [scope.as_bytes(), text.author.as_bytes(), text.request_id.as_bytes()];
        let request = format!("memory {}", Hash::of_parts(&parts));
        let segment = Segment::new(Kind::Artefact, request.as_str(), Visibility::Project, text.text.as_str());
        segment.check().map_err(|error| MemoryError::Invalid(format!("text: {error}")))?;
        let sealed = context::seal(&place.project, &segment);
        Ok(NewItem {
            hash: sealed.hash,
            bytes: sealed.bytes.into(),
            text: Hash::of(text.text.as_bytes()),
            request,
            request_id: text.request_id.clone(),
        })
    }
}

impl Opened {
    pub(super) fn new(encoder: Option<&dyn Encode>) -> Opened {
        let (shelf, home, records, gone, by_text, by_request) = Default::default();
        Opened { shelf, index: Index::new(encoder), home, records, gone, by_text, by_request }
    }

    /// Every segment of the chain, oldest record first.
    pub(super) fn chain(&self) -> Vec<Hash> {
        self.records.iter().copied().chain(self.shelf.kept_segments()).collect()
    }

    pub(super) fn items(&self) -> Vec<Hash> {
        self.shelf.entries().map(|(item, _)| *item).collect()
    }

    /// Takes the records up to a head; false if that head does not lead to what is here.
    pub(super) async fn follow(
        &mut self,
        chains: &dyn Chains,
        place: &Place,
        head: Option<&HeadRow>,
    ) -> Result<bool, MemoryError> {
        let Some(head) = head else { return Ok(self.shelf.head().is_none()) };
        self.home = head.home.clone();
        let Some(new) = self.records_to(chains, place, head.head).await? else { return Ok(false) };
        let mut shown = BTreeSet::new();
        for (hash, record) in &new {
            self.apply(*hash, record, &mut shown)?;
        }
        let kept = |hash: &Hash| !self.gone.contains(hash);
        let named: Vec<Hash> = new.iter().flat_map(|(_, record)| record.names()).filter(kept).collect();
        chains.fetch(&place.project, &self.home, &named).await?;
        for item in shown {
            self.show(chains, place, item).await?;
        }
        Ok(true)
    }

    /// Records behind the last one that is known, oldest first.
    async fn records_to(
        &self,
        chains: &dyn Chains,
        place: &Place,
        head: Hash,
    ) -> Result<Option<Vec<(Hash, Record)>>, MemoryError> {
        let known = self.shelf.head().map(|(hash, _)| hash);
        let (mut records, mut next) = (Vec::new(), Some(head));
        while next != known {
            let Some(hash) = next else { return Ok(None) };
            chains.fetch(&place.project, &self.home, &[hash]).await?;
            let bytes = chains.get(&place.project, hash).await?;
            let bytes = bytes.ok_or_else(|| MemoryError::Lost(format!("record {} is gone", hash.short())))?;
            let record = Record::open(&place.project, hash, &bytes)
                .map_err(|error| MemoryError::Damaged(error.to_string()))?;
            next = record.prev;
            records.push((hash, record));
        }
        records.reverse();
        Ok(Some(records))
    }

    fn apply(&mut self, hash: Hash, record: &Record, shown: &mut BTreeSet<Hash>) -> Result<(), MemoryError> {
        let change = self.shelf.apply(hash, record)?;
        self.records.push(hash);
        shown.extend(change.shown.into_iter().map(|(item, _)| item));
        for item in change.hidden.iter().chain(&change.erased) {
            self.index.forget(item);
            shown.remove(item);
        }
        if !change.erased.is_empty() {
            self.gone.extend(change.erased);
            self.by_text.retain(|_, item| !self.gone.contains(item));
        }
        Ok(())
    }

    /// Puts an item into the index. One that is gone by the ledger, and not yet by the chain, is left out.
    async fn show(&mut self, chains: &dyn Chains, place: &Place, item: Hash) -> Result<(), MemoryError> {
        let Some(entry) = self.shelf.get(&item) else { return Ok(()) };
        let n = entry.n;
        let (segment, note) = match self.read(chains, place, item).await {
            Err(MemoryError::Absent { .. }) => return Ok(()),
            read => read?,
        };
        self.by_text.insert(Hash::of(segment.text.as_bytes()), item);
        self.index.add(&::memory::Item { hash: item, n, text: &segment.text, note: note.as_ref() });
        self.by_request.insert(segment.author, item);
        Ok(())
    }

    /// An item's segment and its note.
    async fn read(
        &self,
        chains: &dyn Chains,
        place: &Place,
        item: Hash,
    ) -> Result<(Segment, Option<Note>), MemoryError> {
        let absent = || MemoryError::Absent { item: item.short() };
        let note = self.shelf.get(&item).ok_or_else(absent)?.note;
        let bytes = self.bytes(chains, place, item).await?.ok_or_else(absent)?;
        let damaged = |error: context::SegmentError| MemoryError::Damaged(error.to_string());
        let segment = context::open(&place.project, item, &bytes).map_err(damaged)?;
        let Some(note) = note else { return Ok((segment, None)) };
        let bytes = self.bytes(chains, place, note).await?;
        let note =
            bytes.map(|bytes| Note::open(&place.project, note, &bytes)).transpose().map_err(damaged)?;
        Ok((segment, note))
    }

    /// None: it was forgotten.
    async fn bytes(
        &self,
        chains: &dyn Chains,
        place: &Place,
        hash: Hash,
    ) -> Result<Option<Bytes>, MemoryError> {
        if let Some(bytes) = chains.get(&place.project, hash).await? {
            return Ok(Some(bytes));
        }
        chains.fetch(&place.project, &self.home, &[hash]).await?;
        match chains.get(&place.project, hash).await? {
            None if !chains.is_forgotten(&place.project, &hash) => {
                Err(MemoryError::Lost(format!("segment {} is with no node", hash.short())))
            }
            bytes => Ok(bytes),
        }
    }

    pub(super) async fn item(
        &self,
        chains: &dyn Chains,
        place: &Place,
        item: Hash,
    ) -> Result<Item, MemoryError> {
        let (segment, note) = self.read(chains, place, item).await?;
        let entry = self.shelf.get(&item).ok_or_else(|| MemoryError::Absent { item: item.short() })?;
        let (tags, source) = note.map(|note| (note.tags, note.source)).unwrap_or_default();
        Ok(Item {
            id: item,
            text: segment.text,
            tags,
            source,
            author: entry.author.clone(),
            at_ms: entry.at_ms,
            n: entry.n,
            replaces: entry.replaces.clone(),
            summarised: !entry.behind.is_empty(),
        })
    }

    /// The item whose id begins so.
    pub(super) fn named(&self, id: &str) -> Result<Hash, MemoryError> {
        let absent = || MemoryError::Absent { item: id.chars().take(64).collect() };
        if let Ok(hash) = Hash::parse(id) {
            return self.shelf.get(&hash).map(|_| hash).ok_or_else(absent);
        }
        if id.len() < ID_CHARS {
            return Err(MemoryError::Invalid(format!("id: give {ID_CHARS} characters of it at least")));
        }
        let mut begun = self.shelf.entries().filter(|(item, _)| item.to_string().starts_with(id));
        let first = begun.next().map(|(item, _)| *item).ok_or_else(absent)?;
        if begun.next().is_some() { Err(MemoryError::Ambiguous(id.to_string())) } else { Ok(first) }
    }

    /// What adds an item; none if it is there with all that is said of it.
    pub(super) async fn to_remember(
        &self,
        chains: &dyn Chains,
        place: &Place,
        new: &NewItem,
        text: &Text,
    ) -> Result<Option<(Act, Vec<(Hash, Bytes)>)>, MemoryError> {
        match self.by_request.get(&new.request) {
            Some(item) if *item != new.hash => {
                return Err(MemoryError::RequestReused(new.request_id.clone()));
            }
            _ if self.gone.contains(&new.hash) || chains.is_forgotten(&place.project, &new.hash) => {
                return Err(MemoryError::Forgotten);
            }
            Some(_) => return Ok(None),
            None => {}
        }
        let same = self.by_text.get(&new.text).copied();
        let note = match same {
            None => note(place, new.hash, text)?,
            Some(item) => match self.noted_more(chains, place, item, text).await? {
                Some(more) => note(place, item, &more)?,
                None => return Ok(None),
            },
        };
        let act = Act::Remember { item: same.unwrap_or(new.hash), note: note.as_ref().map(|note| note.hash) };
        self.shelf.check(&act)?;
        let item = same.is_none().then(|| (new.hash, new.bytes.clone()));
        let note = note.map(|sealed| (sealed.hash, Bytes::from(sealed.bytes)));
        Ok(Some((act, item.into_iter().chain(note).collect())))
    }

    /// What is known of an item together with what is said of it now; none if that is nothing new. The first source
    /// stays: an agent that notes the same in every task would write a record each time.
    async fn noted_more(
        &self,
        chains: &dyn Chains,
        place: &Place,
        item: Hash,
        text: &Text,
    ) -> Result<Option<Text>, MemoryError> {
        let (_, note) = self.read(chains, place, item).await?;
        let (tags, source) = note.map(|note| (note.tags, note.source)).unwrap_or_default();
        let known = text.tags.iter().all(|tag| tags.contains(tag));
        if known && (text.source.is_empty() || !source.is_empty()) {
            return Ok(None);
        }
        let mut more = Text { tags: [tags, text.tags.clone()].concat(), ..text.clone() };
        if !source.is_empty() {
            more.source = source;
        }
        Ok(Some(more))
    }

    /// The item that a request found to be there.
    pub(super) fn same(&self, new: &NewItem) -> Result<Hash, MemoryError> {
        let found = self.by_request.get(&new.request).or_else(|| self.by_text.get(&new.text));
        found.copied().ok_or_else(|| MemoryError::Absent { item: new.hash.short() })
    }

    /// What forgets items, as many as one change may take, and how many are gone then.
    pub(super) fn to_forget(
        &self,
        items: impl IntoIterator<Item = Hash>,
        reason: &str,
    ) -> Result<(Vec<Act>, u64), MemoryError> {
        let (mut after, mut acts, mut erased) = (self.shelf.clone(), Vec::new(), 0);
        for item in items {
            // A summary goes with what it was made from.
            if after.get(&item).is_none() {
                continue;
            }
            if erased >= ERASED_AT_ONCE {
                break;
            }
            let act = Act::Forget { item, reason: reason.to_string() };
            let record = Record::after(after.head(), act.clone(), "", 0);
            erased += after.apply(Hash::of(&record.n.to_le_bytes()), &record)?.erased.len();
            acts.push(act);
        }
        Ok((acts, (self.shelf.len() - after.len()) as u64))
    }

    /// The sealed records of a change, and what is erased by them.
    pub(super) fn records_of(
        &self,
        place: &Place,
        change: &Written<'_>,
    ) -> Result<(Sealed, Vec<Hash>), MemoryError> {
        let erases = |act: &Act| match act {
            Act::Remember { item, .. } => self.shelf.get(item).is_some(),
            Act::Forget { .. } | Act::Summary { .. } => true,
        };
        let mut after = change.acts.iter().any(erases).then(|| self.shelf.clone());
        let (mut records, mut erased) = (Vec::new(), Vec::new());
        for (hash, record, bytes) in change.records(place, self.shelf.head()) {
            if let Some(after) = &mut after {
                erased.extend(after.apply(hash, &record)?.erased);
            }
            records.push((hash, bytes));
        }
        if erased.len() > limits::FORGET {
            let why = format!("{} segments hang on this item, at most {}", erased.len(), limits::FORGET);
            return Err(MemoryError::Invalid(format!("{why}; forget its summaries first")));
        }
        Ok((records, erased))
    }

    /// Gives vectors to items that have none, so many at once.
    pub(super) async fn encode(
        &mut self,
        chains: &dyn Chains,
        place: &Place,
        encoder: &Arc<dyn Encode>,
        most: usize,
    ) -> Result<(), MemoryError> {
        for item in self.index.waiting().into_iter().take(most) {
            let text = match self.read(chains, place, item).await {
                Err(MemoryError::Absent { .. }) => continue,
                read => read?.0.text,
            };
            let encoder = encoder.clone();
            let rows = tokio::task::spawn_blocking(move || encoder.passages(&text)).await;
            let rows = rows.map_err(|error| MemoryError::Encoder(error.to_string()))?;
            self.index.add_vectors(&item, &rows);
        }
        Ok(())
    }
}
