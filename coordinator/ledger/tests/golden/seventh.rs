//! The seventh form: slices of quotas that nodes hold.

use super::*;
use ledger::command::{SliceTurn, Spare, Wanted};

fn at_level_7() -> Vec<Command> {
    let raise = Command::RaiseLevel { level: 7, reason: "all upgraded".into(), request: request("raise") };
    admit().into_iter().chain([raise]).collect()
}

fn tokens(tokens: u64) -> Amounts {
    Amounts { tokens, ..Amounts::NONE }
}

fn turn(slice: CallId, seq: u64) -> SliceTurn {
    let want = Want { fresh_tokens: 4, known_tokens: 0, extra: tokens(0) };
    let each = Wanted { min_tokens: 5, max_tokens: 9, want };
    SliceTurn {
        project: ProjectName::parse("a/b").unwrap(),
        slice,
        model: "smollm2".into(),
        author: "ann@a/b".into(),
        node: NodeId(1),
        needs: vec![(Holding::Connections("api.example.com".into()), 1)],
        seq,
        spent: Amounts::NONE,
        drawn: 0,
        keep: Amounts::NONE,
        keep_slots: 0,
        want: Some(each),
        recalled: false,
        spare: Some(Spare { each, requests: 3, slots: 1 }),
        lives_ms: 30_000,
    }
}

/// One that goes on, one that is lost, one that is lost and refunded, one that is over.
fn seventh_commands() -> Vec<Command> {
    let [on, lost, refunded, over] = [1, 2, 3, 4].map(|id| CallId([id; 16]));
    let lives_ms = 5_000;
    let turns = [
        SliceTurn { lives_ms: 60_000, ..turn(on, 1) },
        SliceTurn {
            spent: tokens(7),
            drawn: 2,
            keep: tokens(9),
            keep_slots: 1,
            lives_ms: 60_000,
            ..turn(on, 2)
        },
        SliceTurn { lives_ms, ..turn(lost, 1) },
        SliceTurn { lives_ms, ..turn(refunded, 1) },
        SliceTurn { spare: None, ..turn(over, 1) },
        SliceTurn { want: None, spare: None, spent: tokens(6), drawn: 1, ..turn(over, 2) },
    ];
    turns.into_iter().map(|turn| Command::TurnSlice { turn: Box::new(turn) }).collect()
}

fn refund() -> Command {
    let project = ProjectName::parse("a/b").unwrap();
    Command::RefundSlice { project, slice: CallId([3; 16]), node: NodeId(1), spent: tokens(8) }
}

fn applied() -> State {
    let mut state = State::new();
    let later = Stamp { ledger_ms: STAMP.ledger_ms + 6_000, wall_ms: STAMP.wall_ms + 6_000 };
    let entries = [
        (STAMP, at_level_7()),
        (STAMP, seventh_commands()),
        (later, vec![Command::Tick]),
        (later, vec![refund()]),
    ];
    for (index, (stamp, commands)) in (1u64..).zip(entries) {
        let applied = state.apply_entry(index, &encode_entry(stamp, &commands)).unwrap();
        let refused = applied.replies.iter().find(|reply| matches!(reply, Reply::Refused(_)));
        assert_eq!(refused, None, "in entry {index}");
    }
    state
}

#[test]
fn an_entry_of_the_seventh_form_is_read_and_written_as_then() {
    let commands: Vec<Command> = seventh_commands().into_iter().chain([refund()]).collect();
    let golden = kept("entry-7.cbor", &encode_entry(STAMP, &commands));
    let entry: Entry = types::decode(&golden).unwrap();
    assert_eq!((entry.format, entry.min_reader), (7, 7));
    assert_eq!(entry.commands, commands);
    assert_eq!(encode_entry(entry.stamp, &entry.commands), golden);
}

#[test]
fn a_snapshot_of_the_seventh_form_is_read_and_written_as_then() {
    let state = applied();
    let golden = kept("snapshot-7.cbor", &state.snapshot());
    let restored = State::restore(&golden).unwrap();
    assert_eq!(restored.snapshot(), golden);
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(state.snapshot(), golden);
    ledger::invariants::check(&restored).unwrap();
    assert_eq!(restored.slices().count(), 1);
    let row = restored.quota("projects/a/b").unwrap();
    // 7 and 6 used, 4 * 9 lost, 8 of 4 * 9 used by the refunded one; 9 under way, 9 waiting, 3 * 9 to come.
    assert_eq!((row.tokens_settled, row.tokens_reserved), (7 + 6 + 36 + 8, 45));
    assert_eq!(row.running_used, 3);
}
