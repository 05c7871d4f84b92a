//! What every room says about a task: its state, its class, what it spent.

use minicbor::{Decode, Encode};

/// The life of a task. Only `ledger` moves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum TaskState {
    /// Waits for a slot.
    #[n(0)]
    Pending,
    /// A node holds its lease.
    #[n(1)]
    Running,
    /// Waits for a tool outside; holds no running slot.
    #[n(2)]
    WaitingTool,
    /// Waits for its children; holds no running slot.
    #[n(3)]
    WaitingChild,
    /// Waits for a person; holds no running slot.
    #[n(4)]
    WaitingInput,
    /// Stands still, durably, for a reason that someone can remove.
    #[n(5)]
    Paused(#[n(0)] PauseReason),
    /// Cancelling is durable; some holder has not confirmed yet.
    #[n(6)]
    Cancelling,
    #[n(7)]
    Succeeded,
    #[n(8)]
    Failed,
    /// The proof: nothing of this task starts any more.
    #[n(9)]
    Cancelled,
    #[n(10)]
    Expired,
}

/// Why a task is paused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum PauseReason {
    #[n(0)]
    User,
    #[n(1)]
    Budget,
    #[n(2)]
    Drain,
    #[n(3)]
    Error,
}

impl TaskState {
    /// True when nothing more will ever happen to the task.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// The public name, as in the API and the CLI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::WaitingTool => "WAITING_TOOL",
            Self::WaitingChild => "WAITING_CHILD",
            Self::WaitingInput => "WAITING_INPUT",
            Self::Paused(_) => "PAUSED",
            Self::Cancelling => "CANCELLING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// Which queue a task waits in. Declared from the most to the least urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Class {
    #[n(0)]
    System,
    #[n(1)]
    Interactive,
    #[n(2)]
    Batch,
    #[n(3)]
    BestEffort,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::System, Class::Interactive, Class::Batch, Class::BestEffort];

    pub fn name(self) -> &'static str {
        match self {
            Class::System => "system",
            Class::Interactive => "interactive",
            Class::Batch => "batch",
            Class::BestEffort => "best-effort",
        }
    }

    pub fn parse(text: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.name() == text)
    }
}

/// What model calls used, in tokens and micro-dollars. `cached` is part of `prompt`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Spent {
    #[n(0)]
    pub prompt_tokens: u64,
    #[n(1)]
    pub cached_tokens: u64,
    #[n(2)]
    pub generated_tokens: u64,
    #[n(3)]
    pub micro_usd: u64,
}

impl Spent {
    /// Sums two amounts; saturates, because a report must never panic.
    pub fn plus(self, other: Spent) -> Spent {
        Spent {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            generated_tokens: self.generated_tokens.saturating_add(other.generated_tokens),
            micro_usd: self.micro_usd.saturating_add(other.micro_usd),
        }
    }
}
