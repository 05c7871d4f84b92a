//! The price book, and what was spent by it.

use crate::client::{Client, request_id_or_fresh};
use crate::data::{CostGroup, CostReport, Price};
use crate::error::Error;
use crate::retry::Kind;
use crate::wire::cost_group;
use proto::v1;

/// What models cost, in micro-dollars a million tokens.
#[derive(Clone, Copy, Debug)]
pub struct Prices<'a> {
    pub(crate) client: &'a Client,
}

/// A new price. What is not named is 0.
///
/// ```no_run
/// # async fn example(client: quorate_sdk::Client) -> Result<(), quorate_sdk::Error> {
/// client.prices().set("large").input(3_000_000).cached(300_000).output(15_000_000).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is changed before `send`"]
pub struct SetPrice<'a> {
    client: &'a Client,
    message: v1::SetPriceRequest,
    request_id: Option<String>,
}

/// A question about what was spent.
#[derive(Clone, Debug)]
#[must_use = "nothing is asked before `send`"]
pub struct QueryCost<'a> {
    client: &'a Client,
    message: v1::QueryCostRequest,
}

impl<'a> Prices<'a> {
    pub async fn get(&self, model: &str) -> Result<Price, Error> {
        let message = v1::GetPriceRequest { model: model.into() };
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.prices().get_price(via.request(message)).await }
        });
        Ok(call.await?.into())
    }

    pub async fn list(&self) -> Result<Vec<Price>, Error> {
        let call = self.client.call(Kind::Repeatable, |via| async move {
            via.prices().list_prices(via.request(v1::ListPricesRequest {})).await
        });
        Ok(call.await?.prices.into_iter().map(Price::from).collect())
    }

    /// Replaces the model's whole price.
    pub fn set(&self, model: &str) -> SetPrice<'a> {
        let message = v1::SetPriceRequest { model: model.into(), ..Default::default() };
        SetPrice { client: self.client, message, request_id: None }
    }

    /// Sums what tasks used. Ended tasks are kept for 7 days.
    pub fn cost(&self, group_by: CostGroup) -> QueryCost<'a> {
        let message = v1::QueryCostRequest { group_by: cost_group(group_by).into(), ..Default::default() };
        QueryCost { client: self.client, message }
    }
}

impl SetPrice<'_> {
    /// For new tokens of the prompt.
    pub fn input(mut self, micro_usd: u64) -> Self {
        self.message.input = micro_usd;
        self
    }

    /// For tokens of the prompt that were in the chain before.
    pub fn cached(mut self, micro_usd: u64) -> Self {
        self.message.cached = micro_usd;
        self
    }

    /// For generated tokens.
    pub fn output(mut self, micro_usd: u64) -> Self {
        self.message.output = micro_usd;
        self
    }

    /// Why, for whoever reads it later.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.message.reason = reason.into();
        self
    }

    /// Refused unless this is the etag in force; `0`: the model must have no price yet.
    pub fn etag(mut self, etag: impl Into<String>) -> Self {
        self.message.etag = etag.into();
        self
    }

    /// Repeating with the same request id gives the first answer. A fresh one is made when not set.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    pub async fn send(self) -> Result<Price, Error> {
        let mut message = self.message;
        message.request_id = request_id_or_fresh(self.request_id)?;
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = message.clone();
            async move { via.prices().set_price(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}

impl QueryCost<'_> {
    /// Only tasks whose last step lies here or later, Unix milliseconds.
    pub fn since_ms(mut self, at_ms: u64) -> Self {
        self.message.since_ms = at_ms;
        self
    }

    /// Only tasks whose last step lies before.
    pub fn until_ms(mut self, at_ms: u64) -> Self {
        self.message.until_ms = at_ms;
        self
    }

    /// Only this project; all when not set.
    pub fn project(mut self, name: impl Into<String>) -> Self {
        self.message.project = name.into();
        self
    }

    pub async fn send(self) -> Result<CostReport, Error> {
        let call = self.client.call(Kind::Repeatable, |via| {
            let message = self.message.clone();
            async move { via.prices().query_cost(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}
