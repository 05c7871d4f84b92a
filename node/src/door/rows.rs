//! What the page of this node shows beyond the public messages: many rows at once from this node's own state, and the
//! journal of one task. The same projects are refused as everywhere.

use super::context::{given, kind, open};
use super::{Door, Identity, Membership, project, status};
use ledger::query::{Answer, Query};
use ledger::rows::TaskRow;
use mind::StepRecord;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use types::{Hash, NodeId, ProjectName, TaskUid, limits};

/// A task's committed steps, and what each brought into its context.
pub(crate) struct Journal {
    /// What the task had before its first step.
    pub(crate) given: Vec<Piece>,
    pub(crate) steps: Vec<(StepRecord, Vec<Piece>)>,
}

/// A segment without its text.
pub(crate) struct Piece {
    pub(crate) hash: Hash,
    /// `redacted` where it was forgotten.
    pub(crate) kind: &'static str,
    pub(crate) author: String,
    pub(crate) bytes: u64,
}

impl Door {
    /// The project that a caller means, if it is theirs.
    pub(crate) fn project_of(&self, caller: &Identity, text: &str) -> Result<ProjectName, Status> {
        project(caller, text)
    }

    /// This node's configured name; empty while it belongs to no cluster.
    pub(crate) fn own_name(&self) -> String {
        self.inside().map(|inside| inside.members.name(inside.own)).unwrap_or_default()
    }

    pub(crate) fn node_name(&self, id: NodeId) -> String {
        self.inside().map_or_else(|_| id.to_string(), |inside| inside.members.name(id))
    }

    /// The last entry that this node has applied, or the node that it asks.
    pub(crate) async fn applied(&self) -> Result<u64, Status> {
        let read = self.inside()?.client.read_stale(Query::Cluster).await;
        read.map(|(_, index, _)| index).map_err(status::from_client)
    }

    /// Every row of a project, oldest first, from this node's own state. Pages may be of different moments.
    pub(crate) async fn task_rows(&self, project: &ProjectName) -> Result<Vec<TaskRow>, Status> {
        let inside = self.inside()?;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (rows, more) = inside.rows_after(project, after).await?;
            after = rows.last().map(|row| row.uid);
            all.extend(rows);
            if !more {
                return Ok(all);
            }
        }
    }

    /// The steps after a number; what was there before the first one only with all of them.
    pub(crate) async fn journal(
        &self,
        project: &ProjectName,
        id: &str,
        after: u64,
    ) -> Result<Journal, Status> {
        let inside = self.inside()?;
        let row = inside.find_task(project, id).await?;
        let mut steps = Vec::new();
        for record in inside.records(&row, after).await? {
            let pieces = inside.pieces(&row, &record.added).await?;
            steps.push((record, pieces));
        }
        let given = if after == 0 { given(&row) } else { Vec::new() };
        Ok(Journal { given: inside.pieces(&row, &given).await?, steps })
    }
}

impl Membership {
    async fn rows_after(
        &self,
        project: &ProjectName,
        after: Option<TaskUid>,
    ) -> Result<(Vec<TaskRow>, bool), Status> {
        let limit = limits::PAGE_SIZE_MAX as u32;
        let query = Query::Tasks { project: project.clone(), filter: String::new(), after, limit };
        match self.client.read_stale(query).await.map_err(status::from_client)? {
            (Answer::Tasks { rows, more }, _, _) => Ok((rows, more)),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    async fn pieces(&self, row: &TaskRow, hashes: &[Hash]) -> Result<Vec<Piece>, Status> {
        let mut pieces = Vec::with_capacity(hashes.len());
        for hash in hashes {
            pieces.push(self.piece(row, *hash).await?);
        }
        Ok(pieces)
    }

    async fn piece(&self, row: &TaskRow, hash: Hash) -> Result<Piece, Status> {
        let bytes = match self.segment(&row.project, hash, &row.home).await {
            Err(status) if is_redacted(&status) => {
                return Ok(Piece { hash, kind: "redacted", author: String::new(), bytes: 0 });
            }
            bytes => bytes?,
        };
        let segment = open(&row.project, hash, &bytes)?;
        Ok(Piece { hash, kind: kind(segment.kind), author: segment.author, bytes: segment.text.len() as u64 })
    }
}

fn is_redacted(status: &Status) -> bool {
    status.code() == Code::NotFound
        && status.get_details_error_info().is_some_and(|info| info.reason == "REDACTED")
}
