//! A table whose hash is always right: every change goes through `insert`, `update` or `remove`, and each of them
//! moves the sum. So the state hash costs what changed, not what there is.

use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;
use std::ops::RangeBounds;
use types::Hash;

/// A sum of row hashes modulo 2^256: order does not matter, and a row can be taken out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    fn limbs(hash: Hash) -> [u64; 4] {
        std::array::from_fn(|i| {
            u64::from_le_bytes(hash.0[i * 8..i * 8 + 8].try_into().expect("a hash has four limbs of 8 bytes"))
        })
    }

    pub(crate) fn add(&mut self, hash: Hash) {
        self.plus(Sum(Self::limbs(hash)));
    }

    pub(crate) fn plus(&mut self, other: Sum) {
        let mut carry = false;
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            let (sum, over_a) = mine.overflowing_add(theirs);
            let (sum, over_b) = sum.overflowing_add(u64::from(carry));
            (*mine, carry) = (sum, over_a || over_b);
        }
    }

    pub(crate) fn subtract(&mut self, hash: Hash) {
        let mut borrow = false;
        for (mine, theirs) in self.0.iter_mut().zip(Self::limbs(hash)) {
            let (rest, under_a) = mine.overflowing_sub(theirs);
            let (rest, under_b) = rest.overflowing_sub(u64::from(borrow));
            (*mine, borrow) = (rest, under_a || under_b);
        }
    }

    pub(crate) fn hash(self) -> Hash {
        let mut bytes = [0; 32];
        for (place, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&limb.to_le_bytes());
        }
        Hash(bytes)
    }
}

/// `X` is what lies beside a row and is not part of it.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V, X = ()> {
    name: &'static str,
    /// Boxed: uids rise, and a tree that grows at its end is little more than half full. The holes cost a pointer
    /// each, and not a row.
    rows: BTreeMap<K, Box<Kept<V, X>>>,
    sum: Sum,
}

/// A row with the hash that is in the sum, so that taking it out needs no second encoding.
#[derive(Clone, Debug)]
struct Kept<V, X> {
    value: V,
    hash: Hash,
    beside: X,
}

impl<K: Ord + Encode<()>, V: Encode<()>, X: Default> Table<K, V, X> {
    pub(crate) fn new(name: &'static str) -> Self {
        Table { name, rows: BTreeMap::new(), sum: Sum::default() }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|kept| &kept.value)
    }

    /// What lies beside each row.
    pub(crate) fn beside(&self) -> impl Iterator<Item = (&K, &X)> {
        self.rows.iter().map(|(key, kept)| (key, &kept.beside))
    }

    pub(crate) fn beside_of(&self, key: &K) -> Option<&X> {
        self.rows.get(key).map(|kept| &kept.beside)
    }

    pub(crate) fn change_beside(&mut self, key: &K) -> Option<&mut X> {
        self.rows.get_mut(key).map(|kept| &mut kept.beside)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, kept)| (key, &kept.value))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.rows.keys()
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.rows.values().map(|kept| &kept.value)
    }

    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(range).map(|(key, kept)| (key, &kept.value))
    }

    /// Puts a row, in place of the one that had its key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let hash = self.hash_of(&key, &value);
        self.sum.add(hash);
        let kept = Kept { value, hash, beside: X::default() };
        if let Some(old) = self.rows.insert(key, Box::new(kept)) {
            self.sum.subtract(old.hash);
        }
    }

    /// Changes a row in place. `None` when there is no such row.
    pub(crate) fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let kept = self.rows.get_mut(key)?;
        let result = change(&mut kept.value);
        let hash = row_hash(self.name, key, &types::encode(&kept.value));
        self.sum.subtract(kept.hash);
        self.sum.add(hash);
        kept.hash = hash;
        Some(result)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let kept = self.rows.remove(key)?;
        self.sum.subtract(kept.hash);
        Some(kept.value)
    }

    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    /// The sum made again from every row, to check the one that was kept.
    pub(crate) fn recomputed(&self) -> Sum {
        let mut sum = Sum::default();
        for (key, value) in self.iter() {
            sum.add(self.hash_of(key, value));
        }
        sum
    }

    fn hash_of(&self, key: &K, value: &V) -> Hash {
        row_hash(self.name, key, &types::encode(value))
    }

    /// Writes `[name, [key, value, key, value, …]]`.
    pub(crate) fn write(&self, out: &mut Encoder<Vec<u8>>) {
        let written = (|| {
            out.array(2)?.str(self.name)?.array(self.rows.len() as u64 * 2)?;
            for (key, value) in self.iter() {
                out.encode(key)?.encode(value)?;
            }
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        written.expect("encoding to memory cannot fail");
    }

    /// Reads what [`Table::write`] wrote, into an empty table of the same name.
    pub(crate) fn read<'b>(&mut self, from: &mut Decoder<'b>) -> Result<(), minicbor::decode::Error>
    where
        K: Decode<'b, ()>,
        V: Decode<'b, ()>,
    {
        self.read_with(from, |_| {})
    }

    /// The same; every row is shown before it is put. What is done to it there must not show in its stored form.
    pub(crate) fn read_with<'b>(
        &mut self,
        from: &mut Decoder<'b>,
        mut show: impl FnMut(&mut V),
    ) -> Result<(), minicbor::decode::Error>
    where
        K: Decode<'b, ()>,
        V: Decode<'b, ()>,
    {
        for _ in 0..open(from, self.name)? {
            let key = from.decode()?;
            let mut value = from.decode()?;
            show(&mut value);
            self.insert(key, value);
        }
        Ok(())
    }
}

/// Reads the head of a table of this name: how many rows follow.
pub(crate) fn open(from: &mut Decoder<'_>, expected: &str) -> Result<u64, minicbor::decode::Error> {
    let shape = from.array()?;
    let name = from.str()?;
    if shape != Some(2) || name != expected {
        return Err(minicbor::decode::Error::message(format!("expected table {expected}, found {name}")));
    }
    let items =
        from.array()?.ok_or_else(|| minicbor::decode::Error::message("a table has a known length"))?;
    Ok(items / 2)
}

/// What a row adds to the sum; `value` as it is stored.
pub(crate) fn row_hash<K: Encode<()>>(name: &str, key: &K, value: &[u8]) -> Hash {
    Hash::of_parts(&[name.as_bytes(), &types::encode(key), value])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_follows_every_change() {
        let mut table: Table<u64, u64> = Table::new("t");
        let empty = table.sum();
        table.insert(1u64, 10u64);
        let one = table.sum();
        table.insert(2, 20);
        table.update(&1, |value| *value = 11);
        assert_eq!(table.sum(), table.recomputed());
        assert_ne!(table.sum(), one);
        table.update(&1, |value| *value = 10);
        table.remove(&2);
        assert_eq!(table.sum(), one);
        table.insert(1, 12);
        assert_eq!(table.sum(), table.recomputed());
        table.remove(&1);
        assert_eq!(table.sum(), empty);
    }

    #[test]
    fn sums_carry_over_limbs() {
        let mut sum = Sum::default();
        let big = Hash([0xff; 32]);
        sum.add(big);
        sum.add(big);
        sum.subtract(big);
        assert_eq!(sum.hash(), big);
        sum.add(Hash([1; 32]));
        sum.subtract(big);
        assert_eq!(sum.hash(), Hash([1; 32]));
    }

    #[test]
    fn tables_of_other_names_hash_differently() {
        let (mut a, mut b): (Table<u64, u64>, Table<u64, u64>) = (Table::new("a"), Table::new("b"));
        a.insert(1u64, 1u64);
        b.insert(1u64, 1u64);
        assert_ne!(a.sum(), b.sum());
    }
}
