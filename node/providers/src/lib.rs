//! Wire clients for model providers: servers that speak OpenAI's API, and Anthropic.
//!
//! A request goes in, pieces of an answer come out as they are said, then one answer with its usage or one failure that
//! says whether the provider may have worked for it. Everything that comes from outside is hostile: bounded, checked,
//! and never trusted with money.
//!
//! This is not the place of budgets, prices, agents or journals: the gateway sets tokens aside before a call and settles
//! after it. One call here is one thing to pay for: what is tried again inside a call was refused by the provider
//! before it worked. A call whose outcome is unknown is never tried again here; it is told as unknown.
//!
//! Read: `request` and `answer` (what goes in and out), `client` (the call), `attempt` (one exchange), `destination` (what
//! is shared by all calls to one address); then what decides, all of it without IO: `refusal`, `retry`, `breaker`,
//! `limiter`, `usage`, `estimate`, `route`; then the wire: `sse`, `gather`, `openai`, `anthropic`, `tool_names`. Every bound
//! is in `bounds`.

mod answer;
mod anthropic;
mod attempt;
pub mod bounds;
pub mod breaker;
mod cassette;
mod client;
mod destination;
mod endpoint;
mod estimate;
mod gather;
mod json;
mod key;
pub mod limiter;
mod openai;
mod refusal;
mod request;
pub mod retry;
pub mod route;
mod setup;
mod sse;
mod tool_names;
mod transport;
mod usage;
mod wire;

pub use answer::{Answer, Failure, Finish, Heard, Piece, Reason};
pub use client::{Client, Limits};
pub use destination::{Destination, DestinationState, Destinations};
pub use endpoint::{Cassette, CassetteMode, Concurrency, Endpoint, Kind, Timeouts};
pub use estimate::Estimate;
pub use key::{Key, KeySource};
pub use request::{Message, Request, Role, Tool, ToolCall, ToolChoice};
pub use setup::SetupError;
pub use sse::{Event, Reader, SseError};
pub use usage::{Bill, Doubt, Overage, Reserved, Usage, bill};
