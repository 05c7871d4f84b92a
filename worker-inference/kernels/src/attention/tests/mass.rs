//! The shares of attention against the textbook, and in the same bits on every path.

use super::*;

const SEGMENTS: [Range<usize>; 5] = [0..1, 1..40, 40..40, 40..261, 261..300];

/// Shares of some rows of sequence 0 in layer 1.
fn masses(
    scene: &Scene,
    isa: Isa,
    threads: usize,
    rows: Range<usize>,
    segments: &[Range<usize>],
) -> Vec<f64> {
    // A row of somebody else in front.
    let positions: Vec<u32> = std::iter::once(0).chain(rows.clone().map(|row| row as u32)).collect();
    let mut q = random(scene.row_len(), 1);
    rows.clone().for_each(|row| q.extend(scene.query(0, row)));
    let sequence = Sequence { blocks: &scene.tables[0], rows: 1..positions.len() };
    let mut mass = vec![0.0; rows.len() * segments.len()];
    let cpu = Cpu::new(isa, threads, |_| ());
    let (pool, window) = (&scene.pool, scene.window);
    cpu.attention_mass(pool, 1, &sequence, &positions, 0.125, window, &q, segments, &mut mass);
    mass
}

/// The textbook, in f64.
fn truth(scene: &Scene, position: usize, segments: &[Range<usize>]) -> Vec<f64> {
    let (dim, table, q) = (scene.layout.head_dim, &scene.tables[0], scene.query(0, position));
    let first = scene.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let seen = |t: usize| (first..=position).contains(&t) && table[t / 16].mask >> (t % 16) & 1 == 1;
    let mut shares = vec![0.0; segments.len()];
    for (head, q) in q.chunks(dim).enumerate() {
        let power = |t: usize| {
            let keys = scene.pool.head(1, table[t / 16].block, head / scene.group).0;
            let dot: f64 =
                (0..dim).map(|d| f64::from(q[d]) * f64::from(half::to_f32(keys[d * 16 + t % 16]))).sum();
            if seen(t) { (dot * 0.125).exp() } else { 0.0 }
        };
        let sum: f64 = (0..=position).map(power).sum();
        for (share, segment) in shares.iter_mut().zip(segments) {
            *share += segment.clone().filter(|&t| t <= position).map(power).sum::<f64>() / sum;
        }
    }
    shares
}

#[test]
fn shares_are_those_of_the_textbook_and_the_same_bits_everywhere() {
    for (window, hidden) in [(None, 0), (Some(50), 0), (None, 0b1010_1000_0001)] {
        let mut scene = Scene::new(layout(2, 48), 3, &[300]);
        scene.window = window;
        scene.tables[0][4].mask &= !hidden;
        let rows = 290..300;
        let expected = masses(&scene, Isa::Scalar, 1, rows.clone(), &SEGMENTS);
        for (found, row) in expected.chunks(SEGMENTS.len()).zip(rows.clone()) {
            for (found, truth) in found.iter().zip(truth(&scene, row, &SEGMENTS)) {
                assert!((found - truth).abs() < 1e-5, "row {row}: {found}, truth {truth}");
            }
            assert!((found.iter().sum::<f64>() - 6.0).abs() < 1e-5, "all shares of 6 heads");
        }
        for isa in Isa::available() {
            for threads in [1, 3] {
                assert_eq!(masses(&scene, isa, threads, rows.clone(), &SEGMENTS), expected, "{isa}");
            }
        }
        assert_eq!(masses(&scene, Isa::Scalar, 1, 295..296, &SEGMENTS), expected[25..30], "alone");
    }
}

#[test]
fn it_adds_to_what_is_there_and_sees_nothing_past_its_row() {
    let scene = Scene::new(layout(1, 16), 2, &[64]);
    let found = masses(&scene, Isa::Scalar, 1, 20..21, &[0..21, 21..64]);
    assert!((found[0] - 2.0).abs() < 1e-6 && found[1] == 0.0, "{found:?}");
}
