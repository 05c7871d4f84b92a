//! Whether and when to ask again. Pure: elapsed time and random numbers are arguments.

/// Bounds of the repetition of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The whole call, with all its attempts.
    pub(crate) deadline_ms: u64,
    /// One attempt. Above the 5 s for which a node itself looks for a leader.
    pub(crate) attempt_ms: u64,
    /// Gives up earlier when no node of a cluster ever took a connection.
    pub(crate) unreachable_ms: u64,
    pub(crate) attempts_max: u32,
    pub(crate) backoff_ms: u64,
    pub(crate) backoff_ms_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            deadline_ms: 30_000,
            attempt_ms: 8_000,
            unreachable_ms: 10_000,
            attempts_max: 64,
            backoff_ms: 50,
            backoff_ms_max: 1_000,
        }
    }
}

/// What asking twice would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asking twice does no harm: a read, or a change with a request id.
    Repeatable,
    /// Asking twice could do it twice: only asked again while it was certainly not received.
    Once,
}

/// How one attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node took no connection: nothing happened.
    NotSent,
    /// The node belongs to no cluster (yet): nothing happened.
    NoMember,
    /// The connection broke or the time ran out: nobody knows.
    Lost,
    /// The node says it cannot serve now.
    Busy { retry_after_ms: Option<u64> },
    /// The answer is final.
    Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    AskAgain { wait_ms: u64 },
    GiveUp,
}

/// The attempts of one call so far.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Policy,
    kind: Kind,
    endpoints: u32,
    made: u32,
    /// Some attempt reached a node, so that the call may have taken effect.
    sent: bool,
}

impl Attempts {
    pub(crate) fn new(policy: Policy, kind: Kind, endpoints: usize) -> Attempts {
        Attempts { policy, kind, endpoints: endpoints.max(1) as u32, made: 0, sent: false }
    }

    pub(crate) fn sent(&self) -> bool {
        self.sent
    }

    /// How long the next attempt may take.
    pub(crate) fn attempt_ms(&self, elapsed_ms: u64) -> u64 {
        self.policy.attempt_ms.min(self.policy.deadline_ms.saturating_sub(elapsed_ms)).max(1)
    }

    pub(crate) fn on_failure(&mut self, failure: Failure, elapsed_ms: u64, random: u64) -> Next {
        self.made += 1;
        let (may_repeat, at_least_ms) = match failure {
            Failure::NotSent | Failure::NoMember => (true, 0),
            Failure::Busy { retry_after_ms } => (true, retry_after_ms.unwrap_or(0)),
            Failure::Lost => (self.kind == Kind::Repeatable, 0),
            Failure::Final => (false, 0),
        };
        self.sent |= !matches!(failure, Failure::NotSent | Failure::NoMember);
        let wait_ms = self.backoff_ms(random).max(at_least_ms);
        let limit_ms = if self.sent { self.policy.deadline_ms } else { self.policy.unreachable_ms };
        let in_time = elapsed_ms.saturating_add(wait_ms) < limit_ms.min(self.policy.deadline_ms);
        match may_repeat && in_time && self.made < self.policy.attempts_max {
            true => Next::AskAgain { wait_ms },
            false => Next::GiveUp,
        }
    }

    /// Nothing while there are nodes not asked yet, then doubling with each round, the upper half of it random so that
    /// a thousand clients of a dead leader do not come back in one instant.
    fn backoff_ms(&self, random: u64) -> u64 {
        let round = self.made / self.endpoints;
        if round == 0 {
            return 0;
        }
        let full =
            self.policy.backoff_ms.saturating_mul(1 << (round - 1).min(20)).min(self.policy.backoff_ms_max);
        full / 2 + random % (full / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(kind: Kind, endpoints: usize) -> Attempts {
        Attempts::new(Policy::default(), kind, endpoints)
    }

    #[test]
    fn every_node_is_asked_at_once_then_it_waits() {
        let mut calls = attempts(Kind::Repeatable, 3);
        assert_eq!(calls.on_failure(Failure::NotSent, 0, 7), Next::AskAgain { wait_ms: 0 });
        assert_eq!(calls.on_failure(Failure::NotSent, 0, 7), Next::AskAgain { wait_ms: 0 });
        assert_eq!(calls.on_failure(Failure::NotSent, 0, 7), Next::AskAgain { wait_ms: 32 });
    }

    #[test]
    fn the_wait_doubles_within_bounds_and_is_random_in_its_upper_half() {
        let mut calls = attempts(Kind::Repeatable, 1);
        for expected in [50, 100, 200, 400, 800, 1_000, 1_000] {
            let Next::AskAgain { wait_ms } = calls.on_failure(Failure::Lost, 0, u64::MAX) else { panic!() };
            assert!((expected / 2..=expected).contains(&wait_ms), "{wait_ms} of {expected}");
        }
    }

    #[test]
    fn a_call_without_request_id_is_not_repeated_once_it_may_have_arrived() {
        assert_eq!(attempts(Kind::Once, 1).on_failure(Failure::Lost, 0, 0), Next::GiveUp);
        assert!(matches!(attempts(Kind::Once, 1).on_failure(Failure::NotSent, 0, 0), Next::AskAgain { .. }));
    }

    #[test]
    fn the_deadline_the_count_and_silence_end_it() {
        assert_eq!(attempts(Kind::Repeatable, 1).on_failure(Failure::Lost, 29_999, 0), Next::GiveUp);
        assert_eq!(attempts(Kind::Repeatable, 1).on_failure(Failure::NotSent, 10_000, 0), Next::GiveUp);
        assert_eq!(attempts(Kind::Repeatable, 1).on_failure(Failure::NoMember, 10_000, 0), Next::GiveUp);
        let busy = Failure::Busy { retry_after_ms: Some(60_000) };
        assert_eq!(attempts(Kind::Repeatable, 1).on_failure(busy, 0, 0), Next::GiveUp);
        assert_eq!(attempts(Kind::Repeatable, 1).on_failure(Failure::Final, 0, 0), Next::GiveUp);
        let mut calls = attempts(Kind::Repeatable, 1);
        let asked = (0..200).filter(|_| calls.on_failure(Failure::Lost, 0, 0) != Next::GiveUp).count();
        assert_eq!(asked, 63);
    }

    #[test]
    fn the_server_may_ask_for_more_patience() {
        let busy = Failure::Busy { retry_after_ms: Some(2_000) };
        assert_eq!(attempts(Kind::Repeatable, 3).on_failure(busy, 0, 0), Next::AskAgain { wait_ms: 2_000 });
    }
}
