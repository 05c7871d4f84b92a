//! What a committed step tells of its conversation's future. Pure.
//!
//! The times are guesses that order conversations by how soon they come back; the engine forgets a hint whose time is
//! over.

use crate::engine_thread::hints::Hint;
use ledger::command::Next;

/// Other tasks of the agent begin with the same words; within a minute, where it is busy.
const HEAD_MS: u64 = 60_000;
const SOON_MS: u64 = 10_000;
const CHILDREN_MS: u64 = 120_000;
const PEOPLE_MS: u64 = 3_600_000;

/// A hint about the first `tokens` of a conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub tokens: usize,
    pub hint: Hint,
}

/// `tokens` has the conversation, `head` of them are of the agent's definition and background.
pub(super) fn after(next: &Next, tokens: usize, head: usize) -> Vec<Advice> {
    let Some((within_ms, permille)) = comes_back(next) else {
        return vec![Advice { tokens, hint: Hint::Drop { kept: head, ended: true } }];
    };
    let retain = Advice { tokens, hint: Hint::Retain { within_ms, permille } };
    let pin = (head > 0).then_some(Advice { tokens: head, hint: Hint::Pin { for_ms: HEAD_MS } });
    [retain].into_iter().chain(pin).collect()
}

/// The conversation went on otherwise than from its last step: what only the last step had is superseded.
pub(super) fn superseded(last: &[u32], now: &[u32]) -> Option<Advice> {
    let kept = last.iter().zip(now).take_while(|(one, other)| one == other).count();
    let hint = Hint::Drop { kept, ended: false };
    (kept < last.len()).then_some(Advice { tokens: last.len(), hint })
}

/// Nobody will go on with the conversation.
pub(super) fn is_the_end(next: &Next) -> bool {
    comes_back(next).is_none()
}

/// Within what time, and with what probability in 1000; never, when the task has ended.
fn comes_back(next: &Next) -> Option<(u64, u16)> {
    Some(match next {
        Next::Done { .. } | Next::Failed { .. } => return None,
        Next::Continue | Next::GoOn { .. } => (SOON_MS, 950),
        Next::WaitChildren => (CHILDREN_MS, 900),
        Next::WaitFor { ms, .. } => (ms.saturating_add(1_000), 950),
        Next::WaitTool { asks, .. } if asks.is_empty() => (SOON_MS, 950),
        Next::WaitTool { .. } | Next::WaitInput { .. } => (PEOPLE_MS, 500),
        Next::WaitBudget { .. } | Next::PausedError { .. } => (PEOPLE_MS, 200),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::rows::TaskError;
    use types::Hash;

    #[test]
    fn what_has_ended_is_dropped_behind_what_others_share() {
        let done = Next::Done { result: Hash::of(b"x"), bytes: 1 };
        let failed = Next::Failed { error: TaskError { reason: "X".into(), text: None } };
        for next in [done, failed] {
            let told = after(&next, 100, 40);
            assert_eq!(told, [Advice { tokens: 100, hint: Hint::Drop { kept: 40, ended: true } }]);
        }
    }

    #[test]
    fn who_comes_back_sooner_is_kept_rather() {
        let worth = |next: &Next| {
            let (within_ms, permille) = comes_back(next).unwrap();
            f64::from(permille) / within_ms as f64
        };
        let order = [
            Next::Continue,
            Next::WaitChildren,
            Next::WaitInput { heard: 0, asks: Vec::new() },
            Next::WaitBudget { heard: 0, calls: 1 },
        ];
        assert!(order.is_sorted_by(|sooner, later| worth(sooner) > worth(later)));
        let tool = Next::WaitTool { heard: 0, asks: Vec::new(), begun: None };
        assert_eq!(worth(&tool), worth(&order[0]), "a tool that runs comes back soon");
        let pinned = after(&order[0], 100, 40).pop().unwrap();
        assert_eq!(pinned, Advice { tokens: 40, hint: Hint::Pin { for_ms: HEAD_MS } });
        assert_eq!(after(&order[0], 100, 0).len(), 1, "there is no head to be pinned");
    }

    #[test]
    fn only_what_the_conversation_left_behind_is_superseded() {
        assert_eq!(superseded(&[1, 2, 3], &[1, 2, 3, 4]), None);
        assert_eq!(superseded(&[], &[1]), None);
        let hint = Hint::Drop { kept: 1, ended: false };
        assert_eq!(superseded(&[1, 2, 3], &[1, 9, 9, 9]), Some(Advice { tokens: 3, hint }));
    }
}
