//! Reports on the wire between nodes.

use crate::cost::{CostGroup, CostLine};
use proto::internal::v1 as pb;
use types::Spent;

pub(crate) fn cost_group(group: pb::CostGroup) -> CostGroup {
    match group {
        pb::CostGroup::Unspecified | pb::CostGroup::ByProject => CostGroup::Project,
        pb::CostGroup::ByAgent => CostGroup::Agent,
        pb::CostGroup::ByModel => CostGroup::Model,
        pb::CostGroup::ByTask => CostGroup::Task,
        pb::CostGroup::ByDay => CostGroup::Day,
    }
}

pub(crate) fn group_to_wire(group: CostGroup) -> pb::CostGroup {
    match group {
        CostGroup::Project => pb::CostGroup::ByProject,
        CostGroup::Agent => pb::CostGroup::ByAgent,
        CostGroup::Model => pb::CostGroup::ByModel,
        CostGroup::Task => pb::CostGroup::ByTask,
        CostGroup::Day => pb::CostGroup::ByDay,
    }
}

pub(crate) fn cost_line(line: CostLine) -> pb::CostLine {
    pb::CostLine {
        key: line.key,
        tasks: line.tasks,
        steps: line.steps,
        prompt_tokens: line.spent.prompt_tokens,
        cached_tokens: line.spent.cached_tokens,
        generated_tokens: line.spent.generated_tokens,
        micro_usd: line.spent.micro_usd,
        new_tokens: line.new_tokens,
        known_tokens: line.known_tokens,
        kv_block_seconds: line.kv_block_seconds,
        tool_calls: line.tool_calls,
    }
}

pub(crate) fn line_from_wire(line: pb::CostLine) -> CostLine {
    CostLine {
        key: line.key,
        tasks: line.tasks,
        steps: line.steps,
        spent: Spent {
            prompt_tokens: line.prompt_tokens,
            cached_tokens: line.cached_tokens,
            generated_tokens: line.generated_tokens,
            micro_usd: line.micro_usd,
        },
        new_tokens: line.new_tokens,
        known_tokens: line.known_tokens,
        kv_block_seconds: line.kv_block_seconds,
        tool_calls: line.tool_calls,
    }
}
