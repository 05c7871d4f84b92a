//! What a command can do, what comes back, and how it ends when others want it to.

use sandbox::{Ended, Handle, Level, Sandbox, SandboxError, Spec, Status, Why};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn sandbox() -> Sandbox {
    Sandbox::through(env!("CARGO_BIN_EXE_sandbox-try"))
}

fn run(text: &str, folder: &Path) -> Ended {
    sandbox().run(Spec::shell(text, folder)).expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_string()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// Processes with this word in their command line.
fn named(word: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| text(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).contains(word);
    pids.filter(|pid| *pid != std::process::id() && has(pid)).collect()
}

fn until(what: &str, limit_ms: u64, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_millis(limit_ms), "{what} after {limit_ms} ms");
        std::thread::yield_now();
    }
    begun.elapsed()
}

#[test]
fn codes_signals_and_output_come_back() {
    let folder = tempfile::tempdir().expect("folder");
    let ended = run("echo out; echo err >&2; exit 7", folder.path());
    assert_eq!((ended.status, ended.why), (Some(Status::Code(7)), Why::Exited));
    assert_eq!((text(&ended.stdout), text(&ended.stderr)), ("out\n".into(), "err\n".into()));
    assert_eq!(run("kill -SEGV $$", folder.path()).status, Some(Status::Signal(11)));
    assert!(run("true", folder.path()).is_success());
}

#[test]
fn the_folder_comes_in_and_its_changes_go_out() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("sub")).expect("folder");
    fs::write(path("sub/old"), "old").expect("write");
    fs::write(path("same"), vec![7; 700_000]).expect("write");
    fs::write(path("gone"), "x").expect("write");
    fs::write(path("tool"), "#!/bin/sh\necho tool").expect("write");
    fs::set_permissions(path("tool"), fs::Permissions::from_mode(0o755)).expect("mode");
    symlink("same", path("link")).expect("link");
    let before = fs::metadata(path("same")).expect("same").ino();
    let long_ago =
        fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    fs::File::options().write(true).open(path("sub/old")).expect("old").set_times(long_ago).expect("times");
    let ended = run(
        "set -e; ./tool; cat sub/old; stat -c %Y sub/old; wc -c < link; rm gone; echo new > sub/new; echo more >> sub/old; \
         mkdir -p a/b; head -c 600000 /dev/zero > a/b/c; ln -s c a/b/d; chmod 600 tool; printf '' > empty; \
         printf x > \"$(printf 'a\\nb\\377')\"; \
         echo shy > closed; chmod 000 closed; mkdir shut; echo in > shut/in; chmod 000 shut",
        folder.path(),
    );
    assert_eq!(text(&ended.stdout), "tool\nold1000000000\n700000\n", "{}", text(&ended.stderr));
    assert_eq!(fs::read(path("sub/old")).expect("old"), b"oldmore\n");
    assert_eq!(fs::read(path("sub/new")).expect("new"), b"new\n");
    assert_eq!(fs::read(path("a/b/c")).expect("c"), vec![0; 600_000]);
    assert_eq!(fs::read_link(path("a/b/d")).expect("d"), Path::new("c"));
    assert_eq!(fs::read(path("empty")).expect("empty"), b"");
    assert_eq!(fs::metadata(path("tool")).expect("tool").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(path("closed")).expect("closed"), b"shy\n");
    assert_eq!(fs::read(path("shut/in")).expect("in"), b"in\n");
    assert!(!path("gone").exists());
    assert_eq!(fs::metadata(path("same")).expect("same").ino(), before, "what did not change is not written");
    assert!(!ended.changed.iter().any(|path| path == Path::new("same") || path == Path::new("link")));
    assert!(ended.refused.is_empty(), "{:?}", ended.refused);
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 9, "{:?}", ended.changed);
}

#[test]
fn stdin_and_environment_are_what_was_given() {
    let folder = tempfile::tempdir().expect("folder");
    let mut spec = Spec::shell("cat | wc -c; cat | wc -c; echo $NAME; pwd; id -u; hostname", folder.path());
    spec.stdin = vec![b'x'; 900_000];
    spec.env.push(("NAME".into(), "a value".into()));
    let ended = sandbox().run(spec).expect("it runs");
    assert_eq!(text(&ended.stdout), "900000\n0\na value\n/work\n1000\nsandbox\n", "{}", text(&ended.stderr));
}

#[test]
fn a_program_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().expect("folder");
    let mut spec = Spec::shell("", folder.path());
    spec.command = vec!["no-such-program".into()];
    let error = sandbox().run(spec).expect_err("no program").to_string();
    assert!(error.contains("no-such-program can't be run inside"), "{error}");
}

#[test]
fn a_folder_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("large"), vec![0; 2 << 20]).expect("write");
    let mut spec = Spec::shell("echo ran > large", folder.path());
    spec.limits.disk_bytes = 1 << 20;
    let error = sandbox().run(spec).expect_err("too large").to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    assert_eq!(fs::metadata(folder.path().join("large")).expect("large").len(), 2 << 20);
}

#[test]
fn more_than_the_machine_has_can_be_demanded_and_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let mut spec = Spec::shell("echo ran > ran", folder.path());
    spec.require = Level::Full;
    let report = sandbox().probe();
    match (report.level(), sandbox().run(spec)) {
        (Level::Full, Ok(ended)) => assert!(ended.is_success() && folder.path().join("ran").exists()),
        (Level::Partial, Err(SandboxError::TooWeak { missing, .. })) => {
            assert!(missing.contains(&report.missing().next().expect("a layer").name), "{missing}");
            assert!(!folder.path().join("ran").exists(), "it ran");
        }
        (level, other) => panic!("{level}: {other:?}"),
    }
}

#[test]
fn sigterm_comes_before_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let mut spec = Spec::shell("trap 'echo asked; exit 4' TERM; while :; do sleep 0.02; done", folder.path());
    spec.limits.wall_ms = 300;
    spec.limits.grace_ms = 2_000;
    let ended = sandbox().run(spec).expect("it runs");
    assert_eq!(ended.why, Why::TimedOut);
    assert_eq!((text(&ended.stdout), ended.status), ("asked\n".into(), Some(Status::Code(4))), "{ended:?}");
}

/// The word is in the command line of what runs inside, and the folder shows that it runs.
fn started(folder: &Path, word: &str) -> (Handle, std::thread::JoinHandle<Result<Ended, SandboxError>>) {
    let daemon = format!("(trap '' TERM HUP INT; setsid sh -c 'while :; do sleep 1; : {word}; done' &)");
    let spec =
        Spec::shell(&format!("echo x > half; {daemon}; trap '' TERM; while :; do sleep 9; done"), folder);
    let running = sandbox().start(spec).expect("it starts");
    let handle = running.handle();
    let thread = std::thread::spawn(|| running.wait());
    until("nothing runs", 20_000, || named(word).len() >= 2);
    (handle, thread)
}

#[test]
fn a_killed_command_leaves_no_process_and_no_file() {
    let folder = tempfile::tempdir().expect("folder");
    let word = format!("kill-{}", std::process::id());
    let (handle, thread) = started(folder.path(), &word);
    let begun = Instant::now();
    handle.kill();
    until("something is alive", 1_000, || named(&word).is_empty());
    let ended = thread.join().expect("thread").expect("ended");
    println!("all gone after {} ms", begun.elapsed().as_millis());
    assert_eq!((ended.why, ended.status), (Why::Killed, None));
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "files of a killed command");
    handle.kill();
}

/// With a fiftieth of a core, and everyone at work.
#[test]
fn a_starved_command_dies_as_fast() {
    let folder = tempfile::tempdir().expect("folder");
    let word = format!("busy-{}", std::process::id());
    let busy = format!(
        "i=0; while [ $i -lt 12 ]; do (trap '' TERM; while :; do :; done) & i=$((i+1)); done; : {word}; wait"
    );
    let mut spec = Spec::shell(&busy, folder.path());
    spec.limits.cpu_milli = 20;
    let running = sandbox().start(spec).expect("it starts");
    until("nothing runs", 20_000, || named(&word).len() >= 6);
    running.handle().kill();
    let took = until("something is alive", 1_000, || named(&word).is_empty());
    println!("all gone after {} ms", took.as_millis());
    assert_eq!(running.wait().expect("it ends").why, Why::Killed);
}

#[test]
fn a_command_killed_at_any_moment_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = Instant::now();
    assert!(run("true", folder.path()).is_success());
    let usual = whole.elapsed();
    for part in 0..10 {
        let running = sandbox().start(Spec::shell("sleep 30", folder.path())).expect("it starts");
        let at = Instant::now() + usual * part / 8;
        while Instant::now() < at {
            std::thread::yield_now();
        }
        running.handle().kill();
        let begun = Instant::now();
        let ended = running.wait().expect("it ends");
        assert_eq!(ended.why, Why::Killed);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

#[test]
fn nothing_outlives_the_node() {
    let folder = tempfile::tempdir().expect("folder");
    let word = format!("orphan-{}", std::process::id());
    let text = format!(
        "(trap '' TERM HUP; setsid sh -c 'while :; do sleep 1; : {word}; done' &); sleep 60; : {word}"
    );
    let mut node = Command::new(env!("CARGO_BIN_EXE_sandbox-try"))
        .args(["run", &folder.path().display().to_string(), &text])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a node");
    // The node itself names the word, too.
    until("nothing runs", 20_000, || named(&word).len() >= 3);
    node.kill().expect("SIGKILL");
    node.wait().expect("reaped");
    let took = until("something is alive", 1_000, || named(&word).is_empty());
    println!("all gone after {} ms", took.as_millis());
}

#[test]
fn no_cgroup_stays() {
    let folder = tempfile::tempdir().expect("folder");
    let mut node = Command::new(env!("CARGO_BIN_EXE_sandbox-try"))
        .args(["run", &folder.path().display().to_string(), "sleep 9 & exit 0"])
        .spawn()
        .expect("a node");
    let name = format!("quorate-{}-", node.id());
    assert!(node.wait().expect("it ends").success());
    let trees = fs::read_dir("/sys/fs/cgroup")
        .map(|entries| entries.flatten().collect::<Vec<_>>())
        .unwrap_or_default();
    for tree in trees {
        let left = fs::read_dir(tree.path()).into_iter().flatten().flatten();
        let ours = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).count();
        assert_eq!(ours, 0, "in {}", tree.path().display());
    }
}

/// A user without rights gets the namespaces, and an honest report about the rest.
#[test]
fn without_root_it_is_weaker_and_says_so() {
    let place = tempfile::tempdir().expect("folder");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let program = place.path().join("sandbox-try");
    fs::copy(env!("CARGO_BIN_EXE_sandbox-try"), &program).expect("copy");
    let own = place.path().join("own");
    fs::create_dir(&own).expect("folder");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("mode");
    let nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        if !is_root() {
            command = Command::new(&program);
        }
        command.args(words).output().expect("setpriv")
    };
    let checked = text(&nobody(&["check"]).stdout);
    println!("{checked}");
    if checked.contains("level: none") {
        // The machine gives a user no namespaces: then nothing may run, and the reason is said.
        assert!(checked.contains("namespaces"), "{checked}");
        return;
    }
    assert!(checked.contains("namespaces: enforced") && checked.contains("seccomp: enforced"), "{checked}");
    let own = own.display().to_string();
    let ended = nobody(&["run", &own, "id -u; cat /etc/shadow; echo made > made"]);
    assert_eq!(text(&ended.stdout), "1000\n", "{}", text(&ended.stderr));
    assert_eq!(fs::read_to_string(format!("{own}/made")).expect("made"), "made\n");
    let bomb = "python3 -c \"x=[]\nwhile True: x.append(bytearray(b'y' * (8 << 20)))\"";
    let ended = nobody(&["run", &own, bomb]);
    assert!(!ended.status.success(), "{}", text(&ended.stderr));
}

/// Where namespaces are turned off, nothing is run.
#[test]
fn without_namespaces_nothing_runs() {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" check";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_sandbox-try")])
        .output()
        .expect("unshare");
    let said = text(&output.stdout);
    if output.status.success() {
        assert!(said.contains("level: none") && said.contains("gives no namespaces"), "{said}");
    } else {
        println!("skipped: this machine lets nobody turn namespaces off: {}", text(&output.stderr));
    }
}
