//! Values that many rows have in common: names, reasons, sets of nodes. A row has a pointer, the state one copy.

use minicbor::decode::{Decoder, Error};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use types::{Hash, NodeId};

/// A name or a word. Made from any text; the ledger lets equal ones of its rows share one copy.
pub type Text = Shared<str>;
/// Keys and values; tasks of one kind have the same.
pub type Labels = Shared<[Label]>;
pub(crate) type Label = (Box<str>, Box<str>);
/// A hash that many rows have in common.
pub type Common = Shared<Hash>;
/// A few nodes, in an order that matters.
pub type Nodes = Shared<[NodeId]>;

/// Eight bytes in its row. Nothing for what is empty.
pub struct Shared<T: ?Sized + Part>(Option<Arc<Box<T>>>);

/// What can be shared.
pub trait Part: Ord + 'static {
    fn empty() -> &'static Self;
}

impl Part for str {
    fn empty() -> &'static str {
        ""
    }
}

impl Part for Hash {
    fn empty() -> &'static Hash {
        const { &Hash([0; 32]) }
    }
}

impl Part for [Label] {
    fn empty() -> &'static [Label] {
        &[]
    }
}

impl Part for [NodeId] {
    fn empty() -> &'static [NodeId] {
        &[]
    }
}

impl<T: ?Sized + Part> Shared<T> {
    fn of(value: Box<T>) -> Self {
        Shared((*value != *T::empty()).then(|| Arc::new(value)))
    }

    /// Whether both are the same copy.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl Text {
    pub fn as_str(&self) -> &str {
        self
    }
}

impl<T: ?Sized + Part> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().map_or(T::empty(), |value| value)
    }
}

impl<T: ?Sized + Part> Borrow<T> for Shared<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized + Part> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T: ?Sized + Part> Default for Shared<T> {
    fn default() -> Self {
        Shared(None)
    }
}

impl<T: ?Sized + Part> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || **self == **other
    }
}

impl<T: ?Sized + Part> Eq for Shared<T> {}

impl<T: ?Sized + Part> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: ?Sized + Part> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: ?Sized + Part + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        **self == **other
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Shared::of(text.into())
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Text {
        text.as_str().into()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Shared::of(text.into())
    }
}

impl From<Vec<NodeId>> for Nodes {
    fn from(nodes: Vec<NodeId>) -> Nodes {
        Shared::of(nodes.into())
    }
}

impl From<Hash> for Common {
    fn from(hash: Hash) -> Common {
        Shared::of(hash.into())
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Labels {
        Shared::of(labels.into_iter().collect())
    }
}

impl FromIterator<NodeId> for Nodes {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Nodes {
        Shared::of(nodes.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Nodes {
    type Item = &'a NodeId;
    type IntoIter = std::slice::Iter<'a, NodeId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<C, T: ?Sized + Part + Encode<C>> Encode<C> for Shared<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), encode::Error<W::Error>> {
        (**self).encode(e, c)
    }
}

impl<'b, C> Decode<'b, C> for Text {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        Ok(d.str()?.into())
    }
}

impl<'b, C> Decode<'b, C> for Common {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Error> {
        Ok(Hash::decode(d, c)?.into())
    }
}

impl<'b, C> Decode<'b, C> for Labels {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Error> {
        Ok(Shared::of(Vec::decode(d, c)?.into()))
    }
}

impl<'b, C> Decode<'b, C> for Nodes {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Error> {
        Ok(Vec::decode(d, c)?.into())
    }
}

/// The copies that rows share.
#[derive(Debug)]
pub(crate) struct Pool<T: ?Sized + Part>(BTreeSet<Shared<T>>);

impl<T: ?Sized + Part> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Pool(self.0.clone())
    }
}

impl<T: ?Sized + Part> Default for Pool<T> {
    fn default() -> Self {
        Pool(BTreeSet::new())
    }
}

impl<T: ?Sized + Part> Pool<T> {
    /// Puts the one copy in the place of this one.
    pub(crate) fn share(&mut self, value: &mut Shared<T>) {
        match self.0.get(&**value) {
            Some(known) => *value = known.clone(),
            None if value.0.is_some() => drop(self.0.insert(value.clone())),
            None => {}
        }
    }

    /// A row has `new` in the place of `old` now.
    pub(crate) fn replaced(&mut self, old: &Shared<T>, new: &mut Shared<T>) {
        if !old.is(new) {
            self.share(new);
            self.release(old);
        }
    }

    /// Forgets the copy if nothing has it but the pool and this one.
    pub(crate) fn release(&mut self, value: &Shared<T>) {
        if value.0.as_ref().is_some_and(|value| Arc::strong_count(value) <= 2) {
            self.0.remove(&**value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy_and_the_last_takes_it_along() {
        let mut pool = Pool::default();
        let (mut one, mut two) = (Text::from("worker"), Text::from("worker"));
        assert!(!one.is(&two));
        pool.share(&mut one);
        pool.share(&mut two);
        assert!(one.is(&two) && one == "worker");
        pool.release(&one);
        assert_eq!(pool.0.len(), 1, "two still has it");
        drop(one);
        pool.release(&two);
        assert_eq!(pool.0.len(), 0);
    }

    #[test]
    fn nothing_needs_no_copy() {
        let mut pool = Pool::default();
        let mut nothing = Text::from("");
        pool.share(&mut nothing);
        assert_eq!((pool.0.len(), nothing.as_str()), (0, ""));
        assert_eq!(size_of::<Text>(), 8);
    }

    #[test]
    fn the_stored_form_is_that_of_a_plain_text_and_a_plain_list() {
        let nodes = vec![NodeId(3), NodeId(1)];
        assert_eq!(types::encode(&Text::from("ann")), types::encode(&"ann".to_string()));
        assert_eq!(types::encode(&Nodes::from(nodes.clone())), types::encode(&nodes));
        assert_eq!(types::decode::<Nodes>(&types::encode(&nodes)).unwrap()[..], nodes);
    }
}
