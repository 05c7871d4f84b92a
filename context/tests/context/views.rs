//! Who may see what, in which order, as which messages.

use context::{ChainItem, Kind, Part, Reader, Role, Segment, Tokens, View, ViewError, Visibility};
use proptest::prelude::*;
use types::{Hash, ProjectName, limits};

const TREE: &str = "t_root";

fn reader() -> Reader {
    Reader { agent: "writer".to_string(), tree: TREE.to_string() }
}

fn segment(kind: Kind, author: &str, visibility: Visibility, text: &str) -> Segment {
    Segment { tree: TREE.to_string(), ..Segment::new(kind, author, visibility, text) }
}

fn put(part: Part, name: &str, segment: Segment) -> (ChainItem, Segment) {
    let hash = context::seal(&ProjectName::default(), &segment).hash;
    (ChainItem { hash, part, name: name.to_string() }, segment)
}

fn input(name: &str, text: &str) -> (ChainItem, Segment) {
    put(Part::Input, name, segment(Kind::Message, "ann", Visibility::Project, text))
}

fn said(text: &str, open: bool, ids: &[u32], tokenizer: &str) -> (ChainItem, Segment) {
    let tokens = Tokens { tokenizer: Hash::of(tokenizer.as_bytes()), ids: ids.to_vec() };
    let segment = segment(Kind::Message, "writer", Visibility::Agent, text);
    put(Part::Private, "", Segment { open, tokens: Some(tokens), ..segment })
}

fn view(items: Vec<(ChainItem, Segment)>) -> View {
    View::build(reader(), items).unwrap()
}

#[test]
fn parts_come_in_the_order_that_shares_most() {
    let view = view(vec![
        said("mine", false, &[1], "t"),
        input("b.md", "second"),
        input("a.md", "first"),
        put(Part::Background, "", segment(Kind::Background, "press", Visibility::Task, "style")),
        put(Part::System, "", segment(Kind::System, "writer", Visibility::Agent, "be brief")),
    ]);
    let shown: Vec<(Role, String)> = view.messages().into_iter().map(|it| (it.role, it.text)).collect();
    let expected = [
        (Role::System, "be brief"),
        (Role::User, "style"),
        (Role::User, "# b.md\n\nsecond"),
        (Role::User, "# a.md\n\nfirst"),
        (Role::Assistant, "mine"),
    ];
    assert_eq!(shown, expected.map(|(role, text)| (role, text.to_string())));
    assert_eq!(view.chain().len(), 5);
}

#[test]
fn a_single_input_has_no_header_and_a_header_is_one_line() {
    assert_eq!(view(vec![input("a.md", "text")]).messages()[0].text, "text");
    let messages = view(vec![input("a\n# b", "text"), input("", "bare")]).messages();
    assert_eq!((messages[0].text.as_str(), messages[1].text.as_str()), ("# a # b\n\ntext", "bare"));
}

#[test]
fn a_cut_answer_is_one_message_again() {
    let parts = || vec![input("", "q"), said("one ", true, &[1], "t"), said("two ", true, &[2, 3], "t")];
    let messages = view(parts()).messages();
    let last = messages.last().unwrap();
    assert_eq!(
        (messages.len(), last.text.as_str(), last.open, last.segments.len()),
        (2, "one two ", true, 2)
    );
    assert_eq!(last.tokens.as_ref().unwrap().ids, [1, 2, 3]);
    let mut closed = parts();
    closed.push(said("three", false, &[4], "t"));
    let last = view(closed).messages().pop().unwrap();
    assert_eq!((last.text.as_str(), last.open), ("one two three", false));
}

#[test]
fn ids_of_two_tokenizers_are_not_joined() {
    let view = view(vec![said("one ", true, &[1], "t"), said("two", true, &[2], "u")]);
    assert_eq!(view.messages().pop().unwrap().tokens, None);
}

#[test]
fn what_follows_closes_an_open_message() {
    let result = segment(Kind::ToolResult, "writer", Visibility::Agent, "42");
    let view = view(vec![said("call", true, &[1], "t"), put(Part::Private, "", result)]);
    let shown: Vec<(Role, bool)> = view.messages().iter().map(|it| (it.role, it.open)).collect();
    assert_eq!(shown, [(Role::Assistant, false), (Role::User, false)]);
}

#[test]
fn records_and_misplaced_prompts_are_refused() {
    let misplaced = put(Part::Input, "", segment(Kind::System, "writer", Visibility::Agent, "x"));
    let posing = put(Part::System, "", segment(Kind::Message, "ann", Visibility::Project, "x"));
    let definition = put(Part::Input, "", segment(Kind::Definition, "writer", Visibility::Project, "x"));
    for item in [misplaced, posing, definition] {
        let error = View::build(reader(), vec![item]).unwrap_err();
        assert!(matches!(error, ViewError::OutOfPlace { .. }), "{error}");
    }
    let many = vec![input("", "x"); limits::CHAIN_SEGMENTS + 1];
    assert!(matches!(View::build(reader(), many), Err(ViewError::TooMany { .. })));
}

#[test]
fn the_error_says_whose_it_is_and_who_may_see_it() {
    let secret = put(Part::Input, "", segment(Kind::Thought, "reader", Visibility::Agent, "secret plan"));
    let text = View::build(reader(), vec![secret]).unwrap_err().to_string();
    assert!(text.contains("\"writer\" may not see") && text.contains("\"reader\""), "{text}");
    assert!(!text.contains("secret plan"), "an error never shows what is hidden");
}

#[test]
fn too_long_is_told_in_numbers() {
    let view = view(vec![input("a.md", "long"), input("b.md", "short")]);
    assert_eq!(view.fits(100, 20, &[70, 10]), Ok(80));
    let error = view.fits(100, 21, &[70, 10]).unwrap_err();
    assert_eq!((error.tokens, error.new_tokens, error.window, error.over), (80, 21, 100, 1));
    assert_eq!(error.largest[0], ("input \"a.md\"".to_string(), 70));
    let text = error.to_string();
    assert!(
        text.contains("80 tokens") && text.contains("window is 100") && text.contains("1 too many"),
        "{text}"
    );
    assert!(view.fits(100, u64::MAX, &[u64::MAX, 1]).is_err(), "no overflow");
}

proptest! {
    /// The rule, written a second time: a view exists exactly when its reader may see every part of it.
    #[test]
    fn a_view_shows_only_what_its_reader_may_see(
        parts in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3), 0..6)
    ) {
        let mut allowed = true;
        let mut items = Vec::new();
        for (who, visibility, tree) in parts {
            let author = ["writer", "reader", "ann"][usize::from(who)];
            let visibility = [Visibility::Agent, Visibility::Task, Visibility::Project][usize::from(visibility)];
            let tree = [TREE, "t_other", ""][usize::from(tree)];
            allowed &= match visibility {
                Visibility::Agent => author == "writer" && tree != "t_other",
                Visibility::Task => tree == TREE,
                Visibility::Project => true,
            };
            let segment = Segment { tree: tree.to_string(), ..segment(Kind::Message, author, visibility, "x") };
            items.push(put(Part::Input, "", segment));
        }
        prop_assert_eq!(View::build(reader(), items).is_ok(), allowed);
    }
}
