//! Model calls without a task, as chance makes them.

use super::world::{PROJECTS, World};
use ledger::command::Command;
use ledger::keys::{Amounts, Holding};
use ledger::reply::Reply;
use ledger::rows::{CallId, Want};
use types::ProjectName;

impl World {
    /// A model call without a task begins, is renewed or ends; now and then one that never was, or is over.
    pub(super) fn call(&mut self, a: u16, b: u16, c: u16) {
        let project = ProjectName::parse(PROJECTS[a as usize % 3]).unwrap();
        let call = CallId([b as u8 % 8; 16]);
        let node = self.node(c);
        let lives_ms = if c.is_multiple_of(50) { 1 } else { 5_000 + u64::from(c % 999) };
        match c % 4 {
            0 | 1 => {
                let min_tokens = u64::from(b % 50);
                let max_tokens = min_tokens + u64::from(a % 50);
                let cached_tokens = u64::from(a) % (min_tokens + 1);
                let extra = Amounts { cached_tokens, kv_block_seconds: u64::from(b % 9), ..Amounts::NONE };
                let want = Want { fresh_tokens: cached_tokens, known_tokens: 0, extra };
                let (model, author) = ("m".to_string(), "author".to_string());
                let begin = Command::BeginCall {
                    call,
                    project,
                    model,
                    author,
                    node,
                    min_tokens,
                    max_tokens,
                    want,
                    lives_ms,
                    needs: b.is_multiple_of(3).then_some((Holding::CpuMilli, 1)).into_iter().collect(),
                };
                if let Reply::Reserved(tokens) = self.run(begin) {
                    self.kinds.insert("call");
                    assert!(tokens <= u64::from(u16::MAX));
                }
            }
            2 => {
                let calls: Vec<_> =
                    self.state.calls_of(node).map(|row| (row.project.clone(), row.call)).collect();
                self.run(Command::RenewCalls { node, calls, lives_ms });
            }
            _ => {
                let open = self.state.calls().find(|row| row.call == call).cloned();
                let (project, reserved) =
                    open.map_or((project, 0), |row| (row.project.clone(), row.reserved.tokens));
                let fresh_tokens = u64::from(a % 9).min(reserved);
                self.run(Command::EndCall {
                    project,
                    call,
                    fresh_tokens,
                    known_tokens: u64::from(c % 3),
                    generated_tokens: reserved - fresh_tokens + u64::from(b.is_multiple_of(9)),
                    extra: Amounts { kv_block_seconds: u64::from(c % 9), ..Amounts::NONE },
                });
            }
        }
    }
}
