//! `PriceBookService`: what models cost, and what was spent.

use super::agents::etag;
use super::tasks::{propose, short, some_id, unexpected};
use super::{Door, Identity, Membership, convert, identity, project, status};
use coordinator::{CostGroup, CostQuestion};
use ledger::command::{Command, RequestKey};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{Price, PriceRow};
use proto::v1 as pb;
use proto::v1::price_book_service_server::PriceBookService;
use tonic::{Request, Response, Status};
use types::Hash;

#[tonic::async_trait]
impl PriceBookService for Door {
    async fn set_price(&self, request: Request<pb::SetPriceRequest>) -> Result<Response<pb::Price>, Status> {
        let author = identity(&request).author();
        let inside = self.inside()?;
        let command = order(author, request.into_inner())?;
        match propose(inside, command).await? {
            Reply::Price(row) => Ok(Response::new(convert::price(&row))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_price(&self, request: Request<pb::GetPriceRequest>) -> Result<Response<pb::Price>, Status> {
        let model = request.into_inner().model;
        let rows = self.inside()?.prices().await?;
        let found = rows.iter().find(|row| row.model == model).map(convert::price);
        found.map(Response::new).ok_or_else(|| status::not_found("price of", &model, "quorate price list"))
    }

    async fn list_prices(
        &self,
        _request: Request<pb::ListPricesRequest>,
    ) -> Result<Response<pb::ListPricesResponse>, Status> {
        let rows = self.inside()?.prices().await?;
        Ok(Response::new(pb::ListPricesResponse { prices: rows.iter().map(convert::price).collect() }))
    }

    async fn query_cost(
        &self,
        request: Request<pb::QueryCostRequest>,
    ) -> Result<Response<pb::QueryCostResponse>, Status> {
        let caller = identity(&request);
        let question = question(&caller, &request.into_inner())?;
        let inside = self.inside()?;
        let (lines, total) = inside.client.cost(&question).await.map_err(status::from_client)?;
        Ok(Response::new(pb::QueryCostResponse {
            lines: lines.into_iter().map(convert::cost_line).collect(),
            total: Some(convert::cost_line(total)),
        }))
    }
}

fn order(author: String, request: pb::SetPriceRequest) -> Result<Command, Status> {
    short("model", &request.model)?;
    short("reason", &request.reason)?;
    short("request_id", &request.request_id)?;
    let price = Price { input: request.input, cached: request.cached, output: request.output };
    let etag = etag(&request.etag)?;
    let body = Hash::of_parts(&[request.model.as_bytes(), format!("{price:?}{etag:?}").as_bytes()]);
    let key = RequestKey { author, request_id: some_id(request.request_id), body };
    Ok(Command::SetPrice { model: request.model, price, etag, reason: request.reason, request: key })
}

/// Whoever is bound to a project asks about it, or one below it.
fn question(caller: &Identity, request: &pb::QueryCostRequest) -> Result<CostQuestion, Status> {
    let named = match (request.project.as_str(), &caller.project) {
        ("", None) => None,
        (name, _) => Some(project(caller, name)?),
    };
    let (since_ms, until_ms) = (request.since_ms, request.until_ms);
    if until_ms != 0 && until_ms <= since_ms {
        return Err(status::invalid("until_ms", "must lie after since_ms"));
    }
    Ok(CostQuestion {
        group_by: match request.group_by() {
            pb::CostGroup::Unspecified | pb::CostGroup::ByProject => CostGroup::Project,
            pb::CostGroup::ByAgent => CostGroup::Agent,
            pb::CostGroup::ByModel => CostGroup::Model,
            pb::CostGroup::ByTask => CostGroup::Task,
            pb::CostGroup::ByDay => CostGroup::Day,
        },
        since_ms,
        until_ms: if until_ms == 0 { u64::MAX } else { until_ms },
        project: named,
    })
}

impl Membership {
    async fn prices(&self) -> Result<Vec<PriceRow>, Status> {
        match self.client.read(Query::Prices).await.map_err(status::from_client)? {
            Answer::Prices(rows) => Ok(rows),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}
