//! `docs/reference/cli.md` is made from the command line itself, and compared with it by `make test`. `UPDATE=1 cargo nextest
//! run -p quorate reference` writes it anew.

use crate::line::Line;
use clap::{Arg, Command, CommandFactory};
use std::path::Path;

fn page() -> String {
    let mut line = Line::command().term_width(0);
    line.build();
    let mut text = "<!-- Made by a test: UPDATE=1 cargo nextest run -p quorate reference -->\n\n# Every verb\n\nWhat they do together, exit \
                    codes and amounts: [the command line](../cli.md). The same is in `quorate help VERB` and in the manual pages \
                    (`quorate man`).\n\n## For every verb\n"
        .to_string();
    let some = line.get_subcommands().find(|verb| verb.get_name() == "queue").expect("a verb of the cluster");
    text += &table(some.get_arguments().filter(|it| is_general(it)));
    line.get_subcommands()
        .filter(|verb| verb.get_name() != "help")
        .for_each(|verb| text += &section(verb, "quorate"));
    text
}

fn is_general(it: &Arg) -> bool {
    it.get_help_heading() == Some("For every verb")
}

fn section(verb: &Command, above: &str) -> String {
    let name = format!("{above} {}", verb.get_name());
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let own =
        || verb.get_arguments().filter(|it| !is_general(it) && !it.is_hide_set() && it.get_id() != "help");
    let mut text = format!("\n## {name}\n\n{about}.\n");
    let (places, options): (Vec<&Arg>, Vec<&Arg>) = own().partition(|it| it.is_positional());
    if verb.get_subcommands().next().is_none() || !options.is_empty() {
        text += &format!(
            "\n```\n{name}{}{}\n```\n",
            if options.is_empty() { "" } else { " [OPTIONS]" },
            places.iter().map(|it| format!(" {it}")).collect::<String>()
        );
        text += &table(own());
    }
    verb.get_subcommands()
        .filter(|it| it.get_name() != "help")
        .for_each(|below| text += &section(below, &name));
    text
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows: String = arguments.map(row).collect();
    if rows.is_empty() { rows } else { format!("\n| option | what |\n|---|---|\n{rows}") }
}

fn row(it: &Arg) -> String {
    let short = it.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let defaults: Vec<String> =
        it.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let shown = !defaults.is_empty() && it.get_action().takes_values();
    let default = if shown { format!(" (default `{}`)", defaults.join(",")) } else { String::new() };
    let help = it.get_help().map(ToString::to_string).unwrap_or_default();
    format!("| {short}`{it}` | {}{default} |\n", help.replace('|', "\\|"))
}

#[test]
fn every_verb_has_its_section() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
    let text = page();
    for verb in
        ["quorate task create", "quorate cluster up", "quorate dev chaos kill-leader", "quorate doctor"]
    {
        assert!(text.contains(&format!("## {verb}\n")), "{verb} is missing");
    }
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&file, text).expect("written");
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "docs/reference/cli.md is not what the command line says: UPDATE=1 cargo nextest run -p quorate reference"
    );
}
