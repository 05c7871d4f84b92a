//! Whether memories are found: the questions of bfcl-memory, one segment a message, one scope a conversation.
//!
//! The list of questions and the rule that made it are in `bfcl-memory.json`. The data are not part of this
//! repository; QUORATE_TEST_DATA names their folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use memory::{Encode, How, Index, Item, Query};
use serde_json::Value;
use types::Hash;
use unicode_normalization::UnicodeNormalization;

/// Of 100 questions, so many must find their message among the first five.
const WANTED_PERCENT: usize = 80;
/// Conversations that every build encodes, the shortest ones: all five take minutes on a slow machine.
/// QUORATE_RECALL_SCOPES=5 takes them all, as `make prove` does.
const SCOPES: usize = 3;

struct Question {
    id: String,
    scope: String,
    text: String,
    source: String,
}

struct Data {
    questions: Vec<Question>,
    messages: BTreeMap<String, Vec<String>>,
}

fn lines(path: PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

/// The data, or nothing where they are not.
fn data() -> Option<Data> {
    let folder = std::env::var("QUORATE_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let here = [PathBuf::from(&folder), crate::support::root().join(&folder)];
    let Some(folder) =
        here.into_iter().map(|folder| folder.join("bfcl-memory")).find(|folder| folder.is_dir())
    else {
        eprintln!("SKIPPED: bfcl-memory is not in {folder}; set QUORATE_TEST_DATA");
        return None;
    };
    let sources: BTreeMap<String, String> = lines(folder.join("answers.json"))
        .iter()
        .map(|answer| (text(&answer["id"]), text(&answer["source"])))
        .collect();
    let questions: Vec<Question> = lines(folder.join("questions.json"))
        .iter()
        .map(|question| Question {
            id: text(&question["id"]),
            scope: text(&question["scenario"]),
            text: text(&question["question"][0][0]["content"]),
            source: sources[question["id"].as_str().expect("an id")].clone(),
        })
        .collect();
    let scopes = questions.iter().map(|question| question.scope.clone());
    let messages = scopes.map(|scope| (scope.clone(), conversation(&folder, &scope))).collect();
    Some(Data { questions, messages })
}

fn conversation(folder: &std::path::Path, scope: &str) -> Vec<String> {
    let sessions = lines(folder.join(format!("conversations/memory_{scope}.json")));
    let turns = sessions.iter().flat_map(|session| session["question"].as_array().expect("turns"));
    let messages = turns.flat_map(|turn| turn.as_array().expect("messages"));
    messages.map(|message| text(&message["content"])).collect()
}

/// The questions of the list, each with the place of the message that it is about.
fn listed() -> Vec<(String, String, usize)> {
    let list: Value = serde_json::from_str(include_str!("../bfcl-memory.json")).expect("JSON");
    let questions = list["questions"].as_array().expect("a list").iter();
    questions
        .map(|it| (text(&it["id"]), text(&it["scope"]), it["message"].as_u64().expect("a number") as usize))
        .collect()
}

fn normal(text: &str) -> String {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).collect();
    let words = folded.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn holds(message: &str, source: &str) -> bool {
    let (message, mut at) = (normal(message), 0);
    let parts = source.split("...").flat_map(|part| part.split('\u{2026}'));
    parts.map(normal).filter(|part| !part.is_empty()).all(|part| {
        let found = message[at..].find(&part);
        at += found.unwrap_or(0) + part.len();
        found.is_some()
    })
}

#[test]
fn the_list_is_what_the_rule_gives() {
    let Some(data) = data() else { return };
    let place = |question: &Question| {
        let at = data.messages[&question.scope].iter().position(|it| holds(it, &question.source))?;
        Some((question.id.clone(), question.scope.clone(), at))
    };
    let found: Vec<_> = data.questions.iter().filter_map(place).collect();
    assert_eq!((data.questions.len(), found.len()), (155, 142));
    assert_eq!(found, listed());
}

#[test]
fn the_message_is_among_the_first_five() {
    let Some(data) = data() else { return };
    let encoder = crate::support::encoder(2);
    let started = std::time::Instant::now();
    let most = std::env::var("QUORATE_RECALL_SCOPES").map_or(SCOPES, |text| text.parse().expect("a number"));
    let mut shortest: Vec<_> = data.messages.iter().collect();
    shortest.sort_by_key(|(_, messages)| messages.iter().map(String::len).sum::<usize>());
    let scopes: BTreeMap<&String, Index> =
        shortest.into_iter().take(most).map(|(scope, messages)| (scope, index(&encoder, messages))).collect();
    println!("{} messages encoded in {:.1} s", count(&scopes), started.elapsed().as_secs_f64());
    let mut list = listed();
    list.retain(|(_, scope, _)| scopes.contains_key(scope));
    println!("of {} questions     first   of 3   of 5  of 10", list.len());
    for (how, name) in [(How::Words, "BM25"), (How::Vectors, "vectors"), (How::Both, "both")] {
        let ranks: Vec<usize> =
            list.iter().map(|(id, scope, at)| rank(&data, &scopes[scope], &encoder, how, id, *at)).collect();
        let within = |k: usize| ranks.iter().filter(|rank| **rank <= k).count();
        let percent = |k: usize| 100.0 * within(k) as f64 / list.len() as f64;
        println!(
            "{name:16} {:9.1}% {:5.1}% {:5.1}% {:5.1}%",
            percent(1),
            percent(3),
            percent(5),
            percent(10)
        );
        assert!(within(5) * 100 >= WANTED_PERCENT * list.len(), "{name}: {} of {}", within(5), list.len());
    }
}

fn count(scopes: &BTreeMap<&String, Index>) -> usize {
    scopes.values().map(|index| index.coverage().with_vectors).sum()
}

fn index(encoder: &dyn Encode, messages: &[String]) -> Index {
    let mut index = Index::new(Some(encoder));
    for (n, text) in (0u64..).zip(messages) {
        let hash = Hash::of(&n.to_le_bytes());
        index.add(&Item { hash, n, text, note: None });
        index.add_vectors(&hash, &encoder.passages(text));
    }
    index
}

/// Counted from one; one more than all where it is not found.
fn rank(data: &Data, index: &Index, encoder: &dyn Encode, how: How, id: &str, message: usize) -> usize {
    let question = data.questions.iter().find(|question| question.id == id).expect("a listed question");
    let vector = encoder.question(&question.text);
    let query = Query { text: &question.text, vector: Some(&vector), how, tags: &[], most: 10 };
    let hits = index.search(&query);
    hits.iter().position(|hit| hit.n == message as u64).map_or(usize::MAX, |at| at + 1)
}
