//! Every bound of this crate, each with its reason.

/// One line of a stream: a chunk of text is under 1 KiB, but a whole tool call may come in one.
pub const LINE_BYTES: usize = 1 << 20;
/// One event of a stream: its lines joined.
pub const EVENT_BYTES: usize = 2 << 20;
/// All bytes of one answer on the wire: 100,000 tokens a chunk each of 300 bytes, with room.
pub const BODY_BYTES: usize = 64 << 20;
/// The body of a refusal; what is behind is not read.
pub const ERROR_BODY_BYTES: usize = 64 << 10;
/// What a message to people keeps of a provider's own words.
pub const QUOTED_BYTES: usize = 300;
/// Text of one answer: a segment holds no more.
pub const TEXT_BYTES: usize = types::limits::SEGMENT_BYTES;
/// Tool calls in one answer.
pub const CALLS: usize = 64;
/// Arguments of one call.
pub const ARGUMENT_BYTES: usize = 1 << 20;
/// Name or id of one call as a provider says it.
pub const NAME_BYTES: usize = 256;
/// A tool's name on the wire: both forms allow 64 letters, digits, `_` and `-`.
pub const WIRE_NAME_BYTES: usize = 64;
/// Body of one request: the window of the largest models in text.
pub const REQUEST_BYTES: usize = 32 << 20;
/// A key file; a key has about a hundred bytes.
pub const KEY_BYTES: usize = 4096;
/// A run of the key's characters this long is hidden wherever it shows up; shorter ones are chance.
pub const KEY_TRACE_BYTES: usize = 8;

/// Requests on the wire for one call. More would outlast every deadline at these waits.
pub const WIRE_ATTEMPTS: u32 = 4;
/// Wait before the second attempt lies between nothing and this; it doubles from there.
pub const BACKOFF_FIRST_MS: u64 = 500;
pub const BACKOFF_MOST_MS: u64 = 20_000;
/// A longer Retry-After is not waited for inside a call: the caller is told.
pub const RETRY_AFTER_WAITED_MS: u64 = 30_000;
/// A longer Retry-After is not believed: a day closes a daily quota.
pub const RETRY_AFTER_MOST_MS: u64 = 24 * 3_600_000;
/// What each first attempt adds to the retry budget, in thousandths of a retry: 10 % extra load.
pub const RETRY_SHARE_MILLI: u64 = 100;
/// What a destination has at first, so that the first failure of a quiet one is tried again.
pub const RETRY_START_MILLI: u64 = 3_000;
/// What it can save up: a storm after a quiet day is not answered by a thousand retries.
pub const RETRY_SAVED_MILLI: u64 = 20_000;

/// Failures in a row that open a breaker.
pub const BREAKER_FAILURES: u32 = 5;
/// The first time it stays open so long, then twice as long each time, up to the last.
pub const BREAKER_FIRST_MS: u64 = 5_000;
pub const BREAKER_MOST_MS: u64 = 120_000;

/// Calls that wait for one destination; the next one is refused.
pub const WAITING: usize = 4096;
/// Concurrency of one destination, whatever is configured.
pub const CONCURRENCY: u32 = 1024;

/// No token is longer for the mean of an answer: longer means that a provider reports too few.
pub const BYTES_A_TOKEN: u64 = 64;
/// Tokens that a template or a provider puts around one message, around one tool, and around all.
pub const MESSAGE_TOKENS: u64 = 16;
pub const TOOL_TOKENS: u64 = 32;
pub const FRAME_TOKENS: u64 = 64;
/// What tools add once: Anthropic states up to about 700 tokens of instructions.
pub const TOOLS_TOKENS: u64 = 800;
/// A report above so many times what can be is no excess but nonsense.
pub const ABSURD_TIMES: u64 = 8;
/// Conversations whose prompt tokens are remembered, for each endpoint.
pub const REMEMBERED_PROMPTS: usize = 2048;

/// A recorded answer that is played again.
pub const CASSETTE_BYTES: u64 = 2 * BODY_BYTES as u64;
/// Extra headers of an endpoint.
pub const HEADERS: usize = 32;
