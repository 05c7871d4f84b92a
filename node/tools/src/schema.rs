//! JSON schemas of arguments and results. Schemas come from outside: no reference leaves the document, patterns have a
//! bound, and a schema that is none is an error and not a panic.

use crate::ToolSpec;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Backtracking that one pattern may do on one text.
const BACKTRACKS: usize = 10_000;
/// Problems that one message names.
const PROBLEMS: usize = 3;
const PROBLEM_BYTES: usize = 300;

/// A schema ready to check values with.
#[derive(Debug)]
pub struct Arguments {
    validator: Validator,
}

impl Arguments {
    /// The error says why the schema cannot be used.
    pub fn new(schema: &Value) -> Result<Arguments, String> {
        if !schema.is_object() {
            return Err("the schema is not an object".into());
        }
        let bytes = schema.to_string().len();
        if bytes > ToolSpec::SCHEMA_BYTES {
            return Err(format!("the schema has {bytes} bytes, more than {}", ToolSpec::SCHEMA_BYTES));
        }
        let patterns = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS).size_limit(1 << 20);
        let validator = jsonschema::options().with_pattern_options(patterns).build(schema);
        Ok(Arguments { validator: validator.map_err(|error| short(&error.to_string()))? })
    }

    /// What is wrong with a value, for whoever wrote it; each problem with the place where it is.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let mut problems = self.validator.iter_errors(value);
        let named: Vec<String> = problems.by_ref().take(PROBLEMS).map(|error| problem(&error)).collect();
        match problems.count() {
            _ if named.is_empty() => Ok(()),
            0 => Err(named.join("; ")),
            more => Err(format!("{}; and {more} more", named.join("; "))),
        }
    }
}

fn problem(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let text = short(&error.to_string());
    if place.is_empty() { text } else { format!("{place}: {text}") }
}

fn short(text: &str) -> String {
    crate::clean(crate::output::head(text, PROBLEM_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(schema: Value, value: Value) -> Result<(), String> {
        Arguments::new(&schema).expect("a schema").check(&value)
    }

    #[test]
    fn every_problem_has_its_place() {
        let schema = json!({"type": "object", "required": ["zone"], "additionalProperties": false,
            "properties": {"zone": {"type": "string"}, "hours": {"type": "array", "items": {"type": "integer"}}}});
        assert_eq!(checked(schema.clone(), json!({"zone": "UTC"})), Ok(()));
        let problems =
            checked(schema.clone(), json!({"hours": [1, "x"], "more": 1})).expect_err("off schema");
        assert!(
            problems.contains("/hours/1") && problems.contains("zone") && problems.contains("more"),
            "{problems}"
        );
        assert!(checked(schema, json!("text")).is_err());
    }

    #[test]
    fn schemas_that_are_none_are_said_so() {
        for bad in [json!({"type": "objekt"}), json!(7), json!({"properties": []}), json!({"pattern": "("})] {
            assert!(Arguments::new(&bad).is_err(), "{bad}");
        }
        let outside = json!({"$ref": "http://127.0.0.1:1/schema.json"});
        assert!(Arguments::new(&outside).is_err(), "nothing is fetched");
        let file = json!({"$ref": "file:///etc/hostname"});
        assert!(Arguments::new(&file).is_err(), "nothing is read");
        let large = json!({"description": "x".repeat(ToolSpec::SCHEMA_BYTES)});
        assert!(Arguments::new(&large).expect_err("too large").contains("bytes"));
    }

    #[test]
    fn a_pattern_that_never_ends_is_ended() {
        let schema = json!({"properties": {"a": {"pattern": "^(a+)+\\1$"}}});
        let value = json!({"a": "a".repeat(4000) + "!"});
        assert!(checked(schema, value).is_err());
    }

    #[test]
    fn a_schema_that_refers_to_itself_is_usable() {
        let schema = json!({"$defs": {"t": {"properties": {"t": {"$ref": "#/$defs/t"}}, "additionalProperties": false}},
            "$ref": "#/$defs/t"});
        assert_eq!(checked(schema.clone(), json!({"t": {"t": {}}})), Ok(()));
        assert!(checked(schema, json!({"t": {"x": 1}})).is_err());
    }
}
