//! Slices of nodes, as chance makes them: they grow, settle and end, are lost and refunded.

use super::world::{PROJECTS, World};
use ledger::command::{Command, SliceTurn, Spare, Wanted};
use ledger::keys::{Amounts, Holding};
use ledger::reply::Reply;
use ledger::rows::{CallId, CallRow, Want};
use types::{NodeId, ProjectName};

fn some(tokens: u64, kv: u64) -> Amounts {
    Amounts { tokens, kv_block_seconds: kv, ..Amounts::NONE }
}

fn wanted(a: u16, b: u16) -> Wanted {
    let min_tokens = 1 + u64::from(b % 20);
    let extra = some(0, u64::from(a % 3));
    let want = Want { fresh_tokens: u64::from(a) % min_tokens, known_tokens: u64::from(a % 5), extra };
    Wanted { min_tokens, max_tokens: min_tokens + u64::from(a % 30), want }
}

impl World {
    /// A slice takes a turn, now and then out of turn, or is refunded.
    pub(super) fn slice(&mut self, a: u16, b: u16, c: u16) {
        let id = CallId([100 + b as u8 % 4; 16]);
        let known = self.state.slices().find(|row| row.call == id).cloned();
        let node = known.as_ref().map_or(self.node(c), |row| row.node);
        let project = ProjectName::parse(PROJECTS[a as usize % 3]).unwrap();
        let project = known.as_ref().map_or(project, |row| row.project.clone());
        if c.is_multiple_of(9) {
            return self.refund(project, id, if c.is_multiple_of(27) { self.node(b) } else { node }, a);
        }
        let turn = turn(known.as_ref(), (project, id, node), (a, b, c));
        let asked = turn.spare.is_some();
        if let Reply::Slice(answer) = self.run(Command::TurnSlice { turn: Box::new(turn) }) {
            assert!(asked || !answer.spare);
            self.kinds.extend((answer.granted > 0).then_some("slice"));
            self.kinds.extend(answer.spare.then_some("spare"));
            self.kinds.extend(answer.recalled.then_some("recall"));
        }
    }

    fn refund(&mut self, project: ProjectName, slice: CallId, node: NodeId, a: u16) {
        let spent = some(u64::from(a % 60), 0);
        if self.run(Command::RefundSlice { project, slice, node, spent }) == Reply::Done {
            self.kinds.insert("refund");
        }
    }
}

fn turn(known: Option<&CallRow>, of: (ProjectName, CallId, NodeId), (a, b, c): (u16, u16, u16)) -> SliceTurn {
    let (project, slice, node) = of;
    let held = known.and_then(|row| row.slice.as_deref());
    let reserved = known.map_or(Amounts::NONE, |row| row.reserved);
    let half = reserved.tokens / 2;
    // Mostly less than it holds, now and then a token more.
    let used = some(half.min(u64::from(a % 40)) + u64::from(b.is_multiple_of(23)), u64::from(c % 2));
    let each = wanted(a, b);
    SliceTurn {
        project,
        slice,
        model: "m".into(),
        author: "author".into(),
        node,
        needs: b.is_multiple_of(2).then_some((Holding::CpuMilli, 1)).into_iter().collect(),
        seq: held.map_or(0, |slice| slice.seq) + 1 + u64::from(c.is_multiple_of(31)),
        spent: held.map_or(Amounts::NONE, |slice| slice.spent).plus(used),
        drawn: held.map_or(0, |slice| slice.drawn) + u64::from(c % 3),
        keep: some(half, reserved.kv_block_seconds / 2),
        keep_slots: held.map_or(0, |slice| slice.slots) / 2,
        want: (!c.is_multiple_of(5)).then_some(each),
        recalled: a.is_multiple_of(4),
        spare: b.is_multiple_of(3).then_some(Spare {
            each,
            requests: u64::from(c % 4),
            slots: u64::from(a % 3),
        }),
        lives_ms: 5_000 + u64::from(c % 999),
    }
}
