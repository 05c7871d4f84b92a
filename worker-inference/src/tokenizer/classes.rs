//! Unicode classes of characters, as the splitting rules use them.
//!
//! The standard library knows letters and numbers only roughly ("alphabetic" includes marks and circled
//! letters), so the tables are read once from the regular expressions of the tokenizer crate, which carry them.

use std::sync::LazyLock;

use tokenizers::utils::SysRegex;

/// A set of classes, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// `\p{L}`
    pub(super) const LETTER: Class = Class(1);
    /// `\p{M}`
    pub(super) const MARK: Class = Class(2);
    /// `\p{N}`
    pub(super) const NUMBER: Class = Class(4);
    /// `\p{Lu}` and `\p{Lt}`
    pub(super) const UPPER: Class = Class(8);
    /// `\p{Ll}`
    pub(super) const LOWER: Class = Class(16);
    /// `\s`
    pub(super) const SPACE: Class = Class(32);

    pub(super) const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    /// Whether the two have something in common.
    pub(super) const fn is(self, other: Class) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn of(character: char) -> Class {
        TABLE.get(place(character as usize)).copied().unwrap_or(Class(0))
    }
}

/// Characters have classes below here, and in one small piece of the plane of tags and variation marks.
const BASIC: usize = 0x3_4000;
const HIGH: usize = 0xe_0000;
const HIGH_END: usize = 0xe_0200;

static TABLE: LazyLock<Vec<Class>> = LazyLock::new(table);

/// Where a character is in the table; beyond its end when it has no classes.
const fn place(code: usize) -> usize {
    match code {
        0..BASIC => code,
        HIGH..HIGH_END => code - HIGH + BASIC,
        _ => usize::MAX,
    }
}

fn table() -> Vec<Class> {
    let mut table = vec![Class(0); BASIC + HIGH_END - HIGH];
    let all: String =
        (0..BASIC as u32).chain(HIGH as u32..HIGH_END as u32).filter_map(char::from_u32).collect();
    let rules = [
        (r"\p{L}+", Class::LETTER),
        (r"\p{M}+", Class::MARK),
        (r"\p{N}+", Class::NUMBER),
        (r"[\p{Lu}\p{Lt}]+", Class::UPPER),
        (r"\p{Ll}+", Class::LOWER),
        (r"\s+", Class::SPACE),
    ];
    for (rule, class) in rules {
        let regex = SysRegex::new(rule).expect("these expressions are well-formed");
        for (start, end) in regex.find_iter(&all) {
            for character in all[start..end].chars() {
                let entry = &mut table[place(character as usize)];
                *entry = entry.or(class);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters() {
        let letters = ['a', 'Z', 'ü', 'ß', '日', 'ª', 'ǅ', '\u{20000}', '\u{323af}'];
        assert!(letters.iter().all(|&c| Class::of(c).is(Class::LETTER)));
        let numbers = ['0', '²', 'Ⅷ', '½', '٣', '①'];
        assert!(numbers.iter().all(|&c| Class::of(c).is(Class::NUMBER) && !Class::of(c).is(Class::LETTER)));
        let marks = ['\u{301}', '\u{903}', '\u{e0100}', '\u{20dd}'];
        assert!(marks.iter().all(|&c| Class::of(c) == Class::MARK));
        assert!(['Ⓐ', '!', '🙂', '\u{e000}', '\u{10ffff}', '€'].iter().all(|&c| Class::of(c) == Class(0)));
        assert!(
            Class::of('ǅ').is(Class::UPPER)
                && Class::of('É').is(Class::UPPER)
                && Class::of('é').is(Class::LOWER)
        );
    }

    #[test]
    fn agrees_with_the_standard_library_where_it_is_exact() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let class = Class::of(character);
            assert_eq!(class.is(Class::SPACE), character.is_whitespace(), "{character:?}");
            let may_differ_by_unicode_version = class == Class(0);
            let is_number = class.is(Class::NUMBER);
            assert!(is_number == character.is_numeric() || may_differ_by_unicode_version, "{character:?}");
        }
    }
}
