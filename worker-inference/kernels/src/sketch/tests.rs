use super::*;
use crate::isa::Isa;
use crate::numbers::Numbers;

const COLS: usize = 256;
const ROWS: usize = 1000;

/// Rows of Q8_0 as in a file.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let block = |block: &[f32; BLOCK]| {
        let largest = block.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let scale = half::from_f32(largest / 127.0);
        let numbers =
            block.map(|value| (value / half::to_f32(scale)).round().clamp(-127.0, 127.0) as i8 as u8);
        [&scale.to_le_bytes()[..], &numbers].concat()
    };
    values.as_chunks::<BLOCK>().0.iter().flat_map(block).collect()
}

struct Case {
    matrix: Matrix,
    sketch: Sketch,
}

impl Case {
    fn new(format: Format, data: &[u8]) -> Case {
        let rows = data.len() / format.row_bytes(COLS).unwrap();
        let matrix = Matrix::from_gguf(format, rows, COLS, data).unwrap();
        Case { matrix, sketch: Sketch::of(format, rows, COLS, data, |_| ()).unwrap() }
    }

    /// All products, and what the sketch finds if it does.
    fn both(&self, cpu: &Cpu, x: &[f32]) -> (Vec<f32>, Option<Vec<f32>>) {
        let (m, mut activations) = (x.len() / COLS, Activations::new());
        cpu.prepare(&mut activations, x, m, &[&self.matrix]);
        let (mut all, mut found) = (vec![0.0; m * self.matrix.rows()], vec![0.0; m * self.matrix.rows()]);
        cpu.matmul(&self.matrix, &activations, &mut all);
        let is_found = cpu.matmul_largest(&self.matrix, &self.sketch, &activations, &mut found);
        (all, is_found.then_some(found))
    }
}

fn cpus() -> Vec<Cpu> {
    let threads = |isa| [1, 3].map(|threads| Cpu::new(isa, threads, |_| ()));
    Isa::available().into_iter().flat_map(threads).collect()
}

/// A row of input near a row of weights, so that there is a largest product.
fn near(weights: &[f32], row: usize, numbers: &mut Numbers) -> Vec<f32> {
    weights[row * COLS..][..COLS].iter().map(|weight| weight + numbers.weight()).collect()
}

#[test]
fn the_largest_product_is_found_with_its_bits_and_others_are_left_out() {
    let mut numbers = Numbers(1);
    let weights: Vec<f32> = (0..ROWS * COLS).map(|_| numbers.weight()).collect();
    let case = Case::new(Format::Q8_0, &q8_0(&weights));
    for m in [1, 2, 4] {
        for _ in 0..20 {
            let x: Vec<f32> =
                (0..m).flat_map(|_| near(&weights, numbers.next() as usize % ROWS, &mut numbers)).collect();
            for cpu in cpus() {
                let (all, found) = case.both(&cpu, &x);
                let found = found.expect("one row is far above the others");
                for (all, found) in all.chunks(ROWS).zip(found.chunks(ROWS)) {
                    let largest = cpu.argmax(all);
                    assert_eq!(cpu.argmax(found), largest);
                    assert_eq!(found[largest].to_bits(), all[largest].to_bits());
                    let left_out = found.iter().filter(|product| **product == f32::NEG_INFINITY).count();
                    assert!(left_out > ROWS / 2, "{left_out} of {ROWS}");
                    let kept = found.iter().zip(all).filter(|(found, _)| **found != f32::NEG_INFINITY);
                    kept.for_each(|(found, all)| assert_eq!(found.to_bits(), all.to_bits()));
                }
            }
        }
    }
}

/// Rows in pairs so close that their order is in what the sketch leaves out.
#[test]
fn where_the_sketch_is_wrong_the_answer_is_right() {
    let mut numbers = Numbers(2);
    let mut weights: Vec<f32> = (0..ROWS * COLS).map(|_| numbers.weight()).collect();
    for pair in weights.chunks_mut(2 * COLS) {
        let (first, second) = pair.split_at_mut(COLS);
        second.iter_mut().zip(first).for_each(|(second, first)| *second = *first + numbers.weight() / 50.0);
    }
    let case = Case::new(Format::Q8_0, &q8_0(&weights));
    let cpu = Cpu::new(Isa::pick(None).unwrap(), 2, |_| ());
    let mut wrong = 0;
    for _ in 0..200 {
        let x = near(&weights, numbers.next() as usize % ROWS, &mut numbers);
        let (all, found) = case.both(&cpu, &x);
        assert_eq!(cpu.argmax(&found.expect("one pair is far above the others")), cpu.argmax(&all));
        let mut activations = Activations::new();
        let mut sketched = vec![0.0; ROWS];
        cpu.prepare(&mut activations, &x, 1, &[&case.matrix]);
        cpu.matmul(&case.sketch.matrix, &activations, &mut sketched);
        wrong += usize::from(cpu.argmax(&sketched) != cpu.argmax(&all));
    }
    assert!(wrong > 20, "the sketch alone was wrong {wrong} times of 200: this proves nothing");
}

/// No product is further off than the sketch says, for inputs along what was left out, which are the worst there are.
#[test]
fn the_bound_holds_for_the_worst_input() {
    let mut numbers = Numbers(3);
    for format in [Format::Q8_0, Format::Q6_K] {
        let mut data: Vec<u8> =
            (0..64 * format.row_bytes(COLS).unwrap()).map(|_| numbers.next() as u8).collect();
        let scale_at = if format == Format::Q8_0 { 0 } else { 208 };
        for block in data.chunks_exact_mut(format.block_bytes()) {
            block[scale_at..][..2].copy_from_slice(&half::from_f32(numbers.weight() / 8.0).to_le_bytes());
        }
        let case = Case::new(format, &data);
        let cpu = Cpu::new(Isa::Scalar, 1, |_| ());
        let (mut whole, mut sketched) = (vec![0.0; COLS], vec![0.0; COLS]);
        let mut tightest = 0.0f64;
        for row in 0..64 {
            case.matrix.dequantize_row(row, &mut whole);
            case.sketch.matrix.dequantize_row(row, &mut sketched);
            let x: Vec<f32> = whole.iter().zip(&sketched).map(|(whole, sketched)| whole - sketched).collect();
            let mut activations = Activations::new();
            cpu.prepare(&mut activations, &x, 1, &[&case.matrix]);
            let (mut exact, mut rough) = (vec![0.0; 64], vec![0.0; 64]);
            cpu.matmul(&case.matrix, &activations, &mut exact);
            cpu.matmul(&case.sketch.matrix, &activations, &mut rough);
            for row in 0..64 {
                let off = (f64::from(exact[row]) - f64::from(rough[row])).abs();
                let bound = f64::from(case.sketch.off[row]) * f64::from(activations.length(0));
                assert!(off <= bound, "{format} row {row}: off by {off}, said {bound}");
                tightest = tightest.max(off / bound);
            }
        }
        assert!(tightest > 0.5, "{format}: the bound was never near ({tightest}), so this proves little");
    }
}

#[test]
fn equals_zeros_and_what_is_no_number_are_computed_in_full() {
    let cpu = Cpu::new(Isa::pick(None).unwrap(), 2, |_| ());
    let mut numbers = Numbers(4);
    let x: Vec<f32> = (0..COLS).map(|_| numbers.weight()).collect();
    let one: Vec<f32> = (0..COLS).map(|_| numbers.weight()).collect();
    assert_eq!(
        Case::new(Format::Q8_0, &q8_0(&one.repeat(ROWS))).both(&cpu, &x).1,
        None,
        "all rows are equal"
    );

    let weights: Vec<f32> = (0..ROWS * COLS).map(|_| numbers.weight()).collect();
    let mut data = q8_0(&weights);
    assert_eq!(Case::new(Format::Q8_0, &data).both(&cpu, &[0.0; COLS]).1, None, "all products are zero");
    let nothing = [f32::NAN; COLS];
    let (all, found) = Case::new(Format::Q8_0, &data).both(&cpu, &nothing);
    assert_eq!(found.map_or_else(|| cpu.argmax(&all), |found| cpu.argmax(&found)), cpu.argmax(&all));

    // A row whose scale is no number is looked at, and changes nothing.
    data[..2].copy_from_slice(&0x7e00u16.to_le_bytes());
    let near_500 = near(&weights, 500, &mut numbers);
    let (all, found) = Case::new(Format::Q8_0, &data).both(&cpu, &near_500);
    let found = found.expect("one group more is no reason to compute all");
    assert_eq!(cpu.argmax(&found), cpu.argmax(&all));
    assert!(found[0].is_nan() && all[0].is_nan());

    // So does one whose scale is infinite, or all are computed.
    data[..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    let (all, found) = Case::new(Format::Q8_0, &data).both(&cpu, &near_500);
    assert_eq!(found.map_or_else(|| cpu.argmax(&all), |found| cpu.argmax(&found)), cpu.argmax(&all));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    assert!(Sketch::of(Format::Q8_0, 2, 32, &[0; 67], |_| ()).is_err());
    assert!(Sketch::of(Format::F32, 1, 3, &[0; 12], |_| ()).is_err());
}
