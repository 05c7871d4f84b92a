//! Forgetting leaves no hit and no byte: not in the index, not in its stored form, not in freed memory.

use memory::{Encode, How, Index};

use crate::harness::{Letters, Node};

const SECRET: &str = "the vault opens with zanzibarquartz";

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

fn floats(text: &str) -> Vec<u8> {
    let row = Letters.question(text);
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter().flat_map(|value| (value / length).to_le_bytes()).collect()
}

#[test]
fn no_hit_and_no_byte_is_left() {
    let mut node = Node::default();
    node.remember("the bakery opens at seven", &[]);
    let before = node.bytes();
    let item = node.remember(SECRET, &["ultraviolettag"]);
    let with = node.bytes();
    for part in [&b"zanzibarquartz"[..], b"ultraviolettag", &item.0, &floats(SECRET)] {
        assert!(holds(&with, part), "the scan finds what is there");
    }
    let change = node.forget(item);
    assert_eq!(change.erased.len(), 2, "the item and its note");
    let after = node.bytes();
    for part in [&b"zanzibar"[..], b"quartz", b"ultraviolet", &item.0, &floats(SECRET)] {
        assert!(!holds(&after, part));
    }
    for how in [How::Words, How::Vectors, How::Both] {
        assert!(node.texts_found("zanzibarquartz vault ultraviolettag", how).len() <= 1);
    }
    // The stored form is that of a memory that never knew it, but for the chain's head.
    let (_, index) = Index::from_bytes(&after, Some(Letters.id())).unwrap();
    let (shelf, never) = Index::from_bytes(&before, Some(Letters.id())).unwrap();
    assert_eq!(index.to_bytes(&shelf), never.to_bytes(&shelf));
}

#[test]
fn what_was_made_from_it_goes_with_it() {
    let mut node = Node::default();
    let secret = node.remember(SECRET, &[]);
    let plain = node.remember("the bakery opens at seven", &[]);
    let summary = node.summarise("openings: seven, and zanzibarquartz", &[secret, plain]);
    let second = node.summarise("all openings: zanzibarquartz", &[summary]);
    let change = node.forget(secret);
    assert_eq!(change.erased.len(), 3);
    assert!([secret, summary, second].iter().all(|gone| change.erased.contains(gone)));
    assert_eq!(node.texts_found("openings", How::Words), ["the bakery opens at seven"], "found again");
    assert!(!holds(&node.bytes(), b"zanzibar"));
}

/// Looks through all memory of this process that can be written. The needles are never there in plain: they are
/// compared through a mask.
#[cfg(target_os = "linux")]
mod in_this_process {
    use std::io::{Read, Seek, SeekFrom};

    use super::*;
    use memory::{Item, Note};
    use types::Hash;
    use zeroize::Zeroizing;

    const MASK: u8 = 0x5a;
    const PART: usize = 1 << 20;

    fn masked(plain: &[u8]) -> Vec<u8> {
        plain.iter().map(|byte| byte ^ MASK).collect()
    }

    /// How often the masked needle is in memory.
    fn count(needle: &[u8]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut file = std::fs::File::open("/proc/self/mem").unwrap();
        let mut buffer = Zeroizing::new(vec![0u8; PART + needle.len()]);
        let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
            for at in (from..to).step_by(PART) {
                let wanted = buffer.len().min((to - at) as usize);
                let there = file.seek(SeekFrom::Start(at)).is_ok();
                let read = if there { file.read(&mut buffer[..wanted]).unwrap_or(0) } else { 0 };
                let starts = read.saturating_sub(needle.len() - 1).min(PART);
                let is_own = |place: usize| own.contains(&(at + place as u64));
                let hit = |place: &usize| {
                    !is_own(*place)
                        && buffer[*place..].iter().zip(needle).all(|(byte, masked)| byte ^ MASK == *masked)
                };
                found += (0..starts).filter(hit).count();
            }
        }
        found
    }

    /// A word that is nowhere in the program, from the masked bytes of which it is made.
    fn word(seed: u8) -> (Zeroizing<String>, Vec<u8>) {
        let letters = (0..24u8).map(|n| b'a' + (n.wrapping_mul(7).wrapping_add(seed) ^ seed) % 26);
        // With an ending that is cut off.
        let mut plain = Zeroizing::new(String::with_capacity(64));
        plain.extend(letters.map(char::from));
        let needle = masked(plain.as_bytes());
        plain.push_str("izations");
        (plain, needle)
    }

    #[test]
    fn no_byte_is_left_in_memory() {
        let mut index = Index::new(Some(&Letters));
        let add = |index: &mut Index, n: u64, text: &str, tag: &str| {
            let hash = Hash::of(&n.to_le_bytes());
            let mut note = Note::new(hash, n, "", [tag.to_string()]);
            index.add(&Item { hash, n, text, note: Some(&note) });
            let mut rows = Letters.passages(text);
            index.add_vectors(&hash, &rows);
            rows.iter_mut().for_each(zeroize::Zeroize::zeroize);
            note.tags.iter_mut().for_each(zeroize::Zeroize::zeroize);
            hash
        };
        for n in 0..200 {
            add(&mut index, n, "some other words", "plain");
        }
        let ((secret, needle), (tag, tag_needle)) = (word(3), word(11));
        let mut row = floats(&secret);
        let row_needle = masked(&row);
        zeroize::Zeroize::zeroize(&mut row);
        let hash = add(&mut index, 1000, &secret, &tag);
        for n in 201..900 {
            add(&mut index, n, "more other words that make everything move", "plain");
        }
        assert!(count(&needle) > 0 && count(&tag_needle) > 0 && count(&row_needle) > 0, "the scan works");
        index.forget(&hash);
        drop((secret, tag));
        assert_eq!((count(&needle), count(&tag_needle), count(&row_needle)), (0, 0, 0));
        assert_eq!(index.coverage().items, 899);
    }
}
