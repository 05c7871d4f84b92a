//! A second account of every `tokens_minute`, in true time: what clocks did may cost tokens of a minute, and must
//! never mint any.

use ledger::rows::QuotaRow;
use std::collections::BTreeMap;

#[derive(Clone, Copy)]
struct Account {
    limit: u64,
    etag: u64,
    used: u64,
    /// Milli-tokens that may be used now.
    level: i128,
    at_ms: u64,
}

#[derive(Default)]
pub(crate) struct Rates {
    accounts: BTreeMap<String, Account>,
}

impl Rates {
    /// Looks at a place of the tree after a command.
    pub(crate) fn check(&mut self, row: &QuotaRow, now_ms: u64) -> Result<(), String> {
        let Some(limit) = row.tokens_minute else {
            self.accounts.remove(&row.path);
            return Ok(());
        };
        let used = row.tokens_settled + row.tokens_reserved;
        let fresh =
            Account { limit, etag: row.etag, used, level: row.bucket_millitokens.into(), at_ms: now_ms };
        let account = self.accounts.entry(row.path.clone()).or_insert(fresh);
        if account.etag != row.etag {
            // The level moves with the limit; that rule has tests of its own.
            *account = fresh;
            return Ok(());
        }
        let full = i128::from(limit) * 1_000;
        let filled = i128::from(limit) * i128::from(now_ms - account.at_ms) / 60;
        let taken = (i128::from(used) - i128::from(account.used)) * 1_000;
        account.level = (account.level + filled).min(full) - taken;
        (account.used, account.at_ms) = (used, now_ms);
        let minted = -account.level;
        // What a grain of time, two offices and the clocks' resolution may shift.
        let slack = i128::from(account.limit) * 4 + 2_000;
        if minted > slack {
            return Err(format!("{}: {minted} milli-tokens too many in the minute of {limit}", row.path));
        }
        Ok(())
    }
}
