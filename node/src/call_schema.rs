//! The JSON schema of an answer that has to be one call of one of the tools: `{"name": "…", "arguments": {…}}`.

use serde_json::{Value, json};

/// Tools by name, each with the schema of its arguments where it has one.
pub(crate) fn call_schema(tools: Vec<(String, Option<Value>)>) -> String {
    let alone = tools.len() == 1;
    let place = |index: usize| if alone { String::new() } else { format!("/anyOf/{index}") };
    let calls = tools.into_iter().enumerate();
    let calls: Vec<Value> = calls.map(|(index, (name, it))| call(&place(index), &name, it)).collect();
    match <[Value; 1]>::try_from(calls) {
        Ok([only]) => only.to_string(),
        Err(several) => json!({ "anyOf": several }).to_string(),
    }
}

fn call(place: &str, name: &str, parameters: Option<Value>) -> Value {
    let any = || json!({ "type": "object", "properties": {} });
    let mut arguments = parameters.filter(Value::is_object).unwrap_or_else(any);
    if let Some(fields) = arguments.as_object_mut() {
        fields.remove("$id");
        fields.remove("$schema");
    }
    rebase(&mut arguments, &format!("{place}/properties/arguments"));
    json!({
        "type": "object",
        "properties": { "name": { "const": name }, "arguments": arguments },
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}

/// References inside a schema go from its root, which is now a place in a larger one.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(target) if key == "$ref" => rebase_target(target, place),
                    _ => rebase(value, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, place)),
        _ => {}
    }
}

fn rebase_target(target: &mut String, place: &str) {
    if let Some(pointer) = target.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        *target = format!("#{place}{pointer}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_inside_their_tool() {
        let tree = json!({ "$schema": "s", "properties": { "left": { "$ref": "#" }, "at": { "$ref": "#/$defs/p" } },
            "$defs": { "p": { "type": "null" } } });
        let alone: Value =
            serde_json::from_str(&call_schema(vec![("a".into(), Some(tree.clone()))])).unwrap();
        let of = |schema: &Value, name: &str| {
            schema["properties"]["arguments"]["properties"][name]["$ref"].clone()
        };
        assert_eq!(of(&alone, "left"), "#/properties/arguments");
        assert_eq!(of(&alone, "at"), "#/properties/arguments/$defs/p");
        let two: Value =
            serde_json::from_str(&call_schema(vec![("a".into(), None), ("b".into(), Some(tree))])).unwrap();
        assert_eq!(of(&two["anyOf"][1], "at"), "#/anyOf/1/properties/arguments/$defs/p");
        assert_eq!(two["anyOf"][0]["properties"]["name"]["const"], "a");
    }
}
