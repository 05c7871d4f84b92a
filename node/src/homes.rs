//! Who keeps what, and what nobody needs: copies are made again when a node is gone, and what nothing names is deleted.
//!
//! Both ask the ledger which rows name something and who keeps it, and walk from there through records that are here.
//! Neither trusts what it does not see: a home moves only where nothing has happened to the chain since it was copied,
//! and a segment goes only when nothing named it for a whole grace and nobody asked for it meanwhile.
//!
//! Read: `absent` (who is gone), `closure` (what a chain needs), `repair`, `sweep`.

mod absent;
mod closure;
mod repair;
mod sweep;

use crate::keep::Keep;
use coordinator::Client;
use ledger::query::{Answer, Query};
use ledger::rows::{Chain, Kept};
use std::time::Duration;
use types::{NodeId, ProjectName};

pub(crate) use repair::Repair;
pub(crate) use sweep::Sweep;

/// Rows of one question: each names its own segments, of which there may be hundreds.
const ROWS: u32 = 256;

/// Why something is not done now; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the ledger: {0}")]
    Ledger(#[from] coordinator::ClientError),
    #[error("the ledger answered another question")]
    OtherAnswer,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Peer(#[from] crate::segments::PeerError),
    #[error("{0}")]
    Damaged(#[from] ::context::SegmentError),
    #[error("{have} of {need} copies: no other store took the segments ({last})")]
    Copies { have: usize, need: usize, last: String },
}

/// What both need of the node.
#[derive(Clone)]
pub(crate) struct Homes {
    pub(crate) client: Client,
    pub(crate) keep: Keep,
}

impl Homes {
    fn own(&self) -> NodeId {
        self.keep.own
    }

    /// A page of the rows of a project that have this node in their home, or of those that haven't. As the leader knows
    /// them: a node that hears nothing new must not believe that something is named by nobody.
    async fn rows(
        &self,
        project: &ProjectName,
        homed: bool,
        after: Option<Chain>,
    ) -> Result<(Vec<Kept>, bool), Trouble> {
        let (project, node) = (project.clone(), self.own());
        match self.client.read(Query::Kept { project, node, homed, after, limit: ROWS }).await? {
            Answer::Kept { rows, more } => Ok((rows, more)),
            _ => Err(Trouble::OtherAnswer),
        }
    }
}

/// How often one looks whether something that takes so long has happened.
fn pause(of_ms: u64, parts: u64, most: Duration) -> Duration {
    Duration::from_millis(of_ms / parts).clamp(Duration::from_millis(100), most)
}
