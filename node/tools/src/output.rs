//! What a tool said, made fit to be kept and shown: no control characters, no more bytes than allowed.

/// Replaces what could move a cursor, colour a terminal or turn text around. New lines and tabs stay, `\r\n` becomes
/// `\n`; other control characters are written as `^X`, direction marks as U+FFFD.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\t' => cleaned.push(character),
            '\0'..='\x1f' => cleaned.extend(['^', char::from(character as u8 + 64)]),
            '\x7f' => cleaned.push_str("^?"),
            '\u{80}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => cleaned.push(char::REPLACEMENT_CHARACTER),
            _ => cleaned.push(character),
        }
    }
    cleaned
}

/// Room for the marker of [`cut`] inside the bound.
const MARKER_BYTES: usize = 48;

/// Cuts the middle out of a text that is longer than `most_bytes`: three quarters of what stays are its beginning, the
/// rest its end, where programs say how it went. Says how many bytes were cut, in the text and beside it.
pub fn cut(text: String, most_bytes: usize) -> (String, usize) {
    if text.len() <= most_bytes { (text, 0) } else { without_middle(&text, most_bytes, 0) }
}

/// Cleans and cuts. Of a text of megabytes only the ends are looked at: they are twice what can stay, since cleaning
/// makes a text at most half as long, so that the gap between them is always in what is cut.
pub(crate) fn fit(text: &str, most_bytes: usize) -> (String, usize) {
    let end = 2 * most_bytes;
    if text.len() <= 2 * end {
        return cut(clean(text), most_bytes);
    }
    let (begin, end) = (head(text, end), tail(text, end));
    let skipped = text.len() - begin.len() - end.len();
    without_middle(&(clean(begin) + &clean(end)), most_bytes, skipped)
}

fn without_middle(text: &str, most_bytes: usize, skipped: usize) -> (String, usize) {
    let room = most_bytes.saturating_sub(MARKER_BYTES);
    let head = text.floor_char_boundary(room - room / 4);
    let tail = text.ceil_char_boundary(text.len() - room / 4);
    let missing = tail - head + skipped;
    (format!("{}\n[{missing} bytes cut]\n{}", &text[..head], &text[tail..]), missing)
}

/// The last bytes of something long, for messages.
pub(crate) fn tail(text: &str, most_bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most_bytes))..]
}

/// The first bytes of something long, for messages.
pub(crate) fn head(text: &str, most_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(most_bytes.min(text.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_moves_a_cursor_is_left() {
        assert_eq!(clean("a\x1b[31mred\0\r\nb\tc\x7f\u{9b}\u{202e}"), "a^[[31mred^@\nb\tc^?\u{fffd}\u{fffd}");
        assert_eq!(clean("one\rtwo"), "one^Mtwo");
    }

    #[test]
    fn the_middle_is_cut_and_counted() {
        let (text, missing) = cut("x".repeat(1000) + "the end", 200);
        assert!(text.len() <= 200 && text.ends_with("the end"), "{text}");
        assert!(text.contains(&format!("[{missing} bytes cut]")));
        assert_eq!(cut("short".into(), 5), ("short".into(), 0));
    }

    #[test]
    fn of_a_huge_text_only_the_ends_are_cleaned_and_all_is_counted() {
        let text = format!("\x1b begin {}{} end \x1b", "a\r\n".repeat(5000), "\0".repeat(5000));
        let (short, missing) = fit(&text, 1000);
        assert!(short.starts_with("^[ begin a\na") && short.ends_with("^@ end ^["), "{short}");
        assert!(short.len() <= 1000 && short.contains(&format!("\n[{missing} bytes cut]\n")), "{short}");
        assert!((17_000..30_000).contains(&missing), "{missing}");
    }

    proptest! {
        #[test]
        fn what_fits_is_clean_and_within_its_bound(text in any::<String>(), times in 1usize..60, most in 64usize..200) {
            let (short, _) = fit(&text.repeat(times), most);
            prop_assert!(short.len() <= most);
            prop_assert!(short.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }

        #[test]
        fn a_cut_text_is_within_its_bound_and_counts_right(text in "\\PC{0,400}", most in 64usize..300) {
            let whole = text.len();
            let (short, missing) = cut(text, most);
            prop_assert!(short.len() <= most);
            if missing > 0 {
                let marker = format!("\n[{missing} bytes cut]\n").len();
                prop_assert_eq!(short.len() - marker + missing, whole);
            }
        }

        #[test]
        fn clean_text_stays_clean(text in any::<String>()) {
            let once = clean(&text);
            prop_assert!(once.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            prop_assert_eq!(clean(&once), once);
        }
    }
}
