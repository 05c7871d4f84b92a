//! `QuotaService`: limits by path, and what is used of them. Watching them is in `quota_watch`.

use super::agents::etag;
use super::tasks::{propose, short, some_id, unexpected};
use super::{Door, Identity, Membership, convert, identity, now_ms, quota_path, quota_watch, status};
use ledger::command::{Command, RequestKey};
use ledger::keys::KEYS;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::QuotaKey;
use proto::v1 as pb;
use proto::v1::quota_service_server::QuotaService;
use tonic::{Request, Response, Status};
use types::{Hash, TaskUid};

#[tonic::async_trait]
impl QuotaService for Door {
    async fn set_quota(&self, request: Request<pb::SetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
        let caller = identity(&request);
        self.check_place(&caller, &request.get_ref().path).await?;
        let inside = self.inside()?;
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let cut = Cut::check(request)?;
        if validate_only {
            return inside.preview_quota(cut).await.map(Response::new);
        }
        match propose(inside, cut.command(caller.author())).await? {
            Reply::Quota(row) => Ok(Response::new(convert::quota(&row, now_ms()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_quota(&self, request: Request<pb::GetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
        self.check_place(&identity(&request), &request.get_ref().path).await?;
        let inside = self.inside()?;
        let path = request.into_inner().path;
        match inside.client.read(Query::Quota { path: path.clone() }).await.map_err(status::from_client)? {
            Answer::Quota(Some(row)) => Ok(Response::new(convert::quota(&row, now_ms()))),
            Answer::BadQuery(why) => Err(status::invalid("path", &why)),
            _ => Err(status::not_found("quota", &path, "quorate quota tree")),
        }
    }

    async fn list_quotas(
        &self,
        request: Request<pb::ListQuotasRequest>,
    ) -> Result<Response<pb::ListQuotasResponse>, Status> {
        let caller = identity(&request);
        let prefix = request.into_inner().prefix;
        match self.inside()?.client.read(Query::Quotas).await.map_err(status::from_client)? {
            Answer::Quotas(rows) => {
                let below = rows.iter().filter(|row| may_see(&caller, &row.path, &prefix));
                let quotas = below.map(|row| convert::quota(row, now_ms())).collect();
                Ok(Response::new(pb::ListQuotasResponse { quotas }))
            }
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    type WatchQuotasStream = quota_watch::Events;

    async fn watch_quotas(
        &self,
        request: Request<pb::WatchQuotasRequest>,
    ) -> Result<Response<Self::WatchQuotasStream>, Status> {
        let caller = identity(&request);
        let pb::WatchQuotasRequest { path, after_audit } = request.into_inner();
        if !path.is_empty() {
            quota_path(&caller, &path)?;
        }
        short("path", &path)?;
        self.inside()?;
        Ok(Response::new(quota_watch::stream(self.clone(), caller, path, after_audit)))
    }
}

impl Door {
    /// Whether the caller may touch a place of the tree.
    async fn check_place(&self, caller: &Identity, path: &str) -> Result<(), Status> {
        match path.starts_with("tasks/") {
            true => self.inside()?.check_place(caller, path).await,
            false => quota_path(caller, path),
        }
    }
}

/// Whether a place is the one named or lies below it. Everything is below the cluster.
pub(crate) fn lies_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    above.is_empty()
        || above == "cluster"
        || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What lists and watchers of a part of the tree show to a caller.
pub(crate) fn may_see(caller: &Identity, path: &str, above: &str) -> bool {
    lies_below(path, above) && caller.may_quota(path)
}

/// A checked change of limits.
struct Cut {
    path: String,
    changes: Vec<(QuotaKey, Option<u64>)>,
    etag: Option<u64>,
    reason: String,
    request_id: String,
}

impl Cut {
    fn check(request: pb::SetQuotaRequest) -> Result<Cut, Status> {
        short("path", &request.path)?;
        short("reason", &request.reason)?;
        short("request_id", &request.request_id)?;
        let changes: Vec<_> = request.changes.iter().map(change).collect::<Result<_, _>>()?;
        if changes.is_empty() {
            return Err(status::invalid("changes", "name at least one key, such as running=4"));
        }
        Ok(Cut {
            etag: etag(&request.etag)?,
            path: request.path,
            changes,
            reason: request.reason,
            request_id: request.request_id,
        })
    }

    fn command(self, author: String) -> Command {
        let said = format!("{:?}{:?}", self.changes, self.etag);
        let body = Hash::of_parts(&[self.path.as_bytes(), said.as_bytes()]);
        let request = RequestKey { author, request_id: some_id(self.request_id), body };
        let Cut { path, changes, etag, reason, .. } = self;
        Command::SetQuota { path, changes, etag, reason, request }
    }
}

fn change(change: &pb::LimitChange) -> Result<(QuotaKey, Option<u64>), Status> {
    Ok((quota_key("changes.key", &change.key)?, change.limit))
}

pub(crate) fn quota_key(field: &str, text: &str) -> Result<QuotaKey, Status> {
    QuotaKey::parse(text).ok_or_else(|| status::invalid(field, &format!("{text:?} is none of {KEYS}")))
}

impl Membership {
    /// The same; a task's place belongs to whom the task's project belongs to.
    pub(super) async fn check_place(&self, caller: &Identity, path: &str) -> Result<(), Status> {
        let task = path.strip_prefix("tasks/").and_then(|uid| TaskUid::parse(uid).ok());
        let Some(uid) = task.filter(|_| caller.project.is_some()) else { return quota_path(caller, path) };
        match self.client.read(Query::TaskByUid { uid }).await.map_err(status::from_client)? {
            Answer::Task(Some(row)) if caller.may(&row.project) => Ok(()),
            _ => quota_path(caller, path),
        }
    }

    async fn preview_quota(&self, cut: Cut) -> Result<pb::Quota, Status> {
        let Cut { path, changes, etag, reason, .. } = cut;
        let query = Query::PreviewQuota { path, changes, etag, reason };
        match self.client.read(query).await.map_err(status::from_client)? {
            Answer::Preview { row, paused } => Ok(pb::Quota {
                would_wait: paused.iter().map(ToString::to_string).collect(),
                ..convert::quota(&row, now_ms())
            }),
            Answer::Refused(refusal) => Err(status::from_refusal(refusal)),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_below_whole_names_only() {
        assert!(lies_below("projects/a", "") && lies_below("projects/a", "cluster"));
        assert!(lies_below("projects/a", "projects/a") && lies_below("projects/a/agents/x", "projects/a"));
        assert!(!lies_below("projects/ab", "projects/a") && !lies_below("projects/a", "projects/a/b"));
    }

    #[test]
    fn what_cannot_be_a_change_is_refused_with_what_can() {
        let refused = |changes: &[&str]| {
            let changes = changes.iter().map(|key| pb::LimitChange { key: key.to_string(), limit: Some(1) });
            let request = pb::SetQuotaRequest {
                path: "cluster".into(),
                changes: changes.collect(),
                ..Default::default()
            };
            Cut::check(request).err().map(|status| status.message().to_string()).unwrap_or_default()
        };
        assert!(refused(&[]).contains("running=4"));
        assert!(refused(&["running", "colours"]).contains("\"colours\" is none of running"));
        assert_eq!(refused(&["running", "micro_usd_day", "connections:a.b"]), "");
    }
}
