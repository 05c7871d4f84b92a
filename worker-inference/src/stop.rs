//! Stop strings over streamed text: nothing that belongs to a stop string is ever shown.

/// Watches one sequence's text.
#[derive(Debug, Clone, Default)]
pub struct StopWatch {
    stops: Vec<String>,
    /// Text that may still turn out to be the beginning of a stop string.
    held: String,
}

/// What became certain with one more piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text to show.
    pub text: String,
    /// A stop string was completed; it and all after it is dropped.
    pub stopped: bool,
}

impl StopWatch {
    /// Empty stop strings are ignored.
    pub fn new(stops: Vec<String>) -> StopWatch {
        StopWatch { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Adds text and returns what may be shown.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// The end of the sequence: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that are a beginning of `stop` (but not all of it).
fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    let fits = |len: &usize| stop.is_char_boundary(*len) && text.ends_with(&stop[..*len]);
    (1..=most).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut watch = StopWatch::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut shown = String::new();
        for piece in pieces {
            let passed = watch.push(piece);
            shown.push_str(&passed.text);
            if passed.stopped {
                return (shown, true);
            }
        }
        (shown + &watch.finish(), false)
    }

    #[test]
    fn a_stop_string_is_found_however_it_is_cut() {
        let text = "one → END two";
        let cuts: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
        for &first in &cuts {
            for &second in cuts.iter().filter(|&&second| second >= first) {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(run(&["→ END"], &pieces), ("one ".into(), true));
                assert_eq!(run(&["END three"], &pieces), (text.into(), false));
            }
        }
    }

    #[test]
    fn the_earliest_of_several_wins() {
        assert_eq!(run(&["b", "ab"], &["xxaby"]), ("xx".into(), true));
        assert_eq!(run(&["", "aab"], &["aa", "aab"]), ("aa".into(), true));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn text_is_held_no_longer_than_needed() {
        let mut watch = StopWatch::new(vec!["stop".into()]);
        assert_eq!(watch.push("a st").text, "a ");
        assert_eq!(watch.push("art").text, "start");
    }
}
