//! Speed of the kernels at the shapes of SmolLM2-135M, for every instruction set of this CPU:
//! `cargo run --release -p kernels --example kernels [threads] [isa]`.
//!
//! Prints, for each product of one format, int8 (or f32) operations and bytes of weights a second by rows of input, then the
//! tokens a second of a whole forward pass of that model with made-up weights: 30 layers, Q4_1 body, Q8_0 head.

use kernels::{
    Activations, Arena, BlockRef, Cpu, Format, Gate, Isa, KvLayout, KvPool, Matrix, Pieces, Place, RopeStyle,
    RopeTable, Sequence,
};
use std::time::{Duration, Instant};

const HIDDEN: usize = 576;
const FFN: usize = 1536;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const KV: usize = KV_HEADS * HEAD_DIM;
const LAYERS: usize = 30;
const VOCAB: usize = 49_152;
/// A width near that of the model's which all formats have blocks for.
const WIDE: usize = 768;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |threads| threads.parse().expect("a number of threads"));
    let wanted = args.next();
    let quick = std::env::args().nth(3).is_some();
    for isa in Isa::available() {
        if wanted.as_ref().is_some_and(|wanted| *wanted != isa.to_string()) {
            continue;
        }
        let cpu = Cpu::new(isa, threads, |_| ());
        println!("{isa}, {threads} threads");
        products(&cpu);
        if quick {
            continue;
        }
        attention(&cpu);
        model(&cpu);
    }
}

/// Asks for huge pages, as an engine does.
#[cfg(target_os = "linux")]
fn huge_pages(bytes: &[u8]) {
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    const HUGE_PAGES: std::ffi::c_int = 14;
    let skip = bytes.as_ptr().align_offset(4096).min(bytes.len());
    let whole = &bytes[skip..];
    // SAFETY: advice on pages that the slice borrows; it changes no content. A refusal changes nothing at all.
    unsafe { madvise(whole.as_ptr().cast_mut().cast(), whole.len(), HUGE_PAGES) };
}

#[cfg(not(target_os = "linux"))]
fn huge_pages(_: &[u8]) {}

/// Where the half floats of a block lie: its scale, then the scale of its least values.
fn scales(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::BF16 => &[],
        Format::F16 | Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q6_K => &[208],
    }
}

/// Blocks with small scales and mixed values.
fn weights(arena: &mut Arena, format: Format, rows: usize, cols: usize) -> Matrix {
    let mut data = vec![0u8; rows * format.row_bytes(cols).expect("whole blocks")];
    for (index, block) in data.chunks_exact_mut(format.block_bytes()).enumerate() {
        for (at, byte) in block.iter_mut().enumerate() {
            *byte = (at * 73 + index * 31) as u8;
        }
        for (at, half) in scales(format).iter().zip([[0x00u8, 0x1c], [0x00, 0xa8]]) {
            block[*at..][..2].copy_from_slice(&half); // 2^-8, -2^-5
        }
        if matches!(format, Format::F32 | Format::BF16) {
            let number = (index as f32 % 17.0 - 8.0).to_le_bytes();
            block.copy_from_slice(&number[4 - format.block_bytes()..]);
        }
    }
    Matrix::from_gguf_in(arena, format, rows, cols, &data).expect("a sound shape")
}

fn inputs(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect()
}

/// Seconds of a call: the fastest tenth of calls took less, over at least a quarter of a second. The median would
/// tell more of the machine's other users than of the kernels.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_millis(250) || times.len() < 3 {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

fn products(cpu: &Cpu) {
    println!("  product              m     Gop/s    GB/s");
    let formats = Format::ALL.into_iter().map(|format| (format, FFN, WIDE));
    let large = [(Format::Q8_0, VOCAB, WIDE), (Format::Q6_K, VOCAB, WIDE), (Format::Q4_K, VOCAB, WIDE)];
    for (format, rows, cols) in formats.chain(large) {
        let bytes = Matrix::bytes_needed(format, rows, cols).expect("a sound shape");
        let matrix = weights(&mut Arena::new(bytes, huge_pages), format, rows, cols);
        for m in [1, 2, 3, 4, 8, 16, 32, 128] {
            if rows == VOCAB && m > 8 {
                continue;
            }
            let (x, mut out) = (inputs(m * cols), vec![0.0; m * rows]);
            let mut activations = Activations::new();
            cpu.prepare(&mut activations, &x, m, &[&matrix]);
            let time = seconds(|| cpu.matmul(&matrix, &activations, &mut out));
            let gops = (2 * m * rows * cols) as f64 / time / 1e9;
            let gbs = matrix.bytes() as f64 / time / 1e9;
            println!("  {format} {rows:5}x{cols:<5} {m:5} {gops:9.1} {gbs:7.1}");
        }
    }
}

fn attention(cpu: &Cpu) {
    println!("  attention (one layer)            us   Gflop/s");
    for (rows, context) in [(1, 512), (1, 2048), (8, 512), (128, 128), (128, 2048)] {
        let mut state = State::new(1, context);
        let first = context - rows.min(128);
        let table = &state.table;
        let (sequences, positions): (Vec<Sequence<'_>>, Vec<u32>) = if rows == 128 {
            (vec![Sequence { blocks: table, rows: 0..128 }], (first as u32..context as u32).collect())
        } else {
            let all = (0..rows).map(|row| Sequence { blocks: table, rows: row..row + 1 }).collect();
            (all, vec![context as u32 - 1; rows])
        };
        let (q, out) = (inputs(rows * HIDDEN), &mut vec![0.0; rows * HIDDEN]);
        let time = seconds(|| cpu.attention(&state.pool, 0, &sequences, &positions, 0.125, None, &q, out));
        let tokens: f64 = positions.iter().map(|&position| f64::from(position) + 1.0).sum();
        let flops = tokens * 4.0 * HIDDEN as f64 / time / 1e9;
        println!("  {rows:4} rows, context {context:5} {:9.1} {flops:9.1}", time * 1e6);
        state.table.clear();
    }
}

/// Keys and values of one sequence.
struct State {
    pool: KvPool,
    table: Vec<BlockRef>,
}

impl State {
    fn new(layers: usize, context: usize) -> State {
        let layout = KvLayout { layers, kv_heads: KV_HEADS, head_dim: HEAD_DIM };
        let blocks = context.div_ceil(16);
        let table = (0..blocks).map(|block| BlockRef { block: block as u32, mask: 0xffff }).collect();
        State { pool: KvPool::new(layout, blocks, huge_pages), table }
    }

    fn place(&self, position: u32) -> Place {
        Place { block: self.table[position as usize / 16].block, slot: (position % 16) as u8 }
    }
}

struct Layer {
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

fn model(cpu: &Cpu) {
    let mut arena = Arena::new(128 << 20, huge_pages);
    let layers: Vec<Layer> = (0..LAYERS)
        .map(|_| {
            let mut body = |rows, cols| weights(&mut arena, Format::Q4_1, rows, cols);
            Layer {
                q: body(HIDDEN, HIDDEN),
                k: body(KV, HIDDEN),
                v: body(KV, HIDDEN),
                o: body(HIDDEN, HIDDEN),
                gate: body(FFN, HIDDEN),
                up: body(FFN, HIDDEN),
                down: body(HIDDEN, FFN),
            }
        })
        .collect();
    let head = weights(&mut arena, Format::Q8_0, VOCAB, HIDDEN);
    let rope = RopeTable::new(RopeStyle::Interleaved, HEAD_DIM, 4096, 1e5, None);
    println!("  whole model                tok/s");
    for (m, context, what) in [
        (1, 128, "decode"),
        (1, 1024, "decode"),
        (8, 128, "decode"),
        (8, 1024, "decode"),
        (128, 128, "prefill"),
        (128, 512, "prefill"),
        (128, 2048, "prefill"),
    ] {
        let prefill = what == "prefill";
        // Decoding rows are sequences of their own, which here happen to share their blocks.
        let mut state = State::new(LAYERS, context);
        let positions: Vec<u32> = if prefill {
            (context as u32 - m as u32..context as u32).collect()
        } else {
            vec![context as u32 - 1; m]
        };
        let mut pass = Pass::new(m);
        let time = seconds(|| pass.forward(cpu, &layers, &head, &rope, &mut state, &positions, prefill));
        println!("  m = {m:3}, context {context:5} {:9.1}  ({what})", m as f64 / time);
    }
}

struct Pass {
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    logits: Vec<f32>,
    activations: Activations,
    inner: Activations,
    pieces: Pieces,
}

impl Pass {
    fn new(m: usize) -> Pass {
        Pass {
            x: inputs(m * HIDDEN),
            normed: vec![0.0; m * HIDDEN],
            q: vec![0.0; m * HIDDEN],
            k: vec![0.0; m * KV],
            v: vec![0.0; m * KV],
            mixed: vec![0.0; m * HIDDEN],
            logits: vec![0.0; m * VOCAB],
            activations: Activations::new(),
            inner: Activations::new(),
            pieces: Pieces::default(),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        cpu: &Cpu,
        layers: &[Layer],
        head: &Matrix,
        rope: &RopeTable,
        state: &mut State,
        positions: &[u32],
        prefill: bool,
    ) {
        let m = positions.len();
        let norm = [1.0; HIDDEN];
        let acts = &mut self.activations;
        let sequences: Vec<Sequence<'_>> = if prefill {
            vec![Sequence { blocks: &state.table, rows: 0..m }]
        } else {
            (0..m).map(|row| Sequence { blocks: &state.table, rows: row..row + 1 }).collect()
        };
        let places: Vec<Place> = positions.iter().map(|&position| state.place(position)).collect();
        self.x.copy_from_slice(&inputs(m * HIDDEN));
        for (index, layer) in layers.iter().enumerate() {
            cpu.rmsnorm(&self.x, &norm, 1e-5, &mut self.normed);
            cpu.prepare(acts, &self.normed, m, &[&layer.q]);
            cpu.matmul_many(
                &mut [(&layer.q, &mut self.q), (&layer.k, &mut self.k), (&layer.v, &mut self.v)],
                acts,
            );
            cpu.rope(rope, &mut self.q, positions);
            cpu.rope(rope, &mut self.k, positions);
            cpu.store_kv(&mut state.pool, index, &places, &self.k, &self.v);
            cpu.attention(&state.pool, index, &sequences, positions, 0.125, None, &self.q, &mut self.mixed);
            cpu.prepare(acts, &self.mixed, m, &[&layer.o]);
            cpu.matmul(&layer.o, acts, &mut self.normed);
            cpu.add(&mut self.x, &self.normed);
            cpu.rmsnorm(&self.x, &norm, 1e-5, &mut self.normed);
            cpu.prepare(acts, &self.normed, m, &[&layer.gate, &layer.up]);
            let matrices = [&layer.gate, &layer.up, &layer.down];
            cpu.gated(matrices, Gate::Silu, acts, &mut self.inner, &mut self.pieces);
            cpu.matmul(&layer.down, &self.inner, &mut self.normed);
            cpu.add(&mut self.x, &self.normed);
        }
        let last = if prefill { m - 1..m } else { 0..m };
        cpu.prepare(acts, &self.x[last.start * HIDDEN..], last.len(), &[head]);
        cpu.matmul(head, acts, &mut self.logits[..last.len() * VOCAB]);
    }
}
