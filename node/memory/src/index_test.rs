//! How two scores become one.

use super::*;

fn scored(slot: Slot, words: f64, cosine: Option<f32>) -> Scored {
    Scored { slot, words, cosine, score: 0.0 }
}

#[test]
fn lists_are_merged_by_slots() {
    let merged = merge(vec![(1, 2.0), (4, 1.0)], vec![(0, 0.5), (1, 0.25), (7, 0.125)]);
    let parts: Vec<_> = merged.iter().map(|it| (it.slot, it.words, it.cosine)).collect();
    let expected = [(0, 0.0, Some(0.5)), (1, 2.0, Some(0.25)), (4, 1.0, None), (7, 0.0, Some(0.125))];
    assert_eq!(parts, expected);
}

#[test]
fn the_best_words_count_as_one_and_opposites_as_nothing() {
    let mut all = [scored(0, 8.0, Some(0.5)), scored(1, 4.0, Some(-0.5)), scored(2, 0.0, Some(1.0))];
    weigh(&mut all);
    assert_eq!(all.map(|it| it.score), [0.4 + 0.6 * 0.5, 0.2, 0.6]);
    let mut none = [scored(0, 0.0, None)];
    weigh(&mut none);
    assert_eq!(none[0].score, 0.0);
}
