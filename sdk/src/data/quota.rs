//! Limits and what is used of them.

use super::Time;
use serde::Serialize;
use std::collections::BTreeMap;

/// The limits of one place in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// `cluster`, `projects/NAME`.
    pub path: String,
    /// By key: `running`, `tokens_minute`, `tokens_total`.
    pub limits: BTreeMap<String, Limit>,
    pub etag: String,
    pub reason: String,
    pub author: String,
    pub update_time: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Limit {
    /// None means without limit.
    pub limit: Option<u64>,
    pub used: u64,
    pub reserved: u64,
}
