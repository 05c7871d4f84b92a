//! `QuotaService`: limits by path, and what is used of them.

use super::agents::etag;
use super::now_ms;
use super::tasks::{propose, short, some_id, unexpected};
use super::{Door, convert, identity, status};
use ledger::command::{Command, RequestKey};
use ledger::keys::KEYS;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::QuotaKey;
use proto::v1 as pb;
use proto::v1::quota_service_server::QuotaService;
use tonic::{Request, Response, Status};
use types::Hash;

#[tonic::async_trait]
impl QuotaService for Door {
    async fn set_quota(&self, request: Request<pb::SetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
        let author = identity(&request).subject;
        let inside = self.inside()?;
        let request = request.into_inner();
        short("path", &request.path)?;
        short("reason", &request.reason)?;
        short("request_id", &request.request_id)?;
        let changes: Vec<(QuotaKey, Option<u64>)> =
            request.changes.iter().map(change).collect::<Result<_, _>>()?;
        if changes.is_empty() {
            return Err(status::invalid("changes", "name at least one key, such as running=4"));
        }
        let etag = etag(&request.etag)?;
        if request.validate_only {
            return self.get_quota(Request::new(pb::GetQuotaRequest { path: request.path })).await;
        }
        let body = Hash::of_parts(&[request.path.as_bytes(), format!("{changes:?}{etag:?}").as_bytes()]);
        let key = RequestKey { author, request_id: some_id(request.request_id), body };
        let command =
            Command::SetQuota { path: request.path, changes, etag, reason: request.reason, request: key };
        match propose(inside, command).await? {
            Reply::Quota(row) => Ok(Response::new(convert::quota(&row, now_ms()))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_quota(&self, request: Request<pb::GetQuotaRequest>) -> Result<Response<pb::Quota>, Status> {
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
        _request: Request<pb::ListQuotasRequest>,
    ) -> Result<Response<pb::ListQuotasResponse>, Status> {
        match self.inside()?.client.read(Query::Quotas).await.map_err(status::from_client)? {
            Answer::Quotas(rows) => Ok(Response::new(pb::ListQuotasResponse {
                quotas: rows.iter().map(|row| convert::quota(row, now_ms())).collect(),
            })),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}

fn change(change: &pb::LimitChange) -> Result<(QuotaKey, Option<u64>), Status> {
    match QuotaKey::parse(&change.key) {
        Some(key) => Ok((key, change.limit)),
        None => Err(status::invalid("changes.key", &format!("{:?} is none of {KEYS}", change.key))),
    }
}
