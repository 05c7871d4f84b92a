//! What an agent is given to read, as data: segments, chains of them, differences between two stores, and views.
//!
//! It is not a store and not a network: bytes come in, bytes go out, and who keeps or moves them is decided elsewhere.
//! It knows no model and no template either: a view ends as messages with roles, and rendering starts there.
//!
//! Read: `segment` (the pieces), `chain` (their order), `diff` (what must travel), `view` (who may see what).

mod chain;
mod diff;
mod segment;
mod view;

pub use chain::{Chain, ChainFull, ChainHash};
pub use diff::{ChainDiff, chunks, extend, missing};
pub use segment::{
    Kind, STORED_BYTES, Sealed, Segment, SegmentError, TOKENS, Tokens, Visibility, name, open, open_record,
    seal, seal_record, verify,
};
pub use view::{ChainItem, Message, MessageCall, Part, Reader, Role, TooLong, View, ViewError, may_see};
