//! Who pays for an evaluation: what it may compute is set aside before it begins, and what it computed is settled when it
//! ends, also where its caller went away.

use super::{BUDGET_TOKENS, Evaluated, Failed, Order};
use crate::accounts::{Account, Accounts, Caller, Need};
use crate::openai::told::Usage;
use evaluate::Over;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Tokens that an evaluation has computed so far: what one owes that does not come to its end.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(crate) fn count(&self, tokens: u64) {
        self.0.fetch_add(tokens, Ordering::Relaxed);
    }

    fn tokens(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one evaluation owes. Dropped, it is settled behind everybody's back.
pub(super) struct Bill {
    account: Option<Account>,
    pub(super) meter: Meter,
    /// Ends the evaluation.
    pub(super) stop: CancellationToken,
    /// Granted fewer tokens than were wanted: both.
    short: Option<(u64, u64)>,
}

impl Bill {
    /// Sets aside what the order may compute, and cuts the order's budget to what its project has.
    pub(super) async fn begin(accounts: &Accounts, order: &mut Order) -> Result<Bill, Failed> {
        let meter = Meter::default();
        let Some(author) = order.author.clone() else {
            return Ok(Bill { account: None, meter, stop: CancellationToken::new(), short: None });
        };
        let wanted = order.settings.budget_tokens.unwrap_or(BUDGET_TOKENS);
        let caller = Caller { project: order.project.clone(), author };
        let account = accounts.begin(&caller, need(order, wanted)).await?;
        let granted = wanted.min(account.granted());
        order.settings.budget_tokens = Some(granted);
        let (stop, short) = (account.stop().child_token(), (granted < wanted).then_some((granted, wanted)));
        Ok(Bill { account: Some(account), meter, stop, short })
    }

    /// Settles, and says whose budget was too small.
    pub(super) async fn settle(mut self, done: Result<Evaluated, Failed>) -> Result<Evaluated, Failed> {
        if let Some(account) = self.account.take() {
            let computed = self.meter.tokens();
            let tokens = done.as_ref().map_or(computed, Evaluated::tokens_spent);
            account.end(used(tokens), 0).await;
        }
        match (done, self.short) {
            (Err(Failed::Nothing { over: Over::Budget, first }), Some((granted, wanted))) => {
                Err(Failed::Short { granted, wanted, first })
            }
            (done, _) => done,
        }
    }
}

impl Drop for Bill {
    fn drop(&mut self) {
        if let Some(account) = self.account.take() {
            let used = used(self.meter.tokens());
            tokio::spawn(async move { account.end(used, 0).await });
        }
    }
}

fn need(order: &Order, wanted: u64) -> Need {
    Need {
        model: order.model.clone(),
        prompt_tokens: 0,
        least: 1,
        most: wanted.max(1),
        kv_block_seconds: 0,
        destination: None,
    }
}

fn used(tokens: u64) -> Usage {
    Usage { prompt: tokens, ..Usage::default() }
}
