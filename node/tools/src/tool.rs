//! What a tool is to whoever calls it.

use crate::{Call, CancellationToken, Outcome, ToolSpec};
use futures::future::BoxFuture;

/// One tool. The toolbox has checked the arguments and fills [`Call::timeout_ms`] and [`Call::output_bytes`].
///
/// `stop` is cancelled when the caller stops the call or its time is over. The future then has 100 ms to
/// say what it knows (a call that did not begin is `Refused`), and is dropped: whatever the call holds or runs must
/// end when its future is dropped.
pub trait Tool: Send + Sync {
    fn spec(&self) -> &ToolSpec;

    fn call<'a>(&'a self, call: &'a Call, stop: CancellationToken) -> BoxFuture<'a, Outcome>;
}

/// What a stopped call may still take, in ms: enough to send a cancel, not enough to be felt as holding a slot.
pub(crate) const GRACE_MS: u64 = 100;
