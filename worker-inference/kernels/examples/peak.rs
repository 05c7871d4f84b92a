//! The machine's int8 peak now, for every instruction set of this CPU:
//! `cargo run --release -p kernels --example peak [threads] [seconds]`. To be printed beside figures of any program.

use kernels::{Cpu, Isa};
use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |threads| threads.parse().expect("a number of threads"));
    let seconds = args.next().map_or(0.5, |seconds| seconds.parse().expect("a number of seconds"));
    for isa in Isa::available() {
        let peak = Cpu::new(isa, threads, |_| ()).peak(Duration::from_secs_f64(seconds));
        println!("{isa:<8} {threads} threads {peak:>8.1} GOP/s");
    }
}
