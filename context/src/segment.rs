//! A segment: an immutable piece of context, and the one form in which it is stored and moved.
//!
//! The name of a segment is the keyed hash of its stored bytes, with the project as the key: equal text of two
//! projects has two names, and nobody can ask for a text by guessing it from outside the project.
//! Step records are stored in the same form, so nodes keep, move and verify all of them alike.

use minicbor::{Decode, Encode};
use types::{Hash, ProjectName, limits};

/// The newest format that this version can read.
const FORMAT: u16 = 2;
/// The format of every kind that the first version knew.
const FIRST: u16 = 1;
/// Token ids of one segment: four times the longest window in use.
pub const TOKENS: usize = 1 << 20;
/// Bytes of a task's id as text; it has 18, the rest is room.
const TREE_BYTES: usize = 64;
/// Stored bytes of one segment: text or body, five bytes a token id, and the small fields.
pub const STORED_BYTES: usize = limits::SEGMENT_BYTES + 5 * TOKENS + 1024;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// An agent's standing instruction.
    #[n(0)]
    System,
    /// Shared by all members of a team.
    #[n(1)]
    Background,
    /// Shared notes of one task tree.
    #[n(2)]
    TaskState,
    #[n(3)]
    Message,
    #[n(4)]
    Thought,
    #[n(5)]
    ToolCall,
    #[n(6)]
    ToolResult,
    #[n(7)]
    Summary,
    /// A result, or the text of an error.
    #[n(8)]
    Artefact,
    /// The text of an agent or a team.
    #[n(9)]
    Definition,
    /// A step record: no text, never part of a view.
    #[n(10)]
    Record,
    /// What tools a task has, as JSON. Part of a view, and no message in it.
    #[n(11)]
    Tools,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::System => "system",
            Kind::Background => "background",
            Kind::TaskState => "task state",
            Kind::Message => "message",
            Kind::Thought => "thought",
            Kind::ToolCall => "tool call",
            Kind::ToolResult => "tool result",
            Kind::Summary => "summary",
            Kind::Artefact => "artefact",
            Kind::Definition => "definition",
            Kind::Record => "record",
            Kind::Tools => "tools",
        }
    }

    /// The oldest format that has it.
    fn format(self) -> u16 {
        if self == Kind::Tools { FORMAT } else { FIRST }
    }
}

/// Who may have a segment in a view. Nobody outside the project ever may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Visibility {
    /// The agent that wrote it; with a tree, only inside that tree.
    #[n(0)]
    Agent,
    /// Every agent of the same task tree.
    #[n(1)]
    Task,
    /// Every agent of the project.
    #[n(2)]
    Project,
}

/// The exact ids that a model generated. They are never made again from the text.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Tokens {
    /// Digest of the tokenizer these ids belong to.
    #[n(0)]
    pub tokenizer: Hash,
    #[n(1)]
    pub ids: Vec<u32>,
}

/// A piece of context, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub kind: Kind,
    /// The agent, or the caller, that wrote it. At most `limits::NAME_BYTES`.
    pub author: String,
    pub visibility: Visibility,
    /// At most `limits::SEGMENT_BYTES`.
    pub text: String,
    pub tokens: Option<Tokens>,
    /// An assistant's message that a budget cut short: what follows it continues it.
    pub open: bool,
    /// Id of the root task, where visibility ends at a task tree; else empty.
    pub tree: String,
}

impl Segment {
    /// A closed segment of no particular tree, without token ids.
    pub fn new(
        kind: Kind,
        author: impl Into<String>,
        visibility: Visibility,
        text: impl Into<String>,
    ) -> Self {
        let (author, text) = (author.into(), text.into());
        Segment { kind, author, visibility, text, tokens: None, open: false, tree: String::new() }
    }

    /// Tells whether [`open`] will accept what [`seal`] makes of it.
    pub fn check(&self) -> Result<(), SegmentError> {
        if self.kind == Kind::Record {
            return Err(SegmentError::IsRecord);
        }
        let tokens = self.tokens.as_ref().map_or(0, |tokens| tokens.ids.len());
        within("text", self.text.len(), limits::SEGMENT_BYTES)?;
        within("author", self.author.len(), limits::NAME_BYTES)?;
        within("tree", self.tree.len(), TREE_BYTES)?;
        within("token ids", tokens, TOKENS)
    }
}

/// A segment in its stored form, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub hash: Hash,
    pub bytes: Vec<u8>,
}

/// Bytes that are not the segment that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Damaged, or not what its name says; fetch it from another holder.
    #[error(
        "segment {expected} has other bytes than its name says (they hash to {found}); fetch it from another node"
    )]
    WrongHash { expected: Hash, found: Hash },
    #[error("segment too large: {what} has {given}, at most {limit} are allowed; cut it into smaller parts")]
    TooLarge { what: &'static str, given: usize, limit: usize },
    #[error(
        "segment of format {format} needs a reader of {min_reader}, this one reads {FORMAT}; upgrade this node"
    )]
    TooNew { format: u16, min_reader: u16 },
    #[error("segment is malformed: {0}")]
    Malformed(String),
    #[error("segment is a step record and has no text; read it as a record")]
    IsRecord,
    #[error("segment is a {} and no step record", .0.name())]
    NotRecord(Kind),
}

/// The stored form. Fields are only ever added at the end.
#[derive(Encode, Decode)]
struct Stored<'a> {
    #[n(0)]
    format: u16,
    #[n(1)]
    min_reader: u16,
    #[n(2)]
    kind: Kind,
    #[n(3)]
    visibility: Visibility,
    #[b(4)]
    author: &'a str,
    #[b(5)]
    tree: &'a str,
    #[n(6)]
    open: bool,
    #[b(7)]
    text: &'a str,
    #[n(8)]
    tokens: Option<Tokens>,
    /// The content of a record; empty for everything else.
    #[b(9)]
    #[cbor(with = "minicbor::bytes")]
    body: &'a [u8],
}

/// The first two fields of everything stored, readable in any later format.
#[derive(Decode)]
struct Envelope {
    #[n(0)]
    format: u16,
    #[n(1)]
    min_reader: u16,
}

/// The name of stored bytes within a project.
pub fn name(project: &ProjectName, stored_bytes: &[u8]) -> Hash {
    Hash::keyed(project.as_str(), stored_bytes)
}

/// Puts a segment into its stored form. The same segment always gives the same bytes.
/// Check sizes before ([`Segment::check`]): what is over a limit is sealed all the same, and never opened.
pub fn seal(project: &ProjectName, segment: &Segment) -> Sealed {
    seal_stored(
        project,
        Stored {
            format: segment.kind.format(),
            min_reader: segment.kind.format(),
            kind: segment.kind,
            visibility: segment.visibility,
            author: &segment.author,
            tree: &segment.tree,
            open: segment.open,
            text: &segment.text,
            tokens: segment.tokens.clone(),
            body: &[],
        },
    )
}

/// Stores a step record as a segment. No view can hold it.
pub fn seal_record<T: Encode<()>>(project: &ProjectName, record: &T) -> Sealed {
    let body = types::encode(record);
    seal_stored(
        project,
        Stored {
            format: FIRST,
            min_reader: FIRST,
            kind: Kind::Record,
            visibility: Visibility::Agent,
            author: "",
            tree: "",
            open: false,
            text: "",
            tokens: None,
            body: &body,
        },
    )
}

fn seal_stored(project: &ProjectName, stored: Stored<'_>) -> Sealed {
    let bytes = types::encode(&stored);
    Sealed { hash: name(project, &bytes), bytes }
}

/// Checks that bytes are those that a name stands for, whatever they mean. This is what stores and links use:
/// a node can keep and pass on segments of a format newer than its own.
pub fn verify(project: &ProjectName, expected: Hash, bytes: &[u8]) -> Result<(), SegmentError> {
    within("stored form", bytes.len(), STORED_BYTES)?;
    let found = name(project, bytes);
    if found == expected { Ok(()) } else { Err(SegmentError::WrongHash { expected, found }) }
}

/// Verifies and reads a segment.
///
/// # Errors
/// Wrong bytes for the name, a format from the future, a limit exceeded, or a step record.
pub fn open(project: &ProjectName, expected: Hash, bytes: &[u8]) -> Result<Segment, SegmentError> {
    let stored = open_stored(project, expected, bytes)?;
    let segment = Segment {
        kind: stored.kind,
        author: stored.author.to_string(),
        visibility: stored.visibility,
        text: stored.text.to_string(),
        tokens: stored.tokens,
        open: stored.open,
        tree: stored.tree.to_string(),
    };
    segment.check()?;
    Ok(segment)
}

/// Verifies and reads a step record.
///
/// # Errors
/// As [`open`]; a segment of any other kind is [`SegmentError::NotRecord`].
pub fn open_record<T: for<'b> Decode<'b, ()>>(
    project: &ProjectName,
    expected: Hash,
    bytes: &[u8],
) -> Result<T, SegmentError> {
    let stored = open_stored(project, expected, bytes)?;
    if stored.kind != Kind::Record {
        return Err(SegmentError::NotRecord(stored.kind));
    }
    types::decode(stored.body).map_err(malformed)
}

fn open_stored<'a>(
    project: &ProjectName,
    expected: Hash,
    bytes: &'a [u8],
) -> Result<Stored<'a>, SegmentError> {
    verify(project, expected, bytes)?;
    let Envelope { format, min_reader } = types::decode(bytes).map_err(malformed)?;
    if min_reader > FORMAT {
        return Err(SegmentError::TooNew { format, min_reader });
    }
    types::decode(bytes).map_err(malformed)
}

fn malformed(error: minicbor::decode::Error) -> SegmentError {
    SegmentError::Malformed(error.to_string())
}

fn within(what: &'static str, given: usize, limit: usize) -> Result<(), SegmentError> {
    if given <= limit { Ok(()) } else { Err(SegmentError::TooLarge { what, given, limit }) }
}
