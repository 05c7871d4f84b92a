//! Server-sent events from a hostile server: bytes in, events out. Pure.
//!
//! Lines end with LF, CR LF or CR, split anywhere. A line and an event have a bound; so has the sum, which whoever feeds
//! counts. Comments are told apart from silence by [`Reader::push`] giving no event for them.

use crate::bounds::{EVENT_BYTES, LINE_BYTES};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Empty: the default.
    pub name: String,
    /// Its data lines, joined by LF; what is no UTF-8 became U+FFFD.
    pub data: String,
    pub id: String,
}

/// What no stream of events holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    #[error("a line of the stream is longer than {LINE_BYTES} bytes")]
    LineTooLong,
    #[error("an event of the stream is larger than {EVENT_BYTES} bytes")]
    EventTooLarge,
}

/// Cuts bytes into events.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// The last byte was CR: an LF behind it belongs to it.
    after_cr: bool,
    /// A byte order mark may stand at the very beginning.
    begun: bool,
}

impl Reader {
    /// Takes bytes as they came; gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        let mut rest = bytes;
        if self.after_cr && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&rest[..end])?;
            events.extend(self.end_line()?);
            let crlf = rest[end..].starts_with(b"\r\n");
            self.after_cr = rest[end] == b'\r' && end + 1 == rest.len();
            rest = &rest[end + if crlf { 2 } else { 1 }..];
        }
        self.extend(rest)?;
        Ok(events)
    }

    /// The stream has ended: an event without its empty line is incomplete, and none.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + bytes.len() > LINE_BYTES {
            return Err(SseError::LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        let bare = match std::mem::replace(&mut self.begun, true) {
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line),
            true => &line,
        };
        if bare.is_empty() {
            return Ok(self.end_event());
        }
        let (name, value) = field(bare);
        match name {
            b"data" => self.add_data(&String::from_utf8_lossy(value))?,
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"id" => self.event.id = String::from_utf8_lossy(value).into_owned(),
            // Comments have an empty name; retry and what nobody knows mean nothing here.
            _ => (),
        }
        Ok(None)
    }

    fn add_data(&mut self, value: &str) -> Result<(), SseError> {
        if self.event.data.len() + value.len() + 1 > EVENT_BYTES {
            return Err(SseError::EventTooLarge);
        }
        if self.has_data {
            self.event.data.push('\n');
        }
        self.has_data = true;
        self.event.data.push_str(value);
        Ok(())
    }

    fn end_event(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        std::mem::take(&mut self.has_data).then_some(event)
    }
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return (line, b"") };
    let value = &line[colon + 1..];
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(stream: &[u8]) -> Vec<String> {
        Reader::default().push(stream).expect("small").into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn events_of_all_kinds() {
        assert_eq!(data(b"data: a\n\ndata:b\n\n"), ["a", "b"]);
        assert_eq!(data(b"data: a\r\ndata: b\r\n\r\n"), ["a\nb"]);
        assert_eq!(data(b"data: a\rdata: b\r\r"), ["a\nb"]);
        assert_eq!(
            data(b": ping\n\n:\n\nevent: x\n\n"),
            Vec::<String>::new(),
            "comments, and an event without data"
        );
        assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n"), ["a"]);
        assert_eq!(data(b"data\n\n"), [""]);
        assert_eq!(data(b"data: a"), Vec::<String>::new(), "not complete");
        assert_eq!(data(b"data: \xff\xfe\n\n"), ["\u{fffd}\u{fffd}"]);
        let events =
            Reader::default().push(b"event: delta\nid: 7\nretry: 3\nwhat: x\ndata: y\n\n").expect("small");
        assert_eq!(events, [Event { name: "delta".into(), data: "y".into(), id: "7".into() }]);
    }

    #[test]
    fn a_giant_line_and_a_giant_event_are_refused_before_they_are_kept() {
        let mut reader = Reader::default();
        let part = vec![b'x'; LINE_BYTES / 2];
        assert_eq!(reader.push(&part), Ok(vec![]));
        assert_eq!(reader.push(&part), Ok(vec![]));
        assert_eq!(reader.push(b"x"), Err(SseError::LineTooLong));
        let mut reader = Reader::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; LINE_BYTES - 100], b"\n"].concat();
        assert_eq!(reader.push(&line), Ok(vec![]));
        assert_eq!(reader.push(&line), Ok(vec![]));
        assert_eq!(reader.push(&line), Err(SseError::EventTooLarge));
    }

    proptest! {
        #[test]
        fn where_a_stream_is_split_does_not_matter(
            stream in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), Just(0xff), any::<u8>()], 0..200),
            prefix in prop_oneof![Just("data: x"), Just("")],
            cuts in proptest::collection::vec(0usize..220, 0..20),
        ) {
            let stream = [prefix.as_bytes(), &stream, b"\n\ndata: end\r\n\r\n"].concat();
            let whole = Reader::default().push(&stream).expect("small");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::default();
            let parts = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
            let split: Vec<Event> = parts.flat_map(|part| reader.push(part).expect("small")).collect();
            prop_assert_eq!(&split, &whole);
            prop_assert_eq!(whole.last().map(|event| event.data.as_str()), Some("end"));
        }
    }
}
