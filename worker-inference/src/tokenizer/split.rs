//! How byte-level BPE vocabularies cut a text into words before merging. No word is merged with its neighbour,
//! so a wrong cut gives wrong tokens.
//!
//! Each family publishes its rule as a regular expression. They are written out here by hand, because general
//! engines backtrack: a long run of spaces in a prompt would take quadratic time or fail. Every function looks
//! at each character a fixed number of times.

use super::classes::Class;

/// A family's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Every digit first, then as GPT-2 between them.
    Gpt2Digits,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
    /// with `marks`, `\p{M}` counts as a letter.
    Llama3 { digits_most: usize, marks: bool },
    /// As Llama 3 with single digits, but words end where small letters are followed by capitals, slashes may
    /// follow symbols, and there are no English contractions.
    Tekken,
}

/// What is known of a rule's name in model files.
pub(super) struct Named {
    pub(super) rule: Rule,
    /// A word that is in the vocabulary is that token, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether texts begin with BOS where the file does not say.
    pub(super) adds_bos: bool,
}

/// All names, for the error message.
pub(super) const NAMES: &str = "gpt-2, mpt, smollm, starcoder, refact, command-r, llama-bpe, llama3, llama-v3, \
                                qwen2, qwen35 and tekken";

/// The rule of that name (`tokenizer.ggml.pre`).
pub(super) fn named(name: &str) -> Option<Named> {
    let plain = |rule| Named { rule, whole_words: false, adds_bos: false };
    Some(match name {
        "gpt-2" | "mpt" => plain(Rule::Gpt2),
        "smollm" | "starcoder" | "refact" | "command-r" => plain(Rule::Gpt2Digits),
        "qwen2" => plain(Rule::Llama3 { digits_most: 1, marks: false }),
        "qwen35" => plain(Rule::Llama3 { digits_most: 1, marks: true }),
        "llama-bpe" | "llama3" | "llama-v3" => {
            let rule = Rule::Llama3 { digits_most: 3, marks: false };
            Named { rule, whole_words: true, adds_bos: true }
        }
        "tekken" => Named { rule: Rule::Tekken, whole_words: true, adds_bos: true },
        _ => return None,
    })
}

/// Calls `take` with each word; together they are the text.
pub(super) fn words<'a>(rule: Rule, text: &'a str, mut take: impl FnMut(&'a str)) {
    if rule != Rule::Gpt2Digits {
        return each(text, |rest| one(rule, rest), take);
    }
    let mut rest = text;
    while let Some((at, digit)) = rest.char_indices().find(|(_, c)| Class::of(*c).is(Class::NUMBER)) {
        each(&rest[..at], gpt2, &mut take);
        let end = at + digit.len_utf8();
        take(&rest[at..end]);
        rest = &rest[end..];
    }
    each(rest, gpt2, take);
}

fn each<'a>(mut rest: &'a str, length: impl Fn(&str) -> usize, mut take: impl FnMut(&'a str)) {
    while let Some(first) = rest.chars().next() {
        let (word, behind) = rest.split_at(length(rest).max(first.len_utf8()));
        take(word);
        rest = behind;
    }
}

/// Bytes of the first word; `rest` is not empty.
fn one(rule: Rule, rest: &str) -> usize {
    match rule {
        Rule::Gpt2 | Rule::Gpt2Digits => gpt2(rest),
        Rule::Llama3 { digits_most, marks } => llama3(rest, digits_most, marks),
        Rule::Tekken => tekken(rest),
    }
}

const WORD_OR_SPACE: Class = Class::SPACE.or(Class::LETTER).or(Class::NUMBER);

fn gpt2(rest: &str) -> usize {
    if let Some(len) = contraction(rest, false) {
        return len;
    }
    let lead = usize::from(rest.starts_with(' '));
    let run = |holds: &dyn Fn(Class) -> bool| match run(&rest[lead..], holds) {
        0 => None,
        len => Some(lead + len),
    };
    run(&|class| class.is(Class::LETTER))
        .or_else(|| run(&|class| class.is(Class::NUMBER)))
        .or_else(|| run(&|class| !class.is(WORD_OR_SPACE)))
        .unwrap_or_else(|| spaces(rest))
}

fn llama3(rest: &str, digits_most: usize, marks: bool) -> usize {
    let letter = if marks { Class::LETTER.or(Class::MARK) } else { Class::LETTER };
    contraction(rest, true)
        .or_else(|| led_by_anything(rest, |rest| found(run(rest, |class| class.is(letter)))))
        .or_else(|| found(digits(rest, digits_most)))
        .or_else(|| symbols(rest, letter, &['\r', '\n']))
        .or_else(|| line_ends(rest))
        .unwrap_or_else(|| spaces(rest))
}

fn tekken(rest: &str) -> usize {
    led_by_anything(rest, ending_small)
        .or_else(|| led_by_anything(rest, beginning_capital))
        .or_else(|| found(digits(rest, 1)))
        .or_else(|| symbols(rest, Class::LETTER, &['\r', '\n', '/']))
        .or_else(|| line_ends(rest))
        .unwrap_or_else(|| spaces(rest))
}

/// `[Lu Lt Lm Lo M]`: letters that may stand at a capital's place.
fn is_capital(class: Class) -> bool {
    class.is(Class::LETTER.or(Class::MARK)) && !class.is(Class::LOWER)
}

/// `[Ll Lm Lo M]`: letters that may stand at a small letter's place.
fn is_small(class: Class) -> bool {
    class.is(Class::LETTER.or(Class::MARK)) && !class.is(Class::UPPER)
}

/// `capital* small+`
fn ending_small(rest: &str) -> Option<usize> {
    let capitals = run(rest, is_capital);
    match run(&rest[capitals..], is_small) {
        // The capitals give back up to the last one that may also be small.
        0 => {
            let mut both = rest[..capitals].char_indices().rev().filter(|(_, c)| is_small(Class::of(*c)));
            both.next().map(|(at, character)| at + character.len_utf8())
        }
        small => Some(capitals + small),
    }
}

/// `capital+ small*`
fn beginning_capital(rest: &str) -> Option<usize> {
    let capitals = found(run(rest, is_capital))?;
    Some(capitals + run(&rest[capitals..], is_small))
}

/// `[^\r\n\p{L}\p{N}]?` and what follows it; without that character where it does not fit otherwise.
fn led_by_anything(rest: &str, word: impl Fn(&str) -> Option<usize>) -> Option<usize> {
    let first = rest.chars().next()?;
    let may_lead = !matches!(first, '\r' | '\n') && !Class::of(first).is(Class::LETTER.or(Class::NUMBER));
    let lead = first.len_utf8();
    let led = if may_lead { word(&rest[lead..]).map(|len| lead + len) } else { None };
    led.or_else(|| word(rest))
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(rest: &str, any_case: bool) -> Option<usize> {
    const ENDINGS: [&[u8]; 7] = [b"s", b"t", b"re", b"ve", b"m", b"ll", b"d"];
    let behind = rest.strip_prefix('\'')?.as_bytes();
    let is_next = |ending: &&&[u8]| match behind.get(..ending.len()) {
        Some(letters) if any_case => letters.eq_ignore_ascii_case(ending),
        Some(letters) => letters == **ending,
        None => false,
    };
    ENDINGS.iter().find(is_next).map(|ending| 1 + ending.len())
}

fn digits(rest: &str, most: usize) -> usize {
    let is_digit = |c: &char| Class::of(*c).is(Class::NUMBER);
    rest.chars().take(most).take_while(is_digit).map(char::len_utf8).sum()
}

/// ` ?[^\s\p{L}\p{N}]+` and what may follow it.
fn symbols(rest: &str, letter: Class, followed_by: &[char]) -> Option<usize> {
    let lead = usize::from(rest.starts_with(' '));
    let others = Class::SPACE.or(Class::NUMBER).or(letter);
    let end = lead + found(run(&rest[lead..], |class| !class.is(others)))?;
    let follow = rest[end..].len() - rest[end..].trim_start_matches(followed_by).len();
    Some(end + follow)
}

/// `\s*[\r\n]+`: white space through its last line end.
fn line_ends(rest: &str) -> Option<usize> {
    let spaces = run(rest, |class| class.is(Class::SPACE));
    rest[..spaces].rfind(['\r', '\n']).map(|last| last + 1)
}

/// `\s+(?!\S)|\s+`: white space without its last character, which leads the next word; all of it at the end.
fn spaces(rest: &str) -> usize {
    let spaces = run(rest, |class| class.is(Class::SPACE));
    let last = rest[..spaces].chars().next_back().map_or(0, char::len_utf8);
    if spaces == rest.len() || spaces == last { spaces } else { spaces - last }
}

/// Bytes of the characters in front that are all of that class.
fn run(text: &str, holds: impl Fn(Class) -> bool) -> usize {
    text.char_indices().find(|(_, c)| !holds(Class::of(*c))).map_or(text.len(), |(at, _)| at)
}

fn found(len: usize) -> Option<usize> {
    (len > 0).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(name: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        words(named(name).expect("a known rule").rule, text, |word| found.push(word.to_owned()));
        assert_eq!(found.concat(), text);
        found
    }

    #[test]
    fn each_family_cuts_in_its_own_way() {
        let text = "I'LL can't  pay 1234€ now!!\n\n  Ok";
        let gpt2 = ["I", "'", "LL", " can", "'t", " ", " pay", " 1234", "€", " now", "!!", "\n\n ", " Ok"];
        assert_eq!(cut("gpt-2", text), gpt2);
        let smollm = [
            "I", "'", "LL", " can", "'t", " ", " pay", " ", "1", "2", "3", "4", "€", " now", "!!", "\n\n ",
            " Ok",
        ];
        assert_eq!(cut("smollm", text), smollm);
        let llama3 =
            ["I", "'LL", " can", "'t", " ", " pay", " ", "123", "4", "€", " now", "!!\n\n", " ", " Ok"];
        assert_eq!(cut("llama-bpe", text), llama3);
        let qwen = [
            "I", "'LL", " can", "'t", " ", " pay", " ", "1", "2", "3", "4", "€", " now", "!!\n\n", " ", " Ok",
        ];
        assert_eq!(cut("qwen2", text), qwen);
    }

    #[test]
    fn tekken_parts_words_at_capitals() {
        assert_eq!(cut("tekken", "HTTPServer getURL École"), ["HTTPServer", " get", "URL", " École"]);
        assert_eq!(cut("tekken", "aB日本C/\n12 x"), ["a", "B日本", "C", "/\n", "1", "2", " x"]);
        assert_eq!(cut("tekken", "e\u{301}A \u{301}A"), ["e\u{301}", "A", " \u{301}", "A"]);
    }

    #[test]
    fn white_space() {
        assert_eq!(cut("qwen2", " \n \n  x"), [" \n \n", " ", " x"]);
        assert_eq!(cut("qwen2", "x  "), ["x", "  "]);
        assert_eq!(cut("gpt-2", "x\u{a0}\u{a0}y"), ["x", "\u{a0}", "\u{a0}", "y"]);
        assert_eq!(cut("qwen2", "x\u{a0}y"), ["x", "\u{a0}y"]);
        assert_eq!(cut("gpt-2", ""), Vec::<String>::new());
    }

    #[test]
    fn agrees_with_the_published_expressions() {
        let rest = r"\s*[\r\n]+|\s+(?!\S)|\s+";
        let contractions = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
        let llama3 = |digits: &str| {
            format!(
                r"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{rest}"
            )
        };
        let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
        let lead = r"[^\r\n\p{L}\p{N}]?";
        let expressions = [
            (
                "gpt-2",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+".to_owned(),
            ),
            ("llama-bpe", llama3(r"\p{N}{1,3}")),
            ("qwen2", llama3(r"\p{N}")),
            (
                "qwen35",
                format!(
                    r"{contractions}|{lead}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{rest}"
                ),
            ),
            (
                "tekken",
                format!(
                    r"{lead}{upper}*{lower}+|{lead}{upper}+{lower}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{rest}"
                ),
            ),
        ];
        let letters: Vec<char> =
            " \n\r\t\u{a0}'slLtrReEvVmdD aZéÉǅʰ日\u{301}\u{903}1²Ⅷ!/€🙂-".chars().collect();
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for (name, expression) in expressions {
            let regex = tokenizers::utils::SysRegex::new(&expression).expect("a well-formed expression");
            for _ in 0..3000 {
                let len = random() % 14;
                let text: String = (0..len).map(|_| letters[random() % letters.len()]).collect();
                let expected: Vec<&str> =
                    regex.find_iter(&text).map(|(start, end)| &text[start..end]).collect();
                assert_eq!(cut(name, &text), expected, "{name}: {text:?}");
            }
        }
    }
}
