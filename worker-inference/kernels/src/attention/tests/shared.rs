//! Batches whose sequences share blocks: what is computed together has the bits of each row alone.

use super::*;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }
}

impl Scene {
    /// Every block of a pool stored with keys and values of its own, and no table yet.
    fn of_blocks(layout: KvLayout, group: usize, blocks: usize) -> Scene {
        let all = vec![(0..blocks as u32).map(|block| BlockRef { block, mask: u16::MAX }).collect()];
        let pool = KvPool::new(layout, blocks, |_| ());
        let mut scene = Scene { layout, group, pool, tables: all, window: None };
        scene.store(0, blocks * 16);
        scene.tables.clear();
        scene
    }

    /// `forks` sequences of `shared + own` blocks, of which the first `shared` are the same.
    fn of_forks(forks: usize, shared: usize, own: usize) -> Scene {
        let mut scene = Scene::of_blocks(layout(3, 64), 3, shared + forks * own);
        for fork in 0..forks {
            let own = shared + fork * own..shared + (fork + 1) * own;
            let blocks = (0..shared).chain(own);
            scene.tables.push(blocks.map(|b| BlockRef { block: b as u32, mask: u16::MAX }).collect());
        }
        scene
    }

    /// A family of sequences: each begins as another one does, up to any block, and goes on by itself.
    fn of_family(random: &mut Random, sequences: usize, longest: usize) -> Scene {
        let (kv_heads, head_dim, group) = random.of(&[
            (1, 16, 1),
            (3, 64, 3),
            (1, 64, 7),
            (2, 32, 2),
            (1, 80, 14),
            (1, 128, 5),
            (1, 256, 4),
        ]);
        let mut scene = Scene::of_blocks(layout(kv_heads, head_dim), group, 4 * longest);
        scene.window = random.of(&[None, None, Some(1), Some(100), Some(256), Some(300)]);
        for index in 0..sequences {
            let mut table = match index {
                0 => Vec::new(),
                _ => scene.tables[random.below(index)].clone(),
            };
            table.truncate(random.below(longest));
            for _ in 0..1 + random.below(longest - table.len()) {
                let block = random.below(scene.pool.blocks()) as u32;
                let mask = random.of(&[0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0, 0x8001, 0x0ff0]);
                table.push(BlockRef { block, mask });
            }
            if random.once_in(4) {
                // One that leaves out what the others keep.
                let hole = random.below(table.len());
                table[hole].mask = random.below(1 << 16) as u16;
            }
            scene.tables.push(table);
        }
        scene
    }

    /// Each row of a batch alone, by the specification.
    fn alone(&self, batch: &[(usize, Range<usize>)]) -> Vec<Vec<u32>> {
        let rows =
            batch.iter().flat_map(|(sequence, rows)| rows.clone().map(|row| (*sequence, row..row + 1)));
        rows.flat_map(|row| self.attend(Isa::Scalar, 1, &[row])).collect()
    }

    fn assert_as_alone(&self, batch: &[(usize, Range<usize>)], what: &str) {
        let expected = self.alone(batch);
        for isa in Isa::available() {
            for threads in [1, 2, 5] {
                let found = self.attend(isa, threads, batch);
                assert_eq!(found, expected, "{what}, {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn families_of_sequences_are_as_each_alone() {
    for seed in 1..=30 {
        let mut random = Random(seed * 0x9e37_79b9);
        let (sequences, longest) = (1 + random.below(12), random.of(&[6, 20, 40]));
        let scene = Scene::of_family(&mut random, sequences, longest);
        let batch: Vec<(usize, Range<usize>)> = (0..sequences)
            .map(|sequence| {
                let end = 1 + random.below(scene.tables[sequence].len() * 16);
                let rows = if random.once_in(3) { 1 + random.below(20.min(end)) } else { 1 };
                (sequence, end - rows..end)
            })
            .collect();
        scene.assert_as_alone(&batch, &format!("seed {seed}"));
    }
}

#[test]
fn forks_are_as_copies_of_everything() {
    // Forks that part at the border of a cut, inside one, and after more than one.
    for shared in [16, 21, 32] {
        let mut scene = Scene::of_forks(6, shared, 3);
        for hole in [3, shared - 1] {
            scene.tables.iter_mut().for_each(|table| table[hole].mask = 0x7ff3);
        }
        let length = scene.tables[0].len() * 16;
        // A fork that still reads its prompt, and others that write.
        let batch: Vec<_> = (0..6)
            .map(|fork| (fork, length - if fork == 2 { 30 } else { 1 + fork }..length - fork))
            .collect();
        let together = scene.attend(Isa::available().into_iter().max().unwrap(), 2, &batch);
        scene.assert_as_alone(&batch, "forks");
        let mut copies = Scene::of_forks(6, 0, shared + 3);
        for fork in 0..6 {
            for index in 0..scene.tables[fork].len() {
                let (from, to) = (scene.tables[fork][index], &mut copies.tables[fork][index]);
                to.mask = from.mask;
                copies.pool.block_mut(to.block).copy_from_slice(scene.pool.block(from.block));
            }
        }
        for isa in Isa::available() {
            assert_eq!(copies.attend(isa, 2, &batch), together, "{isa}, {shared} blocks shared");
        }
    }
}

#[test]
fn batches_of_all_sizes_are_as_each_alone() {
    let scene = Scene::of_forks(32, 17, 2);
    let row = |fork: usize| (fork, 280 + fork % 24..281 + fork % 24);
    let expected = scene.alone(&(0..32).map(row).collect::<Vec<_>>());
    for isa in Isa::available() {
        for size in 1..=32 {
            let batch: Vec<_> = (32 - size..32).map(row).collect();
            assert_eq!(scene.attend(isa, 1 + size % 2, &batch), expected[32 - size..], "{isa}, {size} rows");
        }
    }
}

#[test]
fn chunks_of_a_prompt_beside_decoding_forks() {
    let scene = Scene::of_forks(4, 32, 34);
    let fastest = Isa::available().into_iter().max().unwrap();
    let length = scene.tables[0].len() * 16;
    let whole = scene.attend(fastest, 2, &[(0, 0..length)]);
    for chunk in [16, 64, 200, 512] {
        for start in (0..length).step_by(chunk) {
            let end = length.min(start + chunk);
            let batch = [(0, start..end), (1, 600..601), (2, end - 1..end), (3, 700..705)];
            let found = scene.attend(fastest, 2, &batch);
            assert_eq!(found[..end - start], whole[start..end], "chunk of {chunk} from {start}");
        }
    }
    let some = [0, 255, 256, 511, 512, 700, length - 1];
    for (position, row) in some.into_iter().zip(scene.alone(&some.map(|p| (0, p..p + 1)))) {
        assert_eq!(whole[position], row, "position {position}");
    }
}

#[test]
fn callers_at_the_same_time_take_turns() {
    let scene = Scene::of_forks(3, 16, 2);
    let cpu = Cpu::new(Isa::available().into_iter().max().unwrap(), 2, |_| ());
    let sequence = |fork: usize| [Sequence { blocks: &scene.tables[fork], rows: 0..1 }];
    let attend = |fork| {
        let (q, mut out) = (scene.query(fork, 280), vec![0.0; scene.row_len()]);
        cpu.attention(&scene.pool, 1, &sequence(fork), &[280], 0.125, None, &q, &mut out);
        out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|fork| scope.spawn(move || (fork, attend(fork)))).collect();
        for caller in callers {
            let (fork, found) = caller.join().expect("attention of one row");
            assert_eq!(found, scene.alone(&[(fork, 280..281)])[0], "fork {fork}");
        }
    });
}
