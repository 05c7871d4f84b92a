//! A shelf and its index as bytes, so that a start need not read every record and encode every text again.
//!
//! A cache and never more: it says which chain and which encoder it was made from, carries a digest of itself, and
//! what does not fit is refused and built again. Equal content gives equal bytes, whatever happened before.
//!
//! The bytes hold words and vectors of all items. Whoever keeps them writes them anew after a forget and destroys
//! the old ones.

use minicbor::{Decode, Encode};
use types::Hash;

use crate::bm25::Slot;
use crate::index::{Index, Known};
use crate::limits;
use crate::shelf::Shelf;
use crate::words::Word;

/// Format written by this version, and the only one it reads: another is built again.
const FORMAT: u16 = 1;
const DIGEST_BYTES: usize = 32;

/// A cache that cannot be used; nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    #[error("the memory's cache is damaged; delete it, it is built again from the records")]
    Damaged,
    #[error("the memory's cache has format {0}, this version reads {FORMAT}; delete it, it is built again")]
    Format(u16),
    #[error("the memory's cache is of another encoder; delete it, it is built again")]
    OtherEncoder,
}

/// Texts are borrowed, so that no copy of them is left in memory that was freed.
#[derive(Encode, Decode)]
struct Stored<'a> {
    #[n(0)]
    format: u16,
    #[n(1)]
    min_reader: u16,
    #[n(2)]
    encoder: Option<(Hash, u64)>,
    #[n(3)]
    shelf: Shelf,
    /// By their numbers.
    #[b(4)]
    items: Vec<StoredItem<'a>>,
    /// By the alphabet; the places name items by their place in `items`.
    #[b(5)]
    words: Vec<(&'a str, Vec<(u32, u32)>)>,
    /// Item and floats of each vector, little-endian.
    #[n(6)]
    owners: Vec<u32>,
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    rows: Vec<u8>,
}

#[derive(Encode, Decode)]
struct StoredItem<'a> {
    #[n(0)]
    hash: Hash,
    #[n(1)]
    n: u64,
    #[n(2)]
    words: u32,
    #[n(3)]
    encoded: bool,
    #[b(4)]
    tags: Vec<&'a str>,
}

impl Index {
    /// The index and the shelf it was made from, as bytes.
    pub fn to_bytes(&self, shelf: &Shelf) -> Vec<u8> {
        let mut order: Vec<(Slot, &Known)> = self.known.iter().map(|(slot, known)| (*slot, known)).collect();
        order.sort_by_key(|(_, known)| known.n);
        let places: std::collections::BTreeMap<Slot, u32> =
            (0..).zip(&order).map(|(place, (slot, _))| (*slot, place)).collect();
        let mut rows: Vec<(u32, &[f32])> =
            self.vectors.rows().map(|(slot, row)| (places[&slot], row)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| bits(a.1).cmp(bits(b.1))));
        let stored = Stored {
            format: FORMAT,
            min_reader: FORMAT,
            encoder: self.encoder.map(|(id, dims)| (id, dims as u64)),
            shelf: shelf.clone(),
            items: order.iter().map(|(slot, known)| self.stored_item(*slot, known)).collect(),
            words: self.postings.words().map(|(word, at)| (word, placed(at, &places))).collect(),
            owners: rows.iter().map(|(place, _)| *place).collect(),
            rows: rows.iter().flat_map(|(_, row)| row.iter().flat_map(|value| value.to_le_bytes())).collect(),
        };
        let mut bytes = types::encode(&stored);
        let digest = Hash::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        bytes
    }

    fn stored_item<'a>(&self, slot: Slot, known: &'a Known) -> StoredItem<'a> {
        StoredItem {
            hash: known.hash,
            n: known.n,
            words: self.postings.len(slot).unwrap_or(0),
            encoded: known.encoded,
            tags: known.tags.iter().map(|tag| tag.as_str()).collect(),
        }
    }

    /// Reads what [`Index::to_bytes`] wrote. The shelf says up to which record; later ones are applied after.
    ///
    /// # Errors
    /// Damaged bytes, another format, or vectors of another encoder than `encoder`. None loses anything.
    pub fn from_bytes(bytes: &[u8], encoder: Option<Hash>) -> Result<(Shelf, Index), CacheError> {
        let at = bytes.len().checked_sub(DIGEST_BYTES).ok_or(CacheError::Damaged)?;
        let (body, digest) = bytes.split_at(at);
        if Hash::of(body).0 != digest {
            return Err(CacheError::Damaged);
        }
        let stored: Stored<'_> = types::decode(body).map_err(|_| CacheError::Damaged)?;
        if stored.format != FORMAT {
            return Err(CacheError::Format(stored.format));
        }
        if stored.encoder.map(|(id, _)| id) != encoder {
            return Err(CacheError::OtherEncoder);
        }
        restore(stored).ok_or(CacheError::Damaged)
    }
}

fn placed(at: &[(Slot, u32)], places: &std::collections::BTreeMap<Slot, u32>) -> Vec<(u32, u32)> {
    let mut placed: Vec<_> = at.iter().map(|(slot, count)| (places[slot], *count)).collect();
    placed.sort_unstable();
    placed
}

fn bits(row: &[f32]) -> impl Iterator<Item = u32> {
    row.iter().map(|value| value.to_bits())
}

fn restore(stored: Stored<'_>) -> Option<(Shelf, Index)> {
    let dims = usize::try_from(stored.encoder.map_or(0, |(_, dims)| dims)).ok()?;
    (dims <= limits::VECTOR_DIMS).then_some(())?;
    let mut index = Index::of(stored.encoder.map(|(id, _)| (id, dims)));
    for item in stored.items {
        let slot = index.postings.restore_len(item.words);
        let tags = item.tags.into_iter().map(Word::new).collect();
        index.slots.insert(item.hash, slot);
        index.known.insert(slot, Known { hash: item.hash, n: item.n, encoded: item.encoded, tags });
    }
    for (word, places) in stored.words {
        places.iter().all(|(slot, _)| index.known.contains_key(slot)).then_some(())?;
        index.postings.restore_word(word, places);
    }
    (stored.rows.len() == stored.owners.len().checked_mul(4 * dims)?).then_some(())?;
    for (slot, row) in stored.owners.iter().zip(stored.rows.chunks_exact(4 * dims.max(1))) {
        index.known.contains_key(slot).then_some(())?;
        let row: Vec<f32> = row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        index.vectors.restore(*slot, &row);
    }
    Some((stored.shelf, index))
}
