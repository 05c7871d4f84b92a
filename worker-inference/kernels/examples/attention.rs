//! Speed of attention at the shapes of SmolLM2-135M (9 query heads, 3 KV heads of 64 values, half-float KV):
//! `cargo run --release -p kernels --example attention [threads] [isa] [part of a case's name]`.
//!
//! Each case runs all 30 layers over cold keys and values, as a step of the model does. `Gflop/s` counts what the
//! rows see, shared or not; `GB/s` counts keys and values once for each block that is read.

use kernels::{BlockRef, Cpu, Isa, KvLayout, KvPool, Place, Sequence};
use std::time::{Duration, Instant};

const HEADS: usize = 9;
const LAYOUT: KvLayout = KvLayout { layers: 30, kv_heads: 3, head_dim: 64 };
const BLOCK: usize = 16;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |threads| threads.parse().expect("a number of threads"));
    let (wanted, case) = (args.next(), args.next().unwrap_or_default());
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
        if wanted.as_ref().is_some_and(|wanted| *wanted != isa.to_string()) {
            continue;
        }
        println!("{isa}, {threads} threads     ms a step   Gflop/s      GB/s");
        let cpu = Cpu::new(isa, threads, |_| ());
        let measure = |name: &str, batch, shared, own, rows| {
            if name.contains(&case) {
                measure(&cpu, name, batch, shared, own, rows);
            }
        };
        for (batch, shared, own) in
            [(1, 0, 512), (1, 0, 2000), (16, 0, 512), (16, 0, 2000), (16, 1536, 600), (16, 1500, 600)]
        {
            let name = format!("decode {batch:2} x ({shared} shared + {own})");
            measure(&name, batch, shared, own, 1);
        }
        measure("prefill of 512", 1, 0, 512, 512);
        measure("last 512 of 2048", 1, 0, 2048, 512);
        measure("prefill of 2048", 1, 0, 2048, 2048);
    }
}

/// `batch` sequences that share their first blocks, each with its last `rows` tokens as rows.
fn measure(cpu: &Cpu, name: &str, batch: usize, shared: usize, own: usize, rows: usize) {
    let length = shared + own;
    // A shared run ends with a whole block; what is left of it belongs to each sequence.
    let (common, blocks) = (shared / BLOCK, length.div_ceil(BLOCK));
    let pool_blocks = common + batch * (blocks - common);
    let mut pool = KvPool::new(LAYOUT, pool_blocks, huge_pages);
    fill(cpu, &mut pool);
    // Blocks of different sequences lie among each other, as they do in an engine that has run for a while.
    let tables: Vec<Vec<BlockRef>> = (0..batch)
        .map(|sequence| {
            let own = |index: usize| common + (index - common) * batch + sequence;
            let block = |index| if index < common { index } else { own(index) };
            (0..blocks).map(|index| BlockRef { block: block(index) as u32, mask: 0xffff }).collect()
        })
        .collect();
    let sequences: Vec<Sequence<'_>> = tables
        .iter()
        .enumerate()
        .map(|(index, blocks)| Sequence { blocks, rows: index * rows..(index + 1) * rows })
        .collect();
    let positions: Vec<u32> = (0..batch).flat_map(|_| length as u32 - rows as u32..length as u32).collect();
    let width = HEADS * LAYOUT.head_dim;
    let q: Vec<f32> = noise(positions.len() * width);
    let mut out = vec![0.0; q.len()];
    let time = fastest(LAYOUT.layers, cpu.threads() == 1, |layer| {
        cpu.attention(&pool, layer, &sequences, &positions, 0.125, None, &q, &mut out);
    });
    let seen: f64 = positions.iter().map(|&position| f64::from(position) + 1.0).sum();
    let flops = seen * (4 * width * LAYOUT.layers) as f64;
    let bytes = (pool_blocks * LAYOUT.block_bytes()) as f64;
    println!("  {name:30} {:9.2} {:9.1} {:9.1}", time * 1e3, flops / time / 1e9, bytes / time / 1e9);
}

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect()
}

fn fill(cpu: &Cpu, pool: &mut KvPool) {
    let values = noise(BLOCK * LAYOUT.kv_heads * LAYOUT.head_dim);
    for block in 0..pool.blocks() as u32 {
        let places: Vec<Place> = (0..BLOCK).map(|slot| Place { block, slot: slot as u8 }).collect();
        for layer in 0..LAYOUT.layers {
            cpu.store_kv(pool, layer, &places, &values, &values);
        }
    }
}

/// Seconds of all layers, each the fastest of many calls: whatever else the machine does only adds. `alone` counts
/// the time of this thread only, which other programs disturb less.
fn fastest(layers: usize, alone: bool, mut call: impl FnMut(usize)) -> f64 {
    let mut best = vec![f64::INFINITY; layers];
    let (start, mut passes) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(1500) || passes < 3 {
        for (layer, best) in best.iter_mut().enumerate() {
            let before = now(alone);
            call(layer);
            *best = best.min(now(alone) - before);
        }
        passes += 1;
    }
    best.iter().sum()
}

/// Seconds since some moment; with `alone`, only those in which this thread ran.
#[cfg(target_os = "linux")]
fn now(alone: bool) -> f64 {
    unsafe extern "C" {
        fn clock_gettime(clock: std::ffi::c_int, time: *mut [i64; 2]) -> std::ffi::c_int;
    }
    const MONOTONIC: std::ffi::c_int = 1;
    const THREAD_CPU: std::ffi::c_int = 3;
    let mut time = [0; 2];
    // SAFETY: `timespec` is two 64-bit numbers on the 64-bit machines that this is for.
    unsafe { clock_gettime(if alone { THREAD_CPU } else { MONOTONIC }, &mut time) };
    time[0] as f64 + time[1] as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn now(_: bool) -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
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
