//! Keeps control tokens that somebody wrote into a message from becoming control tokens.
//!
//! A template may trim, cut and quote what it is given, so the places of a message's text in the rendering can't
//! be known from outside. Instead, characters that could begin or complete a control token are replaced, one for
//! one, by private characters *before* rendering, and put back afterwards, when their places are known.

use std::ops::Range;

/// The last 4,094 private-use characters stand for other characters while a template runs. Nobody else uses
/// them: in messages they are read as U+FFFD.
const FIRST: u32 = 0x10_f000;
const LAST: u32 = 0x10_fffd;

/// Stands for an answer's content where only what follows it is asked for.
pub(super) const STAND_IN: char = '\u{10fffd}';

/// Text with the places that came from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Ascending byte ranges of characters that somebody wrote and that look like (part of) a control token: a
    /// control token that touches one of them is plain text.
    pub guarded: Vec<Range<usize>>,
}

/// The control tokens of a model, prepared for looking.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Ascending, none empty.
    controls: Vec<String>,
    /// All characters of control tokens, ascending; their index chooses the private character.
    alphabet: Vec<char>,
    /// Bytes that a control token begins with, so that ordinary text is passed quickly.
    first_bytes: [u64; 4],
}

impl Guard {
    pub(super) fn new(mut controls: Vec<String>) -> Guard {
        controls.retain(|control| !control.is_empty());
        controls.sort_unstable();
        let mut alphabet: Vec<char> = controls.iter().flat_map(|control| control.chars()).collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        // A vocabulary with more is no real one; characters beyond are simply replaced for good.
        alphabet.truncate((LAST - FIRST) as usize);
        let mut first_bytes = [0; 4];
        for control in &controls {
            let first = usize::from(control.as_bytes()[0]);
            first_bytes[first / 64] |= 1 << (first % 64);
        }
        Guard { controls, alphabet, first_bytes }
    }

    /// The text with every dangerous character replaced; as many characters as before.
    pub(super) fn hide(&self, text: &str) -> String {
        let trimmed = text.trim_end();
        let head = text.len() - text.trim_start().len();
        let mut dangerous: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .filter(|&at| self.begins(&text[at..]) || trimmed.get(at..).is_some_and(|rest| self.begins(rest)))
            .collect();
        dangerous.extend(self.completes(text));
        dangerous.extend(self.completes(&text[head..]).map(|at| at + head));
        dangerous.sort_unstable();
        self.replace(text, &dangerous)
    }

    /// Whether a control token begins here, wholly or as far as the text goes.
    fn begins(&self, rest: &str) -> bool {
        let first = rest.as_bytes().first().map_or(0, |&first| usize::from(first));
        if self.first_bytes[first / 64] & (1 << (first % 64)) == 0 {
            return false;
        }
        // Tokens that agree so far are neighbours; each byte narrows them.
        let mut agreeing = &self.controls[..];
        for (depth, &byte) in rest.as_bytes().iter().enumerate() {
            let byte_of = |control: &String| control.as_bytes().get(depth).copied();
            let start = agreeing.partition_point(|control| byte_of(control) < Some(byte));
            let end = agreeing.partition_point(|control| byte_of(control) <= Some(byte));
            agreeing = &agreeing[start..end];
            match agreeing.first() {
                None => return false,
                Some(control) if control.len() == depth + 1 => return true,
                Some(_) => {}
            }
        }
        !rest.is_empty() && !agreeing.is_empty()
    }

    /// Where the last characters lie of the control tokens that this text could complete.
    fn completes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let first = text.chars().next();
        let ends = move |control: &'a String| {
            let inner = control.char_indices().skip(1).filter(move |(_, c)| Some(*c) == first);
            inner.filter(move |(at, _)| text.starts_with(&control[*at..])).map(move |(at, _)| {
                let last = control.chars().next_back().map_or(1, char::len_utf8);
                control.len() - at - last
            })
        };
        self.controls.iter().flat_map(ends)
    }

    fn replace(&self, text: &str, dangerous: &[usize]) -> String {
        let mut dangerous = dangerous.iter().peekable();
        let mut hidden = String::with_capacity(text.len() + 16);
        for (at, character) in text.char_indices() {
            let mut is_dangerous = false;
            while dangerous.next_if(|&&place| place <= at).is_some() {
                is_dangerous = true;
            }
            hidden.push(match character as u32 {
                FIRST..=LAST => char::REPLACEMENT_CHARACTER,
                _ if is_dangerous => self.private(character),
                _ => character,
            });
        }
        hidden
    }

    fn private(&self, character: char) -> char {
        let index = self.alphabet.binary_search(&character).ok();
        let private = index.and_then(|index| char::from_u32(FIRST + index as u32));
        private.unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// Puts the characters back and says where they are.
    pub(super) fn reveal(&self, hidden: &str) -> Rendered {
        let mut rendered = Rendered { text: String::with_capacity(hidden.len()), guarded: Vec::new() };
        for character in hidden.chars() {
            let index = (character as u32).wrapping_sub(FIRST) as usize;
            let original = self.alphabet.get(index).filter(|_| character as u32 >= FIRST);
            let start = rendered.text.len();
            rendered.text.push(original.copied().unwrap_or(character));
            if original.is_some() {
                rendered.guarded.push(start..rendered.text.len());
            }
        }
        rendered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(["<|im_end|>", "<s>", "[INST]", "[/INST]"].map(String::from).to_vec())
    }

    #[test]
    fn what_is_hidden_comes_back_with_its_places() {
        let guard = guard();
        let cases =
            ["", "plain", "a<|im_end|>b", "<s><s>", "x <|im_e", "x <|im_e\n ", "|>", "\n end|> x", "[INST]"];
        for text in cases {
            let hidden = guard.hide(text);
            assert_eq!(hidden.chars().count(), text.chars().count());
            assert_eq!(guard.reveal(&hidden).text, text);
            for control in &guard.controls {
                assert!(!hidden.contains(control.as_str()), "{text:?}");
            }
        }
        assert_eq!(guard.hide("1 < 2 and [x] > 3"), "1 < 2 and [x] > 3");
        let guarded = guard.reveal(&guard.hide("a<s>b")).guarded;
        assert_eq!((guarded.len(), &guarded[0]), (1, &(1..2)));
    }

    #[test]
    fn nothing_completes_what_a_template_began_or_begins_what_it_completes() {
        let guard = guard();
        for (before, text, behind) in [("<|im_", "end|>", ""), ("", "<|im_e", "nd|>"), ("<|im_end|", ">", "")]
        {
            let hidden = guard.hide(text);
            let rendered = guard.reveal(&format!("{before}{hidden}{behind}"));
            let whole = format!("{before}{text}{behind}");
            let found = whole.find("<|im_end|>").map(|at| at..at + 10);
            let touches = |token: Range<usize>| {
                rendered.guarded.iter().any(|range| range.start < token.end && token.start < range.end)
            };
            assert!(found.is_none_or(touches), "{whole:?}");
        }
    }

    #[test]
    fn private_characters_of_a_message_are_not_taken_for_ours() {
        let text = format!("a{}b{}", char::from_u32(FIRST).expect("a character"), STAND_IN);
        assert_eq!(guard().hide(&text), "a\u{fffd}b\u{fffd}");
    }
}
