//! What programs import to use a Quorate cluster: create tasks, follow them, set quotas, look at nodes.
//!
//! It is a client and nothing else: it holds no state of the cluster, opens no port, and reads the environment only in
//! [`Client::from_env`]. Everything it hands out is a plain struct of [`data`]; no generated type comes through.
//!
//! What it does for its user:
//! - connects when first needed, to any of the endpoints, and moves on to the next one when a node is gone;
//! - repeats a call with the *same request id* until it knows the answer, so that a repeated create makes one task;
//! - follows a task without a gap and without a duplicate, across nodes that die under the stream;
//! - says of every failure what happened, why, and what to do next ([`Error`]).
//!
//! A timeout means *unknown*, never *failed*: ask again with the same request id.
//!
//! Read: `client`, then `tasks` (and `tasks/watch`, `tasks/cursor`), `data`, `retry`, `error`, last `wire`.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_sdk::Error> {
//! use quorate_sdk::Client;
//!
//! let client = Client::from_env()?; // QUORATE_ENDPOINT=a:7400,b:7400 and QUORATE_PROJECT
//! let task = client.tasks().create("reader").input("What is a quorum?").send().await?;
//! let done = client.tasks().wait(&task.id).await?;
//! println!("{}", client.tasks().result(&done).await?);
//! # Ok(())
//! # }
//! ```

mod agents;
mod client;
mod cluster;
mod context;
mod credentials;
pub mod data;
mod endpoints;
mod error;
mod evaluate;
mod memories;
mod prices;
mod quotas;
mod retry;
mod schedules;
mod tasks;
mod wire;

pub use agents::{Agents, ApplyAgent};
pub use client::{Client, ENDPOINT_VARIABLE, PROJECT_VARIABLE};
pub use cluster::{CloseNode, Cluster, SnapshotStream};
pub use context::{ContextReader, SegmentStream};
pub use credentials::{API_KEY_VARIABLE, CA_VARIABLE, CERT_KEY_VARIABLE, CERT_VARIABLE, Credentials};
pub use data::{
    Agent, Ask, AskKind, AuditEvent, Blocker, ClusterStatus, Context, CostGroup, CostReport, Evaluation,
    Event, EventKind, Explanation, Found, Memory, MemoryHit, Model, Node, Page, Price, Quota, QuotaEvent,
    RecordedCall, RecordedSegment, Schedule, SearchKind, Segment, Snapshot, Task, TaskState, Time, Usage,
};
pub use error::{Code, Error};
pub use evaluate::Evaluate;
pub use memories::{Memories, Remember, Search};
pub use prices::{Prices, QueryCost, SetPrice};
pub use quotas::{QuotaWatch, Quotas, SetQuota};
pub use schedules::{Plan, Schedules};
pub use tasks::{CreateTask, ListTasks, Say, Tasks, Watch};
pub use types::{Class, limits};
