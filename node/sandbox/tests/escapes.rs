//! Programs that try to get out, take too much or stay. Each must say that it was stopped, and from outside nothing
//! may have happened; and a second after its end nothing of it may be alive.

mod escapes {
    pub(crate) mod attempts;
    pub(crate) mod world;
}

use escapes::attempts::{ATTEMPTS, Attempt};
use escapes::world::World;
use sandbox::{Ended, Level, Limits, Sandbox, Spec, Why};
use std::time::{Duration, Instant};

const PRELUDE: &str = include_str!("escapes/prelude.py");

fn spec(attempt: &Attempt, world: &World) -> Spec {
    let program = world.fill(&format!("{PRELUDE}\n{}", attempt.program));
    let mut spec = Spec::shell("", &world.folder);
    spec.command = ["python3", "-c", &program].map(String::from).to_vec();
    spec.limits = Limits {
        wall_ms: 10_000,
        memory_bytes: 96 << 20,
        disk_bytes: 8 << 20,
        pids: 16,
        output_bytes: 16 << 10,
        ..Limits::default()
    };
    (attempt.change)(&mut spec);
    spec
}

/// What is wrong, if anything.
fn tried(attempt: &Attempt, world: &World) -> Result<Ended, String> {
    (attempt.before)(world);
    let ended = world.sandbox().run(spec(attempt, world)).map_err(|error| error.to_string())?;
    let output = format!("{}{}", sandbox::shown(&ended.stdout), sandbox::shown(&ended.stderr));
    let said = format!("{:?} {:?}: {output}", ended.why, ended.status);
    if output.contains("ESCAPED") || output.contains(world.canary()) {
        return Err(format!("it got through: {said}"));
    }
    let expected = attempt.ends_here(&ended.report);
    if !expected.contains(&ended.why) {
        return Err(format!("it should end as one of {expected:?}: {said}"));
    }
    // A program that did not run has not been contained.
    if attempt.ends == Why::Exited && !output.contains("CONTAINED") {
        return Err(format!("it never tried: {said}"));
    }
    (attempt.after)(world, &ended).map_err(|what| format!("{what}: {said}"))?;
    gone(world)?;
    Ok(ended)
}

/// Within a second nothing is left.
fn gone(world: &World) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let alive = world.alive();
        match alive.is_empty() {
            true => return Ok(()),
            false if Instant::now() > end => return Err(format!("{alive:?} are alive after a second")),
            false => std::thread::yield_now(),
        }
    }
}

#[test]
fn nothing_gets_out() {
    let world = World::new();
    let mut failures = Vec::new();
    for attempt in ATTEMPTS {
        world.clean();
        let begun = Instant::now();
        match tried(attempt, &world) {
            Ok(ended) => {
                println!("{:<40} {:?} in {} ms", attempt.name, ended.why, begun.elapsed().as_millis())
            }
            Err(why) => failures.push(format!("{}: {why}", attempt.name)),
        }
        if let Some(what) = world.harm() {
            failures.push(format!("{}: {what}", attempt.name));
        }
    }
    println!("{} attempts", ATTEMPTS.len());
    assert!(ATTEMPTS.len() >= 40, "{} attempts", ATTEMPTS.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), ATTEMPTS.len(), failures.join("\n"));
}

/// The same programs must find what they look for where nothing stops them, or the test above proves nothing.
#[test]
fn outside_the_sandbox_the_attempts_succeed() {
    let world = World::new();
    let sure =
        ["read another task's folder", "read the provider key", "tcp to a listener", "unix socket by path"];
    for name in sure.iter().chain(&["abstract unix socket", "write outside", "udp to a listener"]) {
        let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == *name).expect(name);
        let program = world.fill(&format!("{PRELUDE}\n{}", attempt.program));
        let output = std::process::Command::new("python3")
            .args(["-c", &program])
            .current_dir(&world.folder)
            .output()
            .expect("python3");
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        assert!(text.contains("ESCAPED"), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(world.harm().is_some(), "what they did is seen from outside");
}

#[test]
fn the_report_says_what_holds_here() {
    let report = Sandbox::through(env!("CARGO_BIN_EXE_sandbox-try")).probe();
    report.layers.iter().for_each(|layer| println!("{layer}"));
    assert_eq!(report.broken, None);
    assert!(report.level() >= Level::Partial);
    let names: Vec<&str> = report.layers.iter().map(|layer| layer.name.as_str()).collect();
    for name in ["memory", "cpu", "pids", "disk", "namespaces", "file system", "privileges", "seccomp"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let is_full = report.layers.iter().all(|layer| layer.enforced);
    assert_eq!(report.level() == Level::Full, is_full);
}
