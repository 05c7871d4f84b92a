//! One watcher of the quota tree: places as they change, and what the audit log says between.
//!
//! It looks at this node's applied state again and again, so changes that follow fast come as one, and a slow watcher
//! makes nobody wait. Nothing is told twice; what a lagging replica answers is not told at all.

use super::{Door, Identity, Membership, convert, now_ms, quotas::may_see, status};
use coordinator::ClientError;
use ledger::query::{Answer, Query};
use ledger::rows::AuditRow;
use proto::v1 as pb;
use proto::v1::quota_event::Kind;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use types::limits;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<pb::QuotaEvent, Status>> + Send>>;

pub(crate) fn stream(door: Door, caller: Identity, path: String, after_audit: u64) -> Events {
    let (out, events) = mpsc::channel(limits::WATCH_BUFFER);
    let watcher = Watcher { told: Told::new(caller, path), after_audit, seen_index: 0, out };
    tokio::spawn(watcher.run(door));
    Box::pin(ReceiverStream::new(events))
}

struct Watcher {
    told: Told,
    after_audit: u64,
    /// Answers of replicas that have applied less are old.
    seen_index: u64,
    out: mpsc::Sender<Result<pb::QuotaEvent, Status>>,
}

/// What the watcher knows.
struct Told {
    caller: Identity,
    path: String,
    places: BTreeMap<String, pb::Quota>,
}

impl Told {
    fn new(caller: Identity, path: String) -> Told {
        Told { caller, path, places: BTreeMap::new() }
    }

    /// The places that are not as they were told last.
    fn news(&mut self, places: Vec<pb::Quota>) -> Vec<pb::Quota> {
        let mut news = Vec::new();
        for place in places.into_iter().filter(|place| may_see(&self.caller, &place.path, &self.path)) {
            if self.places.get(&place.path) != Some(&place) {
                self.places.insert(place.path.clone(), place.clone());
                news.push(place);
            }
        }
        news
    }
}

impl Watcher {
    async fn run(mut self, door: Door) {
        let Ok(inside) = door.inside() else { return };
        // The client asked for as long as a door waits: the watcher must know, and ask another node.
        if let Err(error) = self.follow(inside).await {
            let _ = self.out.send(Err(status::from_client(error))).await;
        }
    }

    /// Ends well when the watcher has gone.
    async fn follow(&mut self, inside: &Membership) -> Result<(), ClientError> {
        if self.after_audit == 0 {
            self.after_audit = newest_audit(inside).await?;
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                _ = look.tick() => {}
            }
            let mut events = self.audit(inside).await?;
            events.extend(self.places(inside).await?);
            for kind in events {
                if self.out.send(Ok(pb::QuotaEvent { kind: Some(kind) })).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    async fn places(&mut self, inside: &Membership) -> Result<Vec<Kind>, ClientError> {
        let (answer, index, _) = inside.client.read_stale(Query::Quotas).await?;
        let Answer::Quotas(rows) = answer else { return Ok(vec![]) };
        if index < self.seen_index {
            return Ok(vec![]);
        }
        self.seen_index = index;
        let now_ms = now_ms();
        let places = rows.iter().map(|row| convert::quota(row, now_ms)).collect();
        Ok(self.told.news(places).into_iter().map(Kind::Quota).collect())
    }

    async fn audit(&mut self, inside: &Membership) -> Result<Vec<Kind>, ClientError> {
        let rows = audit_after(inside, self.after_audit, 0).await?;
        self.after_audit = rows.last().map_or(self.after_audit, |row| row.number);
        let Told { caller, path, .. } = &self.told;
        let here = |row: &&AuditRow| row.action.starts_with("quota.") && may_see(caller, &row.subject, path);
        Ok(rows.iter().filter(here).map(|row| Kind::Audit(convert::audit(row))).collect())
    }
}

async fn audit_after(inside: &Membership, after: u64, limit: u32) -> Result<Vec<AuditRow>, ClientError> {
    let query = Query::Audit { after, subject: String::new(), limit };
    match inside.client.read_stale(query).await? {
        (Answer::Audit { rows, .. }, _, _) => Ok(rows),
        _ => Ok(vec![]),
    }
}

/// The number of the newest audit event. Numbers have no gaps, so that halving finds it.
async fn newest_audit(inside: &Membership) -> Result<u64, ClientError> {
    let Some(first) = audit_after(inside, 0, 1).await?.first().map(|row| row.number) else { return Ok(0) };
    let (mut known, mut beyond) = (first, first + limits::AUDIT_ROWS as u64);
    while known + 1 < beyond {
        let middle = known + (beyond - known) / 2;
        match audit_after(inside, middle - 1, 1).await?.is_empty() {
            true => beyond = middle,
            false => known = middle,
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, etag: &str) -> pb::Quota {
        pb::Quota { path: path.into(), etag: etag.into(), ..Default::default() }
    }

    #[test]
    fn only_what_changed_below_the_path_is_told() {
        let mut told = Told::new(Identity::local(), "projects/a".into());
        let all = [place("cluster", "1"), place("projects/a", "1"), place("projects/a/agents/x", "1")];
        assert_eq!(told.news(all.to_vec()), all[1..]);
        assert!(told.news(all.to_vec()).is_empty());
        let changed = [place("cluster", "2"), place("projects/a", "1"), place("projects/a/agents/x", "2")];
        assert_eq!(told.news(changed.to_vec()), changed[2..]);
    }
}
