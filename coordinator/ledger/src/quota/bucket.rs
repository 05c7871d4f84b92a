//! Rates: buckets that hold one minute's worth, in thousandths.
//!
//! A bucket fills in grains of 60 ms, in which a limit of N a minute gives exactly N thousandths, so no rounding adds
//! up. It is filled when it is looked at, by the ledger's clock, which never runs back: setting a wall clock mints
//! nothing. When the limit moves, the level moves by the same amount: what was used of the minute stays used.

use crate::keys::Rate;
use crate::rows::{QuotaRow, RequestsRow};

/// In one grain a bucket gets as many thousandths as its limit has units.
const GRAIN_MS: u64 = 60;

/// A bucket, wherever it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub limit: u64,
    pub level_milli: u64,
    pub at_ms: u64,
}

impl Bucket {
    fn full_milli(self) -> u64 {
        self.limit.saturating_mul(1000)
    }

    fn filled(mut self, ledger_ms: u64) -> Bucket {
        let grains = ledger_ms.saturating_sub(self.at_ms) / GRAIN_MS;
        let level = self.level_milli.saturating_add(grains.saturating_mul(self.limit));
        self.level_milli = level.min(self.full_milli());
        self.at_ms += grains * GRAIN_MS;
        self
    }

    fn changed(mut self, take: u64, give: u64) -> Bucket {
        let level = self.level_milli.saturating_sub(take.saturating_mul(1000));
        self.level_milli = level.saturating_add(give.saturating_mul(1000)).min(self.full_milli());
        self
    }

    pub(crate) fn available(self) -> u64 {
        self.level_milli / 1000
    }

    /// What is used of the minute.
    pub(crate) fn used(self) -> u64 {
        self.limit.saturating_sub(self.available())
    }
}

impl QuotaRow {
    /// The bucket at that time; `None` where the rate is not limited.
    pub(crate) fn bucket(&self, rate: Rate, ledger_ms: u64) -> Option<Bucket> {
        let kept = match rate {
            Rate::Tokens => self.tokens_minute.map(|limit| Bucket {
                limit,
                level_milli: self.bucket_millitokens,
                at_ms: self.bucket_ms,
            }),
            Rate::Requests => self.requests_minute.map(|kept| Bucket {
                limit: kept.limit,
                level_milli: kept.level_milli,
                at_ms: kept.at_ms,
            }),
        };
        kept.map(|bucket| bucket.filled(ledger_ms))
    }

    fn put_bucket(&mut self, rate: Rate, bucket: Option<Bucket>) {
        match rate {
            Rate::Tokens => {
                self.tokens_minute = bucket.map(|bucket| bucket.limit);
                self.bucket_millitokens = bucket.map_or(0, |bucket| bucket.level_milli);
                self.bucket_ms = bucket.map_or(self.bucket_ms, |bucket| bucket.at_ms);
            }
            Rate::Requests => {
                self.requests_minute = bucket.map(|bucket| RequestsRow {
                    limit: bucket.limit,
                    level_milli: bucket.level_milli,
                    at_ms: bucket.at_ms,
                });
            }
        }
    }

    /// Brings the buckets up to the time given.
    pub(crate) fn refill(&mut self, ledger_ms: u64) {
        Rate::ALL.into_iter().for_each(|rate| self.put_bucket(rate, self.bucket(rate, ledger_ms)));
    }

    /// Takes from a bucket, then gives back to it.
    pub(crate) fn pour(&mut self, rate: Rate, take: u64, give: u64, ledger_ms: u64) {
        let bucket = self.bucket(rate, ledger_ms).map(|bucket| bucket.changed(take, give));
        self.put_bucket(rate, bucket);
    }

    /// Sets a rate's limit. A first limit on tokens counts what is set aside at that moment as used, because it comes
    /// back into this bucket.
    pub(crate) fn set_rate(&mut self, rate: Rate, limit: Option<u64>, ledger_ms: u64) {
        let out = if rate == Rate::Tokens { self.tokens_reserved.saturating_mul(1000) } else { 0 };
        let old = self.bucket(rate, ledger_ms);
        let used_milli = old.map_or(out, |old| old.full_milli().saturating_sub(old.level_milli));
        let bucket = limit.map(|limit| Bucket {
            limit,
            level_milli: limit.saturating_mul(1000).saturating_sub(used_milli),
            at_ms: old.map_or(ledger_ms, |old| old.at_ms),
        });
        self.put_bucket(rate, bucket);
    }
}
