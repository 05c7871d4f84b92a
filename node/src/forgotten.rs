//! What was forgotten is erased on this node, too: it reads from the ledger what nobody may have any more, all of it at
//! the start, before others get anything from here, and then what is new.

use crate::memories::Memories;
use crate::store::{SegmentStore, StoreError};
use coordinator::Client;
use ledger::query::{Answer, ForgottenRow, Query};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{Hash, ProjectName, limits};

/// A node that is up erases within this time and what one reading takes.
const EVERY: Duration = Duration::from_secs(2);
/// Until the first reading has come through nobody is served.
const FIRST: Duration = Duration::from_millis(100);

/// Why not everything was erased; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Ledger(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Erases for the life of the node.
pub(crate) async fn follow(client: Client, store: SegmentStore, memories: Arc<Memories>) {
    // None until everything was heard once.
    let mut newest: Option<u64> = None;
    loop {
        match hear(&client, &store, &memories, newest).await {
            Ok(at_ms) => {
                if newest.is_none() {
                    store.serve();
                }
                newest = Some(at_ms);
            }
            Err(Trouble::Store(StoreError::Closed)) => return,
            Err(error) => tracing::warn!(%error, "what was forgotten is not erased here yet; trying on"),
        }
        tokio::time::sleep(if newest.is_none() { FIRST } else { EVERY }).await;
    }
}

/// Erases what was forgotten since the newest time that is known, that time included; answers the newest.
async fn hear(
    client: &Client,
    store: &SegmentStore,
    memories: &Memories,
    newest: Option<u64>,
) -> Result<u64, Trouble> {
    let since_ms = newest.unwrap_or_default();
    let (mut after, mut at_ms) = (None, since_ms);
    loop {
        let query = Query::Forgotten { since_ms, after, limit: limits::PAGE_SIZE_MAX as u32 };
        let (rows, more) = asked(client, query, newest.is_none()).await?;
        at_ms = rows.iter().map(|row| row.at_ms).chain([at_ms]).max().unwrap_or(at_ms);
        after = rows.last().map(|row| (row.project.clone(), row.hash));
        for (project, hashes) in by_project(rows) {
            if hashes.iter().any(|hash| !store.is_forgotten(&project, hash)) {
                memories.close_project(&project);
            }
            store.erase(&project, &hashes).await?;
        }
        if !more {
            return Ok(at_ms);
        }
    }
}

/// The first time from the leader: a node that comes back must not believe another one that was away.
async fn asked(client: &Client, query: Query, first: bool) -> Result<(Vec<ForgottenRow>, bool), Trouble> {
    let answer = match first {
        true => client.read(query).await,
        false => client.read_stale(query).await.map(|(answer, _, _)| answer),
    };
    match answer.map_err(|error| Trouble::Ledger(error.to_string()))? {
        Answer::Forgotten { rows, more } => Ok((rows, more)),
        _ => Err(Trouble::Ledger("the ledger answered another question".into())),
    }
}

fn by_project(rows: Vec<ForgottenRow>) -> BTreeMap<ProjectName, Vec<Hash>> {
    let mut by_project: BTreeMap<ProjectName, Vec<Hash>> = BTreeMap::new();
    for row in rows {
        by_project.entry(row.project).or_default().push(row.hash);
    }
    by_project
}
