//! Every bound in the system, in one place, each with its reason.

/// Names (agents, projects, models, task ids, labels): long enough for people, short enough for a table.
pub const NAME_BYTES: usize = 128;
/// One public request: a team of 64 documents of 1,500 tokens is about 400 KiB.
pub const REQUEST_BYTES: usize = 8 << 20;
/// One internal message: below gRPC's default receive limit of 4 MiB, with room for framing.
pub const CHUNK_BYTES: usize = 1 << 20;
/// A result or error up to this size comes back inside the task; larger ones through `ReadSegment`.
pub const INLINE_RESULT_BYTES: usize = 64 << 10;
/// One text segment. Larger inputs are refused; cut them into several.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Segments in one chain: 500 turns of a few segments each, with room.
pub const CHAIN_SEGMENTS: usize = 8192;
/// Commands in one log entry: bounds the time one `apply` holds the state.
pub const BATCH_COMMANDS: usize = 256;
/// Bytes of one log entry: an entry must fit one internal message.
pub const ENTRY_BYTES: usize = 1 << 20;
/// Inputs of one task: the demo's team reads at most 64 documents.
pub const TASK_INPUTS: usize = 256;
/// Children of one task.
pub const TASK_CHILDREN: usize = 256;
/// Depth of the task tree: a runaway spawner must hit a wall.
pub const TASK_DEPTH: u32 = 8;
/// Labels on a task.
pub const TASK_LABELS: usize = 16;
/// Tasks that one task waits for.
pub const TASK_AFTER: usize = 64;
/// What was said to a task and not heard yet: people type slowly, programs must wait.
pub const TASK_INBOX: usize = 64;
/// Open questions of one task: at most one for each call of a step.
pub const TASK_ASKS: usize = 32;
/// Tool calls that a model makes at once.
pub const CALLS_PER_TURN: usize = 32;
/// Segments that one command forgets.
pub const FORGET: usize = 256;
/// Named chains of one project: a memory for each agent and task that has one.
pub const HEADS_PER_PROJECT: usize = 100_000;
pub const SCHEDULES_PER_PROJECT: usize = 1_000;
/// Model calls without a task that are under way or ended a moment ago, in the whole cluster.
pub const CALLS: u64 = 65_536;
/// Of them, slices that were lost and may be refunded; the oldest are forgotten first.
pub const LOST_SLICES: usize = 4_096;
/// How long that is.
pub const LOST_SLICE_MS: u64 = 24 * 3_600_000;
/// Requests to come that a slice holds something for, and how many of them at the same time.
pub const SLICE_REQUESTS: u64 = 4_096;
pub const SLICE_SLOTS: u64 = 64;
/// Calls that one command renews: a node makes far fewer at the same time.
pub const CALLS_AT_ONCE: usize = 1_024;
/// Needs of one agent beside a running slot.
pub const AGENT_NEEDS: usize = 16;
/// Rows of the audit log; the oldest leave first.
pub const AUDIT_ROWS: usize = 10_000;
/// Steps a task may take when its agent says nothing.
pub const DEFAULT_MAX_STEPS: u32 = 32;
/// Tokens one model call may generate when its agent says nothing.
pub const DEFAULT_MAX_TOKENS: u32 = 256;
/// Request ids remembered for each client, and for how long.
pub const REQUEST_IDS_PER_CLIENT: usize = 64;
pub const REQUEST_ID_MS: u64 = 24 * 3_600_000;
/// Events kept for each task; older ones are answered by an explicit gap.
pub const EVENTS_PER_TASK: usize = 64;
/// Task rows in one project; more is refused with what to delete.
pub const TASKS_PER_PROJECT: usize = 100_000;
/// Finished rows are kept this long.
pub const FINISHED_MS: u64 = 7 * 24 * 3_600_000;
/// A node's lease, counted on the node from the moment of sending.
pub const NODE_LEASE_MS: u64 = 3_000;
/// How often a node renews its lease.
pub const NODE_RENEW_MS: u64 = 500;
/// What the leader waits beyond the lease: 1 % clock-rate drift and 50 ms of scheduling.
pub const LEASE_MARGIN_MS: u64 = NODE_LEASE_MS / 100 + 50;
/// How long a door tries to reach a leader before it answers UNAVAILABLE.
pub const FORWARD_MS: u64 = 5_000;
/// Copies of every acknowledged segment, where that many stores are members.
pub const COPIES: usize = 2;
/// Watchers of one task on one node.
pub const WATCHERS_PER_TASK: usize = 256;
/// Buffered events of one watcher; a slower one is told of a gap.
pub const WATCH_BUFFER: usize = 256;
/// Page sizes of list calls.
pub const PAGE_SIZE: usize = 50;
pub const PAGE_SIZE_MAX: usize = 1000;
