//! What the gateway has to know to choose among several models: prices, the deadline, what was chosen before.

use super::{Hands, Patience};
use crate::gateway::route::Routing;
use ledger::command::Route;
use ledger::query::{Answer, Query};
use ledger::rows::Price;
use mind::Routes;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

impl Hands {
    /// The models with their prices of now. None: it was stopped.
    pub(super) async fn routing(
        &self,
        step: u64,
        routes: Routes,
        stop: &CancellationToken,
    ) -> Option<Routing> {
        let book = self.prices(stop).await?;
        // What nobody knows the outcome of is paid for with the step, at one price: its model stays.
        let lost = self.lost(step).tokens() > 0;
        let stays = lost.then(|| self.known().routed.1.clone());
        let models = routes.models.into_iter().filter(|model| stays.as_ref().is_none_or(|it| it == model));
        let models = models.map(|model| (model.clone(), book.get(&model).copied())).collect();
        let begun_by = self.begun_by(step);
        Some(Routing { models, read_by: routes.read_by, begun_by, left_ms: self.left_ms() })
    }

    /// The price book, as soon as somebody leads.
    async fn prices(&self, stop: &CancellationToken) -> Option<BTreeMap<String, Price>> {
        let mut patience = Patience::default();
        loop {
            match self.shared.seams.ledger.read(Query::Prices).await {
                Ok(Answer::Prices(rows)) => {
                    return Some(rows.into_iter().map(|row| (row.model, row.price)).collect());
                }
                Ok(other) => tracing::warn!(?other, "an answer to another question than that for prices"),
                Err(why) => tracing::debug!(task = %self.lease.task, why, "the prices are read again"),
            }
            self.pulse.touch();
            if !patience.wait(stop).await {
                return None;
            }
        }
    }

    /// The model that a worker before this one had begun the step with; not once it was tried here.
    fn begun_by(&self, step: u64) -> Option<String> {
        let before = self.lease.row.route.as_deref()?;
        let tried = self.known().routed.0 == step;
        let of_it = before.granted && before.step == step && before.epoch != self.lease.epoch;
        (of_it && !tried).then(|| before.model.clone())
    }

    fn left_ms(&self) -> Option<u64> {
        let deadline_ms = Some(self.lease.row.deadline_ms).filter(|at_ms| *at_ms > 0)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(deadline_ms.saturating_sub(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The next wish of this lease.
    pub(super) fn route(&self, step: u64, route: Route) -> Route {
        let mut known = self.known();
        known.turn += 1;
        known.routed = (step, route.model.clone());
        Route { turn: known.turn, ..route }
    }
}
