//! The one binary: it parses and calls. Verbs that ask a cluster live in `cli`, those of this machine in `node::local`.

mod line;
#[cfg(test)]
mod reference_test;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cli::{ClusterCommand, Command, Exit, Failure, Format, Restore, Up};
use line::{Cert, Config, Context, Dev, DevVerb, Engine, Key, Line, Model, Rotate, Sandbox, Verb};
use node::local::{
    self, DevOptions, DoctorOptions, NewKeyOptions, RestoreOptions, RotateStep, ScoreOptions, UpOptions,
};

fn main() -> ExitCode {
    // Before anything else: a stage of a sandbox must have one thread and no ideas of its own.
    if let Some(code) = local::sandbox_stage() {
        return code;
    }
    let Line { globals, verb } = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => return cli::usage_error(&error, asks_for_json()),
    };
    if let Verb::Engine(Engine::Bench(bench)) = &verb
        && bench.measures_nothing()
    {
        let error = Line::command()
            .error(ErrorKind::ValueValidation, "-p and -n ask for 0 tokens; give one of them more");
        return cli::usage_error(&error, asks_for_json());
    }
    let json = matches!(globals.output, Format::Json | Format::Jsonl);
    let done = match verb {
        Verb::Cluster(Command::Cluster(ClusterCommand::Verify(it))) => local::cluster_verify(&it.file, json),
        Verb::Cluster(Command::Cluster(ClusterCommand::Restore(it))) => {
            local::cluster_restore(restore_options(it, json))
        }
        Verb::Cluster(Command::Cluster(ClusterCommand::Up(it))) => local::cluster_up(up_options(it, json)),
        Verb::Cluster(command) => return cli::run(command, &globals),
        Verb::Model(Model::List { cluster: true }) => return cli::run(Command::Models, &globals),
        Verb::Start { config, insecure } => local::start(&config, insecure),
        Verb::Dev(Dev { verb: Some(DevVerb::Chaos(it)), .. }) => local::chaos(it.into()),
        Verb::Dev(Dev { ephemeral, model, data, .. }) => local::dev(DevOptions { ephemeral, model, data }),
        Verb::Doctor { config, insecure } => local::doctor(&DoctorOptions { config, insecure, json }),
        Verb::Engine(Engine::Bench(bench)) => local::engine_bench(bench.options(globals.output)),
        Verb::Engine(Engine::Serve(serve)) => local::engine_serve(serve.into()),
        Verb::Engine(Engine::Score { model, file, window, skip }) => {
            local::engine_score(ScoreOptions { model, file, window, skip, json })
        }
        Verb::Engine(Engine::Replay(replay)) => local::engine_replay(replay.options(json)),
        Verb::Context(Context::Eval { from, html }) => match from.live(false, html.clone()) {
            Some(live) => return cli::run(Command::Evaluate(live), &globals),
            None => local::context_eval(&from.recorded(json), html.as_deref()),
        },
        Verb::Context(Context::Suggest { from }) => match from.live(true, None) {
            Some(live) => return cli::run(Command::Evaluate(live), &globals),
            None => local::context_suggest(&from.recorded(json)),
        },
        Verb::Model(Model::Pull { source }) => local::model_pull(&source, json),
        Verb::Model(Model::List { cluster: false }) => local::model_list(json),
        Verb::Model(Model::Inspect { model }) => local::model_inspect(&model, json),
        Verb::Sandbox(Sandbox::Check) => local::sandbox_check(json),
        Verb::Config(Config::Check { file, insecure }) => local::config_check(&file, insecure, json),
        Verb::Completions(it) => {
            it.print(&mut Line::command(), &mut std::io::stdout().lock()).map_err(Into::into)
        }
        Verb::Man(it) => it.write(Line::command()).map_err(Into::into),
        Verb::Cert(cert) => certificates(cert, globals.project, json),
        Verb::Key(Key::New { role, subject, expires, file }) => named(globals.project).and_then(|project| {
            local::key_new(&NewKeyOptions { project, role, subject, expires, file, json })
        }),
    };
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(error) => failed(&error, globals.output),
    }
}

fn restore_options(it: Restore, json: bool) -> RestoreOptions {
    let Restore { file, config, member: members, round, insecure } = it;
    RestoreOptions { file, config, members, round, insecure, json }
}

fn up_options(it: Up, json: bool) -> UpOptions {
    let Up { local, workers, folder, port, model: models, replies } = it;
    // The words that are understood are numbers.
    UpOptions { local: local.parse().unwrap_or(1), workers, folder, port, models, replies, json }
}

fn certificates(cert: Cert, project: Option<String>, json: bool) -> anyhow::Result<()> {
    match cert {
        Cert::Init { dir, cluster, days } => local::cert_init(&dir, &cluster, days, json),
        Cert::Node { dir, name, addr, days } => local::cert_node(&dir, &name, &addr, days, json),
        Cert::Client { dir, name, role, days } => {
            local::cert_client(&dir, &name, &named(project)?, &role, days, json)
        }
        Cert::Rotate { step, dir } => match step {
            Rotate::Trust { days } => local::cert_rotate(&dir, RotateStep::Trust, days, json),
            Rotate::Issue => local::cert_rotate(&dir, RotateStep::Issue, 0, json),
            Rotate::Finish => local::cert_rotate(&dir, RotateStep::Finish, 0, json),
        },
        Cert::Show { file } => local::cert_show(&file, json),
    }
}

/// What opens doors is never made for a project that nobody chose.
fn named(project: Option<String>) -> anyhow::Result<String> {
    project.ok_or_else(|| {
        anyhow::anyhow!("--project is missing: name one, or say --project '*' for every project")
    })
}

fn failed(error: &anyhow::Error, format: Format) -> ExitCode {
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    let failure = Failure::here(error.to_string(), (!causes.is_empty()).then(|| causes.join(": ")));
    cli::report(&failure, format, &mut std::io::stderr()).into()
}

/// The arguments could not be parsed, so they are looked at as they are.
fn asks_for_json() -> bool {
    let words: Vec<String> = std::env::args().collect();
    let apart = words
        .windows(2)
        .any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1].starts_with("json"));
    apart || words.iter().any(|word| word.starts_with("-ojson") || word.starts_with("--output=json"))
}
