//! What placement and queue must reach on traces that others recorded, and that the figures stay the same.

use replay::{azure, growth, mooncake, read_azure, read_mooncake};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

/// The trace, or nothing and a line that says so. The folder is looked for from the repository, wherever tests run.
fn data(path: &str) -> Option<BufReader<File>> {
    let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var("QUORATE_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let full = repository.join(&folder).join(path);
    match File::open(&full) {
        Ok(file) => Some(BufReader::new(file)),
        Err(_) => {
            eprintln!("SKIPPED: {path} is not in {folder}; set QUORATE_TEST_DATA");
            None
        }
    }
}

#[test]
fn mooncake_is_routed_almost_as_if_all_workers_had_one_cache() {
    let Some(from) = data("mooncake/synthetic_trace.jsonl") else { return };
    let prompts = read_mooncake(from).expect("a good trace");
    for (workers, pooled) in [(4, 0.572), (8, 0.639)] {
        let found = mooncake::pooled(&prompts, workers * 5000);
        assert!((found - pooled).abs() < 0.001, "an independent program found {pooled}, this one {found}");
        let rows = mooncake::rows(&prompts, workers, 5000);
        let row = |name: &str| rows.iter().find(|row| row.router == name).expect("a row");
        let ours = row("ours");
        assert!(ours.of_pooled >= 0.95 && ours.work_max_mean <= 1.15, "{ours:?}");
        assert!(ours.requests_max_mean <= 1.15 && ours.asked_max_mean <= 1.15, "{ours:?}");
        // The trap that the bound on load is for.
        let naive = row("longest prefix");
        assert!(naive.work_max_mean > workers as f64 - 0.01, "{naive:?}");
        assert!(row("random").of_pooled < 0.5, "{rows:?}");
    }
}

#[test]
fn at_four_times_the_speed_the_cluster_does_its_best_and_the_top_class_notices_little() {
    let Some(from) = data("azure-llm/AzureLLMInferenceTrace_code.csv") else { return };
    let calls = read_azure(from).expect("a good trace");
    let setup = azure::Setup { draws: 3, ..azure::Setup::default() };
    let rows = azure::rows(&calls, setup, &[1000, 4000, 6000]).expect("runs");
    let (calm, busy, flooded) = (&rows[0], &rows[1], &rows[2]);
    assert!(busy.of_peak >= 0.9, "{busy:?}");
    assert!(flooded.of_peak >= 0.9, "goodput does not fall when still more comes: {flooded:?}");
    assert!(busy.system_p99_ms as f64 <= 1.5 * calm.system_p99_ms as f64, "{calm:?} {busy:?}");
    for row in &rows {
        assert!(row.open_most <= setup.open_max, "{row:?}");
        assert_eq!(row.done + row.expired + row.refused, row.requests, "nothing is lost: {row:?}");
    }
    assert!(busy.refused > 1000 && busy.paused > 0, "an overload that was none shows nothing: {busy:?}");
}

#[test]
fn the_same_draws_give_the_same_figures() {
    let calls: Vec<_> = (0..300u64)
        .map(|number| replay::Call {
            at_ms: number * 40,
            context_tokens: 900 + number % 7,
            generated_tokens: 20,
        })
        .collect();
    let setup = azure::Setup { workers: 2, slots: 2, draws: 1, open_max: 100, ..azure::Setup::default() };
    let rows = azure::rows(&calls, setup, &[1000, 4000]).expect("runs");
    assert_eq!(rows, azure::rows(&calls, setup, &[1000, 4000]).expect("runs"));
    assert!(rows[1].refused > 0 && rows[1].open_most <= 100, "{rows:?}");
    assert!(azure::rows(&calls, azure::Setup { slots: 0, ..setup }, &[1000]).is_err());
    assert!(azure::rows(&calls, setup, &[0]).is_err());
}

#[test]
fn growth_measures_what_it_says() {
    let row = growth::measure(2000).expect("measured");
    assert!(
        row.snapshot_bytes > 100 && row.create_p99_us >= row.create_p50_us && row.step_p50_us > 0.0,
        "{row:?}"
    );
    assert!(growth::measure(3).is_err());
    let plans = growth::plans(500, 20).expect("planned");
    let planned: Vec<usize> = plans.iter().map(|plan| plan.planned).collect();
    assert_eq!(planned, [64, 80, 500, 0, 0, 0], "one project: at half of the projects' limit nothing starts");
    let page = growth::page(&[row], &plans, "a machine").expect("a page");
    assert!(page.contains("| 2000 |") && page.contains("no slot is free"), "{page}");
}
