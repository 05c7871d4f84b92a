//! The models of an agent: one by `model`, or several by `models`, of which each call takes one.

use super::read::Table;
use super::{AgentDefinition, DefinitionError, quoted};

/// More than anybody has prices for in their head.
const MODELS: usize = 8;

pub(super) fn read(table: &mut Table<'_>) -> Result<(String, Vec<String>), DefinitionError> {
    if !table.has("models") {
        return Ok((table.model("model")?, Vec::new()));
    }
    let line = table.line("models");
    let refused = |message: String, next: &str| DefinitionError {
        key: "models".to_string(),
        line,
        message,
        next: next.to_string(),
    };
    if table.has("model") {
        return Err(refused("both model and models are there".to_string(), "write one of them"));
    }
    let mut models: Vec<String> = Vec::new();
    for mut item in table.tables("models")? {
        item.only("models", &["name"])?;
        let name = item.model("name")?;
        if models.contains(&name) {
            return Err(refused(format!("models names {name:?} twice"), "name each model once"));
        }
        models.push(name);
    }
    match models.len() {
        0 => Err(refused("models is empty".to_string(), "name at least one model")),
        1..=MODELS => Ok((models.remove(0), models)),
        many => Err(refused(format!("models names {many} models"), "name at most 8 of them")),
    }
}

/// With one model the text is as it was before there could be several: revisions stay.
pub(super) fn canonical(agent: &AgentDefinition) -> String {
    if agent.others.is_empty() {
        return format!("model = {}", quoted(&agent.model));
    }
    let models: Vec<String> = agent.models().map(quoted).collect();
    format!("models = [{}]", models.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::Definition;

    fn agent(line: &str) -> Result<Definition, String> {
        Definition::parse(&format!("name = \"a\"\n{line}\n")).map_err(|error| error.to_string())
    }

    #[test]
    fn several_models_are_read_in_their_order_and_one_is_as_by_model() {
        let several = agent("models = [\"cheap\", \"smollm2\", \"dear\"]").expect("good");
        let models: Vec<&str> = several.agent().expect("an agent").models().collect();
        assert_eq!((several.model(), models), (Some("cheap"), vec!["cheap", "smollm2", "dear"]));
        assert_eq!(Definition::parse(&several.canonical()), Ok(several.clone()));
        let (alone, single) = (agent("models = [\"cheap\"]"), agent("model = \"cheap\""));
        assert_eq!(alone, single);
        assert_ne!(several.revision(), single.expect("good").revision());
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        for (line, said) in [
            ("models = []", "line 2: models is empty; name at least one model"),
            ("models = [\"m\", \"n\", \"m\"]", "line 2: models names \"m\" twice; name each model once"),
            ("model = \"m\"\nmodels = [\"n\"]", "line 3: both model and models are there; write one of them"),
            (
                "models = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]",
                "line 2: models names 9 models; name at most 8 of them",
            ),
            ("models = [\"a b\"]", "models.name \"a b\" is not allowed"),
            ("models = \"m\"", "a list of names in quotes"),
            ("models = [{ name = \"m\", price = 1 }]", "unknown key \"models.price\""),
        ] {
            let error = agent(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
