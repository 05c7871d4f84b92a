use super::*;
use crate::isa::Isa;
use crate::kv::{KvLayout, Place};
use crate::{half, kv};

mod mass;
mod plan;
mod shared;

/// A batch over one pool: what the tests vary is how it is computed.
struct Scene {
    layout: KvLayout,
    group: usize,
    pool: KvPool,
    /// Table of each sequence.
    tables: Vec<Vec<BlockRef>>,
    window: Option<usize>,
}

fn noise(seed: usize, index: usize) -> f32 {
    let mixed = (index as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((seed as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

fn random(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|index| noise(seed, index) * 2.0).collect()
}

impl Scene {
    /// Sequences of these lengths, blocks of different sequences in turn, all tokens stored.
    fn new(layout: KvLayout, group: usize, lengths: &[usize]) -> Scene {
        let blocks: usize = lengths.iter().map(|length| length.div_ceil(16)).sum();
        let mut pool = KvPool::new(layout, blocks, |_| ());
        // What nobody stored must never count: it is not even a number.
        (0..blocks).for_each(|block| pool.block_mut(block as u32).fill(0xff));
        let mut free = (0..blocks as u32).rev();
        let mut tables: Vec<Vec<BlockRef>> = lengths.iter().map(|_| Vec::new()).collect();
        for index in 0..lengths.iter().max().unwrap().div_ceil(16) {
            for (table, length) in tables.iter_mut().zip(lengths) {
                if index * 16 < *length {
                    let mask = ((1u32 << (length - index * 16).min(16)) - 1) as u16;
                    table.push(BlockRef { block: free.next().unwrap(), mask });
                }
            }
        }
        let mut scene = Scene { layout, group, pool, tables, window: None };
        for (sequence, &length) in lengths.iter().enumerate() {
            scene.store(sequence, length);
        }
        scene
    }

    fn store(&mut self, sequence: usize, length: usize) {
        let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
        let row = self.layout.kv_heads * self.layout.head_dim;
        let places: Vec<Place> = (0..length)
            .map(|token| Place { block: self.tables[sequence][token / 16].block, slot: (token % 16) as u8 })
            .collect();
        for layer in 0..self.layout.layers {
            let k = random(length * row, sequence * 10 + layer);
            let v = random(length * row, sequence * 10 + layer + 5);
            cpu.store_kv(&mut self.pool, layer, &places, &k, &v);
        }
    }

    fn row_len(&self) -> usize {
        self.group * self.layout.kv_heads * self.layout.head_dim
    }

    /// The query of a position of a sequence: the same in whatever batch it comes.
    fn query(&self, sequence: usize, position: usize) -> Vec<f32> {
        random(self.row_len(), 1000 + sequence * 5000 + position)
    }

    /// Attention of layer 1 for (sequence, positions) pairs in one batch; bits of each row.
    fn attend(&self, isa: Isa, threads: usize, batch: &[(usize, Range<usize>)]) -> Vec<Vec<u32>> {
        let (mut q, mut positions, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, range) in batch {
            let start = positions.len();
            for position in range.clone() {
                q.extend(self.query(*sequence, position));
                positions.push(position as u32);
            }
            sequences.push(Sequence { blocks: &self.tables[*sequence], rows: start..positions.len() });
        }
        let mut out = vec![f32::NAN; q.len()];
        let cpu = Cpu::new(isa, threads, |_| ());
        cpu.attention(&self.pool, 1, &sequences, &positions, 0.125, self.window, &q, &mut out);
        out.chunks(self.row_len()).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect()
    }

    /// The textbook, in f64.
    fn truth(&self, sequence: usize, position: usize) -> Vec<f64> {
        let dim = self.layout.head_dim;
        let q = self.query(sequence, position);
        let table = &self.tables[sequence];
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let tokens: Vec<usize> =
            (first..=position).filter(|t| table[t / 16].mask >> (t % 16) & 1 == 1).collect();
        let mut out = Vec::new();
        for (head, q) in q.chunks(dim).enumerate() {
            let part = |token: usize| self.pool.head(1, table[token / 16].block, head / self.group);
            let key = |t: usize, d: usize| f64::from(half::to_f32(part(t).0[d * 16 + t % 16]));
            let value = |t: usize, d: usize| f64::from(half::to_f32(part(t).1[t % 16 * dim + d]));
            let score = |t: usize| (0..dim).map(|d| f64::from(q[d]) * key(t, d)).sum::<f64>() * 0.125;
            let powers: Vec<f64> = tokens.iter().map(|&t| score(t).exp()).collect();
            let sum: f64 = powers.iter().sum();
            out.extend(
                (0..dim)
                    .map(|d| tokens.iter().zip(&powers).map(|(&t, p)| p * value(t, d)).sum::<f64>() / sum),
            );
        }
        out
    }
}

fn layout(kv_heads: usize, head_dim: usize) -> KvLayout {
    KvLayout { layers: 2, kv_heads, head_dim }
}

fn assert_close(found: &[u32], truth: &[f64], what: &str) {
    for (found, truth) in found.iter().zip(truth) {
        let found = f64::from(f32::from_bits(*found));
        assert!((found - truth).abs() < 1e-5, "{what}: {found}, truth {truth}");
    }
}

#[test]
fn close_to_the_textbook_at_the_borders_of_cuts() {
    let scene = Scene::new(layout(2, 32), 3, &[530]);
    for position in [0, 1, 15, 16, 17, 100, 254, 255, 256, 257, 511, 512, 513, 529] {
        let found = scene.attend(Isa::Scalar, 1, &[(0, position..position + 1)]);
        assert_close(&found[0], &scene.truth(0, position), &format!("position {position}"));
    }
}

#[test]
fn any_chunking_on_any_path_gives_the_same_bits() {
    for (kv_heads, head_dim, group) in [(1, 16, 1), (3, 64, 3), (2, 80, 2), (1, 128, 5), (1, 256, 4)] {
        let scene = Scene::new(layout(kv_heads, head_dim), group, &[515]);
        let chosen: Vec<usize> =
            (0..515).filter(|p| p % 37 == 0 || [255, 256, 257, 511, 512, 513].contains(p)).collect();
        let expected: Vec<Vec<u32>> =
            chosen.iter().map(|&p| scene.attend(Isa::Scalar, 1, &[(0, p..p + 1)]).remove(0)).collect();
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
            for chunk in [1, 7, 32, 515] {
                let mut rows = Vec::new();
                for start in (0..515).step_by(chunk) {
                    rows.extend(scene.attend(isa, 1 + chunk % 2, &[(0, start..515.min(start + chunk))]));
                }
                for (position, expected) in chosen.iter().zip(&expected) {
                    assert_eq!(
                        &rows[*position], expected,
                        "{isa}, chunks of {chunk}, position {position}, dim {head_dim}"
                    );
                }
            }
        }
    }
}

#[test]
fn all_short_lengths() {
    let scene = Scene::new(layout(1, 16), 2, &[70]);
    let expected = scene.attend(Isa::Scalar, 1, &[(0, 0..70)]);
    for isa in Isa::available() {
        for (position, expected) in expected.iter().enumerate() {
            let found = scene.attend(isa, 1, &[(0, position..position + 1)]);
            assert_eq!(found[0], *expected, "{isa} {position}");
        }
    }
    assert_close(&expected[69], &scene.truth(0, 69), "all short lengths");
}

#[test]
fn a_batch_of_sequences_is_as_each_alone() {
    let lengths = [300, 16, 1, 257, 64, 33, 500, 8];
    let scene = Scene::new(layout(3, 64), 3, &lengths);
    let batch: Vec<(usize, Range<usize>)> = lengths
        .iter()
        .enumerate()
        .map(|(i, length)| (i, length - (i % 3 * 9 + 1).min(*length)..*length))
        .collect();
    let alone: Vec<Vec<u32>> =
        batch.iter().flat_map(|one| scene.attend(Isa::Scalar, 1, std::slice::from_ref(one))).collect();
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            assert_eq!(scene.attend(isa, threads, &batch), alone, "{isa}, {threads} threads");
        }
    }
}

#[test]
fn tokens_left_out_do_not_exist() {
    let mut scene = Scene::new(layout(2, 32), 2, &[600]);
    // A whole cut, a whole block, single tokens, and the end of one block.
    for (index, entry) in scene.tables[0].iter_mut().enumerate() {
        entry.mask = match index {
            16..32 | 3 => 0,
            5 => 0b0101_1111_0000_0001,
            9 => 0x00ff,
            _ => entry.mask,
        };
    }
    for index in (16..32).chain([3]) {
        // An absent block needs no place, and what lies in a masked token is never read.
        scene.pool.block_mut(scene.tables[0][index].block).fill(0xff);
        scene.tables[0][index].block = u32::MAX;
    }
    let chosen = [0, 47, 48, 63, 80, 81, 95, 152, 159, 255, 256, 400, 511, 512, 599];
    let everything = scene.attend(Isa::available().into_iter().max().unwrap(), 2, &[(0, 0..600)]);
    for position in chosen {
        let expected = scene.attend(Isa::Scalar, 1, &[(0, position..position + 1)]).remove(0);
        assert_eq!(everything[position], expected, "position {position}");
        assert_close(&expected, &scene.truth(0, position), &format!("position {position}"));
    }
}

#[test]
fn a_window_hides_what_is_far_behind() {
    let mut scene = Scene::new(layout(2, 32), 2, &[700]);
    scene.tables[0][20].mask = 0x0ff0;
    for window in [1, 2, 15, 16, 17, 100, 255, 256, 257, 512, 699, 700, 5000] {
        scene.window = Some(window);
        let everything = scene.attend(Isa::available().into_iter().max().unwrap(), 2, &[(0, 0..700)]);
        for position in [0, 1, 16, 99, 255, 256, 300, 320, 322, 400, 511, 512, 699] {
            let expected = scene.attend(Isa::Scalar, 1, &[(0, position..position + 1)]).remove(0);
            for isa in Isa::available() {
                let found = scene.attend(isa, 1, &[(0, position..position + 1)]).remove(0);
                assert_eq!(found, expected, "{isa}, window {window}, position {position}");
            }
            assert_eq!(everything[position], expected, "window {window}, position {position}");
            if window > 2 || !(320..340).contains(&position) {
                let what = format!("window {window}, position {position}");
                assert_close(&expected, &scene.truth(0, position), &what);
            }
        }
    }
}

#[test]
fn a_window_as_long_as_the_table_changes_nothing() {
    let mut scene = Scene::new(layout(1, 64), 3, &[400]);
    let all = scene.attend(Isa::Scalar, 1, &[(0, 390..400)]);
    scene.window = Some(400);
    assert_eq!(scene.attend(Isa::Scalar, 1, &[(0, 390..400)]), all);
}

#[test]
#[should_panic(expected = "a window of 0 tokens")]
fn a_window_of_nothing_is_refused() {
    let mut scene = Scene::new(layout(1, 16), 1, &[32]);
    scene.window = Some(0);
    scene.attend(Isa::Scalar, 1, &[(0, 0..32)]);
}

#[test]
fn a_row_that_sees_nothing_is_zero() {
    let mut scene = Scene::new(layout(1, 16), 1, &[20]);
    scene.tables[0][0].mask = 0;
    for isa in Isa::available() {
        let rows = scene.attend(isa, 1, &[(0, 14..18)]);
        assert!(rows[0].iter().chain(&rows[1]).all(|&bits| bits == 0), "{isa}");
        assert!(rows[2].iter().any(|&bits| bits != 0), "{isa}");
    }
}

#[test]
fn infinite_values_of_later_tokens_stay_there() {
    let mut scene = Scene::new(layout(1, 16), 2, &[40]);
    let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
    let place = kv::Place { block: scene.tables[0][1].block, slot: 9 };
    cpu.store_kv(&mut scene.pool, 1, &[place], &[1.0; 16], &[f32::INFINITY; 16]);
    for isa in Isa::available() {
        let rows = scene.attend(isa, 1, &[(0, 20..32)]);
        assert!(rows[..5].iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()), "{isa}");
        assert_eq!(rows, scene.attend(Isa::Scalar, 1, &[(0, 20..32)]));
    }
}

#[test]
#[should_panic(expected = "position 32 in a table of 32 tokens")]
fn a_row_past_its_table_is_refused() {
    let scene = Scene::new(layout(1, 16), 1, &[32]);
    scene.attend(Isa::Scalar, 1, &[(0, 32..33)]);
}

#[test]
#[should_panic(expected = "block 7 of 2")]
fn a_block_outside_the_pool_is_refused() {
    let mut scene = Scene::new(layout(1, 16), 1, &[32]);
    scene.tables[0][1].block = 7;
    scene.attend(Isa::Scalar, 1, &[(0, 0..32)]);
}

/// Looking twice, at a part each time, and joining what was seen is looking once at all.
#[test]
fn what_is_seen_in_two_looks_is_joined() {
    let scene = Scene::new(layout(2, 64), 3, &[600]);
    let whole = scene.attend(Isa::Scalar, 1, &[(0, 590..600)]);
    for isa in Isa::available() {
        for split in [1, 16, 37, 256, 580] {
            let (mut front, mut back) = (scene.tables[0].clone(), scene.tables[0].clone());
            for token in 0..front.len() * 16 {
                let table = if token < split { &mut back } else { &mut front };
                table[token / 16].mask &= !(1 << (token % 16));
            }
            let positions: Vec<u32> = (590..600).collect();
            let q: Vec<f32> = (590..600).flat_map(|position| scene.query(0, position)).collect();
            let cpu = Cpu::new(isa, 2, |_| ());
            let look = |blocks: &[BlockRef]| {
                let (mut out, mut weights) = (vec![f32::NAN; q.len()], vec![Weight::NOTHING; q.len() / 64]);
                let sequences = [Sequence { blocks, rows: 0..10 }];
                let pool = &scene.pool;
                cpu.attention_and_weights(
                    pool,
                    1,
                    &sequences,
                    &positions,
                    0.125,
                    None,
                    &q,
                    &mut out,
                    &mut weights,
                );
                (out, weights)
            };
            let ((mut out, mut weights), (more, more_weights)) = (look(&back), look(&front));
            join_seen(&mut out, &mut weights, &more, &more_weights);
            let nothing = vec![Weight::NOTHING; weights.len()];
            let once = out.clone();
            join_seen(&mut out, &mut weights, &more, &nothing);
            assert_eq!(out, once, "nothing adds nothing");
            for (row, whole) in out.chunks(scene.row_len()).zip(&whole) {
                let whole: Vec<f64> = whole.iter().map(|x| f64::from(f32::from_bits(*x))).collect();
                let row: Vec<u32> = row.iter().map(|x| x.to_bits()).collect();
                assert_close(&row, &whole, &format!("{isa:?}, split at {split}"));
            }
        }
    }
}
