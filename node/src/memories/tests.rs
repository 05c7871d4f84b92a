//! Memories over a small world: one ledger, one store for everybody.

use super::chains::{Chains, Move};
use super::*;
use bytes::Bytes;
use ledger::rows::HeadRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use types::NodeId;

#[derive(Default)]
pub(crate) struct Small {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heads: BTreeMap<String, HeadRow>,
    segments: BTreeMap<Hash, Bytes>,
    forgotten: BTreeSet<Hash>,
    refused: usize,
}

impl Small {
    /// Moves that another writer was before.
    pub(crate) fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    pub(crate) fn all(&self) -> Vec<(Hash, Bytes)> {
        let state = self.state.lock().unwrap();
        state.segments.iter().map(|(hash, bytes)| (*hash, bytes.clone())).collect()
    }
}

#[tonic::async_trait]
impl Chains for Small {
    async fn head(&self, _: &ProjectName, path: &str) -> Result<Option<HeadRow>, MemoryError> {
        let head = self.state.lock().unwrap().heads.get(path).cloned();
        // Another writer may come between.
        tokio::task::yield_now().await;
        Ok(head)
    }

    async fn move_head(
        &self,
        project: &ProjectName,
        to: Move,
        home: Vec<NodeId>,
    ) -> Result<bool, MemoryError> {
        let mut state = self.state.lock().unwrap();
        let row = state.heads.get(&to.path).cloned();
        if row.as_ref().map(|row| row.head) != to.after {
            state.refused += 1;
            return Ok(false);
        }
        let moves = row.map_or(0, |row| row.moves) + 1;
        let (project, path, head) = (project.clone(), to.path.clone(), to.head);
        state.heads.insert(to.path, HeadRow { project, path, head, moves, home, updated_ms: 0 });
        state.forgotten.extend(to.forget);
        Ok(true)
    }

    async fn fetch(&self, _: &ProjectName, _: &[NodeId], _: &[Hash]) -> Result<(), MemoryError> {
        Ok(())
    }

    async fn get(&self, _: &ProjectName, hash: Hash) -> Result<Option<Bytes>, MemoryError> {
        Ok(self.state.lock().unwrap().segments.get(&hash).cloned())
    }

    async fn put(
        &self,
        _: &ProjectName,
        segments: Vec<(Hash, Bytes)>,
        _: &[NodeId],
        _: Vec<Hash>,
    ) -> Result<Vec<NodeId>, MemoryError> {
        self.state.lock().unwrap().segments.extend(segments);
        tokio::task::yield_now().await;
        Ok(vec![NodeId(1)])
    }

    async fn erase(&self, _: &ProjectName, hashes: &[Hash]) -> Result<(), MemoryError> {
        self.state.lock().unwrap().segments.retain(|hash, _| !hashes.contains(hash));
        Ok(())
    }

    fn is_forgotten(&self, _: &ProjectName, hash: &Hash) -> bool {
        self.state.lock().unwrap().forgotten.contains(hash)
    }
}

fn place() -> Place {
    let project = ProjectName::parse("a").unwrap();
    Place { scope: Scope::Agent(project.clone(), "reader".into()), project }
}

fn text(text: &str, request_id: &str) -> Text {
    Text { text: text.into(), author: "ci".into(), request_id: request_id.into(), ..Text::default() }
}

fn reason() -> Reason {
    Reason { author: "ci".into(), reason: "USER_REQUEST".into(), at_ms: 5 }
}

async fn found(memories: &Memories, question: &str) -> Vec<String> {
    let question = Question { text: question.into(), most: 10, ..Question::default() };
    let hits = memories.search(&place(), &question).await.unwrap();
    assert_eq!(hits.how, How::Words, "there is no encoder");
    hits.hits.into_iter().map(|found| found.item.text).collect()
}

#[tokio::test]
async fn a_request_adds_one_item_and_so_does_a_text() {
    let memories = Memories::over(Arc::new(Small::default()), None);
    let first = memories.remember(&place(), text("The door is green.", "r1")).await.unwrap();
    assert_eq!(memories.remember(&place(), text("The door is green.", "r1")).await.unwrap(), first);
    assert_eq!(memories.remember(&place(), text("The door is green.", "r2")).await.unwrap().id, first.id);
    let reused = memories.remember(&place(), text("The door is red.", "r1")).await;
    assert!(matches!(reused, Err(MemoryError::RequestReused(_))), "{reused:?}");
    let tagged = Text { tags: vec!["house".into()], ..text("The door is green.", "r3") };
    let tagged = memories.remember(&place(), tagged).await.unwrap();
    assert_eq!((tagged.id, tagged.tags), (first.id, vec!["house".to_string()]));
    assert_eq!(memories.list(&place(), 0, 10).await.unwrap().0.len(), 1);
    assert_eq!(found(&memories, "which doors are green?").await, ["The door is green."]);
    assert_eq!(found(&memories, "house").await, ["The door is green."]);
}

#[tokio::test]
async fn of_two_writers_none_loses_an_item() {
    let world = Arc::new(Small::default());
    let doors = [Memories::over(world.clone(), None), Memories::over(world.clone(), None)];
    let writes = (0..40).map(|n| {
        let door = doors[n % 2].clone();
        async move { door.remember(&place(), text(&format!("Number {n} is here."), &format!("r{n}"))).await }
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    assert!(world.state.lock().unwrap().refused > 0, "they never met");
    for door in doors {
        let (items, more) = door.list(&place(), 0, 100).await.unwrap();
        assert_eq!((items.len(), more), (40, false));
        assert_eq!(found(&door, "17").await, ["Number 17 is here."]);
    }
}

#[tokio::test]
async fn what_is_forgotten_is_found_nowhere_and_can_be_remembered_anew() {
    let world = Arc::new(Small::default());
    let (here, there) = (Memories::over(world.clone(), None), Memories::over(world.clone(), None));
    let item = Text { source: "letter".into(), ..text("The secret is green.", "r1") };
    let item = here.remember(&place(), item).await.unwrap();
    here.remember(&place(), text("The other is green.", "r2")).await.unwrap();
    assert_eq!(found(&there, "green").await.len(), 2);
    let id = item.id.to_string();
    assert_eq!(here.forget(&place(), Some(&id[..12]), &reason()).await.unwrap(), 1);
    for memories in [&here, &there] {
        assert_eq!(found(memories, "green").await, ["The other is green."]);
        assert!(matches!(memories.get(&place(), &id).await, Err(MemoryError::Absent { .. })));
    }
    let bytes: Vec<Bytes> = world.state.lock().unwrap().segments.values().cloned().collect();
    let holds = |word: &[u8]| bytes.iter().any(|bytes| bytes.windows(word.len()).any(|part| part == word));
    assert!(!holds(b"secret") && !holds(b"letter") && holds(b"other"));
    let repeated = here.remember(&place(), text("The secret is green.", "r1")).await;
    assert!(matches!(repeated, Err(MemoryError::Forgotten)), "{repeated:?}");
    here.remember(&place(), text("The secret is green.", "r9")).await.unwrap();
    assert_eq!(found(&there, "secret").await, ["The secret is green."]);
}

#[tokio::test]
async fn a_whole_scope_goes_in_several_moves_and_pages_are_in_order() {
    let memories = Memories::over(Arc::new(Small::default()), None);
    for n in 0..ERASED_AT_ONCE + 3 {
        memories.remember(&place(), text(&format!("Number {n}."), &format!("r{n}"))).await.unwrap();
    }
    let (first, more) = memories.list(&place(), 0, 2).await.unwrap();
    let (next, _) = memories.list(&place(), first[1].n, 1).await.unwrap();
    assert!(more);
    assert_eq!((first[0].text.as_str(), next[0].text.as_str()), ("Number 0.", "Number 2."));
    let gone = memories.forget(&place(), None, &reason()).await.unwrap();
    assert_eq!(gone, ERASED_AT_ONCE as u64 + 3);
    assert!(memories.list(&place(), 0, 10).await.unwrap().0.is_empty());
    assert_eq!(memories.forget(&place(), None, &reason()).await.unwrap(), 0);
}

#[test]
fn no_path_begins_another_and_all_fit() {
    let project = ProjectName::parse("a").unwrap();
    let of =
        |agent: &str| Place { project: project.clone(), scope: Scope::Agent(project.clone(), agent.into()) };
    assert_eq!(of("reader").path(), "memory/agents/reader/");
    assert!(!of("reader2").path().starts_with(&of("reader").path()));
    assert!(of(&"x".repeat(limits::NAME_BYTES)).path().len() <= limits::NAME_BYTES);
}
