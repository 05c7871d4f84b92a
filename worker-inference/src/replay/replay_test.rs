//! Small traces made by hand, hostile lines, and the figures that must hold on real traces.

use std::path::PathBuf;

use super::miniswe::{Rules, Sessions, Words};
use super::*;

fn mooncake_of(requests: &[&[u64]]) -> mooncake::Trace {
    let line = |(time, ids): (usize, &&[u64])| {
        format!("{{\"timestamp\":{time},\"input_length\":{},\"output_length\":3,\"hash_ids\":{ids:?}}}\n", {
            ids.len() * 512
        })
    };
    let text: String = requests.iter().enumerate().map(line).collect();
    mooncake::Trace::read(text.as_bytes(), "made by hand").expect("a good trace")
}

fn row<'a>(rows: &'a [Row], policy: &str) -> &'a Row {
    rows.iter().find(|row| row.policy == policy).expect("the policy was run")
}

#[test]
fn lru_and_the_oracle_choose_as_by_hand() {
    // Two blocks of room. LRU gives up 1 for 3 and 2 for 1; the oracle keeps 1 for the end.
    let rows = mooncake_of(&[&[1], &[2], &[3], &[1], &[2], &[1]]).replay(2).expect("runs");
    let lru = row(&rows, "lru");
    assert_eq!((lru.hit, lru.new, lru.reprefilled), (1.0 / 6.0, 3 * 512, 2 * 512));
    assert_eq!((lru.evictions, lru.evictions_by_reason["room"]), (3, 3));
    let oracle = row(&rows, "belady");
    assert_eq!((oracle.hit, oracle.reprefilled, oracle.evictions), (2.0 / 6.0, 512, 2));
}

#[test]
fn only_the_beginning_of_a_prompt_can_be_found() {
    let rows = mooncake_of(&[&[1, 2, 3], &[1, 2, 4], &[9, 10], &[1, 2, 3]]).replay(4).expect("runs");
    // 4 goes before 2 before 1; the last request finds 1 and 2 where room was made from the tails.
    assert_eq!(row(&rows, "belady").hit, 4.0 / 11.0);
    assert!(rows.iter().all(|row| row.hit <= 5.0 / 11.0 && row.new == 6 * 512));
}

#[test]
fn a_prompt_may_be_larger_than_the_pool_and_name_a_block_twice() {
    let rows = mooncake_of(&[&[1, 2, 3, 4, 5], &[7, 7, 7], &[1, 2]]).replay(2).expect("runs");
    assert!(rows.iter().all(|row| row.requests == 3 && row.new == 6 * 512));
}

#[test]
fn bad_lines_are_named() {
    let good = r#"{"timestamp":1,"input_length":3,"hash_ids":[1]}"#;
    for (bad, why) in [
        ("{", "EOF"),
        (r#"{"timestamp":-1,"input_length":3,"hash_ids":[1]}"#, "-1"),
        (r#"{"timestamp":1,"input_length":18446744073709551615,"hash_ids":[1]}"#, "36028797018963968 blocks"),
        (r#"{"timestamp":1,"input_length":1e300,"hash_ids":[1]}"#, "invalid type"),
        (r#"{"timestamp":1,"input_length":3,"hash_ids":[99999999999999999999]}"#, "invalid type"),
    ] {
        let text = format!("{good}\n\n{bad}\n");
        let error = mooncake::Trace::read(text.as_bytes(), "t.jsonl").expect_err("a bad line").to_string();
        assert!(error.starts_with("t.jsonl, line 3: ") && error.contains(why), "{error}");
    }
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,99999999999,1\n";
    let error = azure::Trace::read(azure.as_bytes(), "a.csv").expect_err("too many tokens").to_string();
    assert!(error.starts_with("a.csv, line 2: 99999999999 tokens"), "{error}");
    let error = mooncake::Trace::read(&b"\xff\xfe\n"[..], "t").expect_err("not text").to_string();
    assert!(error.contains("line 1: it is not UTF-8"), "{error}");
    assert!(matches!(mooncake::Trace::read(&b"\n"[..], "t"), Err(ReplayError::Empty { .. })));
    let trace = mooncake_of(&[&[1]]);
    for blocks in [0, usize::MAX] {
        assert!(matches!(trace.replay(blocks), Err(ReplayError::Setting(_))));
    }
}

#[test]
fn arrivals_wait_for_each_other() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:17:03.0,1000,2\n2023-11-16 18:17:03.5,1000,1\n";
    let trace = azure::Trace::read(text.as_bytes(), "a.csv").expect("a good trace");
    let rows = trace.replay(trace.blocks(), Costs::default()).expect("runs");
    let waits = rows[0].waits.expect("it has a clock");
    assert_eq!((rows[0].new, rows[0].reprefilled, rows[0].hit), (2000, 0, 0.0));
    assert!(waits.p50_ms == 0 && waits.max_ms < 500, "{waits:?}");
    let makespan_ms = rows[0].makespan_ms.expect("it has a clock");
    assert!((2_000..2_100).contains(&makespan_ms), "{makespan_ms}");
}

/// Two sessions of three turns over the same first 160 tokens.
fn two_sessions() -> Sessions {
    let line = |session: u32, turn: usize| {
        let text = "the same for all".repeat(40) + &format!("session {session} ").repeat(100 * turn);
        let time = 1_000_000 * turn + session as usize;
        format!(
            "{{\"timestamp\":{time},\"session_id\":\"{session}\",\"input\":{text:?},\"output\":\"done!\"}}\n"
        )
    };
    let text: String = [1, 2].iter().flat_map(|s| (1..=3).map(move |turn| line(*s, turn))).collect();
    let files = [("made by hand".to_owned(), text.as_bytes())];
    Sessions::read(files, Words::FourBytes, Rules::default()).expect("good sessions")
}

#[test]
fn sessions_recompute_nothing_when_all_fits() {
    let sessions = two_sessions();
    assert_eq!((sessions.calls(), sessions.cut), (6, 0));
    let rows = sessions.replay(1_000, Costs::default()).expect("runs");
    for row in &rows {
        assert_eq!((row.requests, row.evictions), (6, 0));
        // A found prompt's last token runs all the same, to know what comes next.
        assert!(row.computed_per_new < 1.02, "{row:?}");
    }
}

#[test]
fn tiers_give_back_what_the_pool_gave_up() {
    let sessions = two_sessions();
    let rows = sessions.replay(sessions.half(), Costs::default()).expect("runs");
    let (with, without): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.tiers == "host+disk");
    assert!(with.iter().all(|row| row.restored_bytes > 0 && row.computed_per_new < 1.1), "{with:?}");
    assert!(without.iter().all(|row| row.restored_bytes == 0));
    assert!(without[0].reprefilled > with[0].reprefilled);
    assert_eq!(
        rows,
        sessions.replay(sessions.half(), Costs::default()).expect("runs"),
        "the same every time"
    );
}

/// The traces that others recorded. None, and a line that says so, where they are absent.
fn data(path: &str) -> Option<PathBuf> {
    let folder = std::env::var("QUORATE_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let full = PathBuf::from(&folder).join(path);
    if !full.exists() {
        eprintln!("SKIPPED: {path} is not in {folder}; set QUORATE_TEST_DATA");
        return None;
    }
    Some(full)
}

fn open(path: &std::path::Path) -> std::io::BufReader<std::fs::File> {
    std::io::BufReader::new(std::fs::File::open(path).expect("readable"))
}

#[test]
fn on_mooncake_ours_is_the_best_without_an_oracle() {
    let Some(path) = data("mooncake/synthetic_trace.jsonl") else { return };
    let trace = mooncake::Trace::read(open(&path), "mooncake").expect("a good trace");
    let rows = trace.replay(5_000).expect("runs");
    // As an independent program of forty lines has them (docs/decisions/0012).
    let near = |policy: &str, hit: f64| assert!((row(&rows, policy).hit - hit).abs() < 0.001, "{policy}");
    near("lru", 0.2793);
    near("belady", 0.5262);
    let ours = row(&rows, "ours").hit;
    let best_other = rows.iter().filter(|row| !["ours", "belady"].contains(&row.policy.as_str()));
    let best_other = best_other.map(|row| row.hit).fold(0.0, f64::max);
    assert!(ours > best_other + 0.02, "ours {ours:.4}, the best other {best_other:.4}");
}

#[test]
fn agents_that_pause_recompute_little_with_half_the_room() {
    let Some(folder) = data("miniswe") else { return };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("readable").map(|file| file.expect("readable").path()).collect();
    files.sort();
    // The whole folder is `bench/replay.sh`'s.
    files.truncate(6);
    let opened = files.iter().map(|file| (file.display().to_string(), open(file)));
    let sessions = Sessions::read(opened, Words::FourBytes, Rules::default()).expect("good sessions");
    let rows = sessions.replay(sessions.half(), Costs::default()).expect("runs");
    for row in rows.iter().filter(|row| row.tiers == "host+disk") {
        assert!(row.computed_per_new <= 1.10, "{row:?}");
    }
    let without = |policy: &str| {
        rows.iter().find(|row| row.tiers == "none" && row.policy == policy).expect("run").reprefilled
    };
    assert!(without("ours+hints") <= without("lru"));
}
