//! Finding special tokens in a text: at each place the longest wins.

/// The special tokens of a vocabulary, by text.
#[derive(Debug, Default)]
pub(super) struct Special {
    /// Ascending by text, each text once, none empty.
    entries: Vec<(Box<str>, u32)>,
    /// Bytes that an entry begins with.
    begins: Box<[u64; 4]>,
}

impl Special {
    pub(super) fn new(entries: impl Iterator<Item = (Box<str>, u32)>) -> Special {
        let mut entries: Vec<(Box<str>, u32)> = entries.filter(|(text, _)| !text.is_empty()).collect();
        entries.sort();
        entries.dedup_by(|later, first| later.0 == first.0);
        let mut begins = Box::new([0; 4]);
        for (text, _) in &entries {
            let first = usize::from(text.as_bytes()[0]);
            begins[first / 64] |= 1 << (first % 64);
        }
        Special { entries, begins }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.entries.iter().map(|(text, id)| (&**text, *id))
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let found = self.entries.binary_search_by(|(entry, _)| (**entry).cmp(text)).ok()?;
        Some(self.entries[found].1)
    }

    /// The longest entry at the beginning of `rest` that may be taken, as its id and length.
    pub(super) fn longest(&self, rest: &[u8], may: impl Fn(u32, usize) -> bool) -> Option<(u32, usize)> {
        let first = usize::from(*rest.first()?);
        if self.begins[first / 64] & (1 << (first % 64)) == 0 {
            return None;
        }
        let mut longest = None;
        // Entries that agree with `rest` so far are neighbours; each byte narrows them.
        let mut agreeing = &self.entries[..];
        for (depth, &byte) in rest.iter().enumerate() {
            let byte_of = |entry: &(Box<str>, u32)| entry.0.as_bytes().get(depth).copied();
            let start = agreeing.partition_point(|entry| byte_of(entry) < Some(byte));
            let end = agreeing.partition_point(|entry| byte_of(entry) <= Some(byte));
            agreeing = &agreeing[start..end];
            let len = depth + 1;
            match agreeing.first() {
                None => break,
                Some((text, id)) if text.len() == len && may(*id, len) => longest = Some((*id, len)),
                Some(_) => {}
            }
        }
        longest
    }

    /// Whether a text ends with a special token.
    pub(super) fn ends(&self, text: &str) -> bool {
        self.entries.iter().any(|(entry, _)| text.ends_with(&**entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_that_may_be_taken() {
        let words = ["<s>", "<st>", "<", "  ", "   ", "<s><s>", "", "<s>"];
        let special = Special::new(words.iter().zip(0..).map(|(word, id)| ((*word).into(), id)));
        let longest = |text: &str| special.longest(text.as_bytes(), |_, _| true);
        assert_eq!(longest("<s>x"), Some((0, 3)));
        assert_eq!(longest("<s><s>"), Some((5, 6)));
        assert_eq!(longest("<s"), Some((2, 1)));
        assert_eq!(longest("     "), Some((4, 3)));
        assert_eq!(longest("x<s>"), None);
        assert_eq!(longest(""), None);
        assert_eq!(special.longest(b"<s><s>", |id, _| id != 5), Some((0, 3)));
        assert_eq!(special.id("<st>"), Some(1));
        assert!(special.ends("x <s>") && !special.ends("x <s> "));
    }
}
