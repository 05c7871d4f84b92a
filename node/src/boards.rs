//! Boards: what the members of one task tree tell each other, as notes with versions.
//!
//! A board is a chain in the ledger with one segment as its head: the sheet, which names the texts of its notes. A note
//! is written by whoever has seen its newest version, so of two writers one hears that it came late. Its segments are
//! readable inside the tree alone, and the tree is taken from the calling task's own ancestors: there is no name by
//! which another tree's board could be asked for.
//!
//! Read: `sheet` (what stands on a board), then this file.

mod sheet;

use crate::keep::Keep;
use crate::memories::MemoryError;
use crate::memories::chains::{Chains, Move, Real};
use bytes::Bytes;
use context::{Kind, Segment, Visibility};
use coordinator::Client;
use ledger::rows::HeadRow;
use sheet::Writing;
pub(crate) use sheet::{NAME_BYTES, NOTE_BYTES, Note, Sheet, SheetError};
use std::sync::Arc;
use types::{Hash, NodeId, ProjectName, TaskUid};

/// Writers of one board that get in each other's way: each try but the last means that another one got through.
const TRIES: usize = 32;

/// All boards, as this node sees them.
#[derive(Clone)]
pub(crate) struct Boards {
    chains: Arc<dyn Chains>,
}

/// Whose board.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) project: ProjectName,
    pub(crate) root: TaskUid,
}

/// A change that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) name: String,
    /// Empty takes the note off.
    pub(crate) text: String,
    /// The version that was seen; 0: there was none.
    pub(crate) seen: u64,
    pub(crate) author: String,
    pub(crate) operation: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BoardError {
    #[error(transparent)]
    Sheet(#[from] SheetError),
    #[error(transparent)]
    Chain(#[from] MemoryError),
    #[error("too many write to this board at the same time; try again")]
    Busy,
}

impl Tree {
    /// The chain's name in the ledger.
    pub(crate) fn path(&self) -> String {
        format!("boards/{}", self.root)
    }

    fn seal(&self, author: &str, text: String) -> (Hash, Bytes) {
        let mut segment = Segment::new(Kind::TaskState, author, Visibility::Task, text);
        segment.tree = self.root.to_string();
        let sealed = context::seal(&self.project, &segment);
        (sealed.hash, sealed.bytes.into())
    }
}

impl Boards {
    pub(crate) fn new(client: Client, keep: Keep) -> Boards {
        Boards { chains: Arc::new(Real { client, keep }) }
    }

    /// The sheet as it is now.
    pub(crate) async fn sheet(&self, tree: &Tree) -> Result<Sheet, BoardError> {
        let head = self.chains.head(&tree.project, &tree.path()).await?;
        self.open(tree, head.as_ref()).await
    }

    /// A note with its text; none: there is no such note.
    pub(crate) async fn read(&self, tree: &Tree, name: &str) -> Result<Option<(Note, String)>, BoardError> {
        let head = self.chains.head(&tree.project, &tree.path()).await?;
        let sheet = self.open(tree, head.as_ref()).await?;
        let Some(note) = sheet.note(name).cloned() else { return Ok(None) };
        let hash = note.text().ok_or_else(|| damaged("a note's text has no name"))?;
        let text = self.text(tree, home(head.as_ref()), hash).await?;
        Ok(Some((note, text)))
    }

    /// Writes a note that is as it was seen, and answers the board's version.
    pub(crate) async fn write(&self, tree: &Tree, change: &Change) -> Result<u64, BoardError> {
        let note = (!change.text.is_empty()).then(|| tree.seal(&change.author, change.text.clone()));
        for _ in 0..TRIES {
            let head = self.chains.head(&tree.project, &tree.path()).await?;
            let mut sheet = self.open(tree, head.as_ref()).await?;
            let chain = sheet.texts();
            let writing = Writing {
                name: &change.name,
                seen: change.seen,
                text: note.as_ref().map(|(hash, _)| (*hash, change.text.len() as u64)),
                author: &change.author,
                operation: &change.operation,
            };
            if !sheet.write(&writing)? {
                return Ok(sheet.note(&change.name).map_or(sheet.version, |note| note.version));
            }
            let new = tree.seal(&change.author, sheet.text());
            let to = Move {
                path: tree.path(),
                after: head.as_ref().map(|row| row.head),
                head: new.0,
                forget: Vec::new(),
                author: change.author.clone(),
            };
            self.fetch(tree, home(head.as_ref()), &chain).await?;
            let segments = note.iter().cloned().chain([new]).collect();
            let kept = self.chains.put(&tree.project, segments, home(head.as_ref()), chain).await?;
            if self.chains.move_head(&tree.project, to, kept).await? {
                return Ok(sheet.version);
            }
        }
        Err(BoardError::Busy)
    }

    async fn open(&self, tree: &Tree, head: Option<&HeadRow>) -> Result<Sheet, BoardError> {
        match head {
            None => Ok(Sheet::default()),
            Some(row) => Ok(Sheet::parse(&self.text(tree, &row.home, row.head).await?)?),
        }
    }

    async fn text(&self, tree: &Tree, home: &[NodeId], hash: Hash) -> Result<String, BoardError> {
        self.fetch(tree, home, &[hash]).await?;
        let bytes = self.chains.get(&tree.project, hash).await?;
        let bytes =
            bytes.ok_or_else(|| MemoryError::Lost(format!("segment {} is not here", hash.short())))?;
        let opened = context::open(&tree.project, hash, &bytes);
        Ok(opened.map_err(|error| damaged(&error.to_string()))?.text)
    }

    async fn fetch(&self, tree: &Tree, home: &[NodeId], hashes: &[Hash]) -> Result<(), BoardError> {
        Ok(self.chains.fetch(&tree.project, home, hashes).await?)
    }
}

/// Segments that a sheet names; none where it cannot be read.
pub(crate) fn named_by(sheet: &str) -> Vec<Hash> {
    Sheet::parse(sheet).map(|sheet| sheet.texts()).unwrap_or_default()
}

fn home(head: Option<&HeadRow>) -> &[NodeId] {
    head.map_or(&[], |row| &row.home)
}

fn damaged(why: &str) -> MemoryError {
    MemoryError::Damaged(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memories::tests::Small;

    fn tree(index: u64) -> Tree {
        Tree { project: ProjectName::default(), root: TaskUid { index, position: 0 } }
    }

    fn change(name: &str, text: &str, seen: u64, operation: &str) -> Change {
        let (name, text, operation) = (name.to_string(), text.to_string(), operation.to_string());
        Change { name, text, seen, author: "reader".to_string(), operation }
    }

    fn boards() -> (Arc<Small>, Boards) {
        let world = Arc::new(Small::default());
        (world.clone(), Boards { chains: world })
    }

    #[tokio::test]
    async fn what_one_writes_the_others_of_the_tree_read() {
        let (_, boards) = boards();
        assert_eq!(boards.sheet(&tree(1)).await.unwrap(), Sheet::default());
        assert_eq!(boards.write(&tree(1), &change("plan", "First the bread.", 0, "a")).await.unwrap(), 1);
        let (note, text) = boards.read(&tree(1), "plan").await.unwrap().unwrap();
        assert_eq!((text.as_str(), note.version, note.author.as_str()), ("First the bread.", 1, "reader"));
        assert!(boards.read(&tree(1), "other").await.unwrap().is_none());
        assert!(boards.read(&tree(2), "plan").await.unwrap().is_none(), "another tree has another board");
        assert_eq!(boards.write(&tree(1), &change("plan", "", 1, "b")).await.unwrap(), 2);
        assert!(boards.read(&tree(1), "plan").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn of_twenty_that_count_at_the_same_time_each_counts_once() {
        let (world, boards) = boards();
        let one = |number: usize| {
            let boards = boards.clone();
            async move {
                for try_number in 0..100 {
                    let seen = boards.read(&tree(1), "count").await.unwrap();
                    let (version, count) =
                        seen.map_or((0, 0), |(note, text)| (note.version, text.parse().unwrap()));
                    let next: u64 = count + 1;
                    let operation = format!("{number}/{try_number}");
                    match boards
                        .write(&tree(1), &change("count", &next.to_string(), version, &operation))
                        .await
                    {
                        Ok(_) => return,
                        Err(BoardError::Sheet(SheetError::Changed { .. }) | BoardError::Busy) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("never got through");
            }
        };
        futures::future::join_all((0..20).map(one)).await;
        assert_eq!(boards.read(&tree(1), "count").await.unwrap().unwrap().1, "20");
        assert!(world.refused() > 0, "they were in each other's way");
    }

    #[tokio::test]
    async fn what_stands_on_a_board_is_for_its_tree_alone() {
        let (world, boards) = boards();
        boards.write(&tree(1), &change("plan", "secret", 0, "a")).await.unwrap();
        for bytes in world.all() {
            let segment = context::open(&ProjectName::default(), bytes.0, &bytes.1).unwrap();
            let reader = |tree: TaskUid| context::Reader { agent: "x".into(), tree: tree.to_string() };
            assert!(context::may_see(&reader(tree(1).root), &segment));
            assert!(!context::may_see(&reader(tree(2).root), &segment));
        }
    }
}
