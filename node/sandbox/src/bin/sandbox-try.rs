//! The sandbox by hand, and what tests of this crate start: `sandbox-try check`, `sandbox-try run FOLDER TEXT`.
//! The node's program has `quorate sandbox check`.

use sandbox::{Ended, Report, Sandbox, Spec, shown};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = sandbox::stage(std::env::args().skip(1)) {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(&Sandbox::ours().probe()),
        ["run", folder, text] => run(Spec::shell(text, Path::new(folder))),
        _ => {
            eprintln!("sandbox-try check | sandbox-try run FOLDER TEXT");
            ExitCode::from(2)
        }
    }
}

fn check(report: &Report) -> ExitCode {
    for layer in &report.layers {
        println!("{layer}");
    }
    if let Some(why) = &report.broken {
        println!("{why}");
    }
    println!("level: {}", report.level());
    ExitCode::SUCCESS
}

fn run(spec: Spec) -> ExitCode {
    match Sandbox::ours().run(spec) {
        Ok(ended) => told(&ended),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn told(ended: &Ended) -> ExitCode {
    print!("{}", shown(&ended.stdout));
    eprint!("{}", shown(&ended.stderr));
    let Ended { status, why, cut_bytes, used, changed, refused, .. } = ended;
    eprintln!("{why:?} {status:?}, cut {cut_bytes}, {used:?}, changed {changed:?}, refused {refused:?}");
    if ended.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
