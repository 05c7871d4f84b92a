//! What the cluster says, as plain values. Their JSON form is the public one: `-o json` prints these.

mod agent;
mod cluster;
mod context;
mod event;
mod quota;
mod task;
mod time;

pub use agent::Agent;
pub use cluster::{ClusterStatus, Device, Engine, Gpu, Kv, Model, Node};
pub use context::{Context, Segment};
pub use event::{Event, EventKind};
pub use quota::{Limit, Quota};
pub use task::{Blocker, Explanation, NodeVerdict, Page, Task, TaskState, Usage};
pub use time::Time;
