//! What agents remember: scopes, their chains of records, and the index that finds
//! things again.
//!
//! A scope is a chain of records (remember, forget, summary) with a head, like a task's journal. Everything else is
//! made from that chain and the texts it names: an index is a cache that any node can build again, and two nodes
//! with the same chain and the same encoder give the same hits with the same scores, bit for bit.
//!
//! It is not a store and not a service: records and texts come in as bytes, weights come in as bytes, and who keeps,
//! moves or erases them is decided elsewhere. It knows no clock, no disk, no network and no runtime.
//!
//! Read: `scope` (whose memory), `record` (the stored form), `shelf` (what the records say is there), `words`, `bm25`,
//! `vectors`, `index` (the search over both), `cache` (an index as bytes); `encode` (what the index wants of an
//! encoder) and `minilm` (the one that is here).

mod bm25;
mod cache;
mod encode;
mod index;
pub mod limits;
mod minilm;
mod record;
mod scope;
mod shelf;
mod vectors;
mod words;

pub use cache::CacheError;
pub use encode::Encode;
pub use index::{Coverage, Hit, How, Index, Item, Query};
pub use minilm::{EncoderError, MiniLm};
pub use record::{Act, Note, Record};
pub use scope::{Scope, ScopeError};
pub use shelf::{Change, Entry, Shelf, ShelfError};
