//! Every name in a trace. Those of `gen_ai` are OpenTelemetry's conventions for generative AI in version 0.1.0, of which
//! all are in development: a later version is taken by changing this file, and what its test pins.

/// The version of the conventions, as every span's scope says it.
pub(crate) const SCHEMA: &str = "https://opentelemetry.io/schemas/gen-ai/0.1.0";

pub(crate) const INVOKE_AGENT: &str = "invoke_agent";
pub(crate) const CHAT: &str = "chat";
pub(crate) const TEXT_COMPLETION: &str = "text_completion";
pub(crate) const EXECUTE_TOOL: &str = "execute_tool";

pub(crate) const OPERATION: &str = "gen_ai.operation.name";
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
pub(crate) const AGENT: &str = "gen_ai.agent.name";
pub(crate) const AGENT_VERSION: &str = "gen_ai.agent.version";
pub(crate) const CONVERSATION: &str = "gen_ai.conversation.id";
pub(crate) const REQUEST_MODEL: &str = "gen_ai.request.model";
pub(crate) const MAX_TOKENS: &str = "gen_ai.request.max_tokens";
pub(crate) const TEMPERATURE: &str = "gen_ai.request.temperature";
pub(crate) const SEED: &str = "gen_ai.request.seed";
pub(crate) const RESPONSE_MODEL: &str = "gen_ai.response.model";
pub(crate) const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
pub(crate) const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
pub(crate) const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub(crate) const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub(crate) const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub(crate) const TOOL: &str = "gen_ai.tool.name";
pub(crate) const TOOL_CALL: &str = "gen_ai.tool.call.id";
pub(crate) const ERROR_TYPE: &str = "error.type";

pub(crate) const RPC_SYSTEM: &str = "rpc.system";
pub(crate) const RPC_SERVICE: &str = "rpc.service";
pub(crate) const RPC_METHOD: &str = "rpc.method";

/// Ours: what no convention has.
pub(crate) const TASK: &str = "quorate.task";
pub(crate) const PROJECT: &str = "quorate.project";
pub(crate) const STATE: &str = "quorate.state";
pub(crate) const STEP: &str = "quorate.step";
pub(crate) const STEPS: &str = "quorate.steps";
pub(crate) const EPOCH: &str = "quorate.epoch";
pub(crate) const NODE: &str = "quorate.node";
pub(crate) const CALL: &str = "quorate.call";
pub(crate) const REASON: &str = "quorate.reason";
