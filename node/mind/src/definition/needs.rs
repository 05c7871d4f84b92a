//! `[needs]`: what a task of an agent holds while it runs. The tree of quotas says how much of it there is.

use super::read::Table;
use super::{DefinitionError, quoted};
use types::limits;

const PLAIN: [&str; 4] = ["cpu_milli", "memory_bytes", "gpu_memory_bytes", "storage_bytes"];
const CONNECTIONS: &str = "connections:";
/// A petabyte: more is a slip of the pen.
const MOST: u64 = 1 << 50;

pub(super) fn read(table: &mut Table<'_>) -> Result<Vec<(String, u64)>, DefinitionError> {
    let line = table.line("needs");
    let Some(mut inner) = table.table("needs")? else { return Ok(vec![]) };
    let keys = inner.keys();
    if keys.len() > limits::AGENT_NEEDS {
        let message = format!("[needs] has {} keys, at most {} are allowed", keys.len(), limits::AGENT_NEEDS);
        let next = "name the destinations that matter".to_string();
        return Err(DefinitionError { key: "needs".to_string(), line, message, next });
    }
    let good: Vec<&str> = keys.iter().map(String::as_str).filter(|key| is_need(key)).collect();
    // What is not good is refused by name; the list in the error shows one destination for all.
    let shown = [PLAIN.as_slice(), &["\"connections:HOST\""]].concat();
    inner.only_some("needs", &good, &shown)?;
    let mut needs = vec![];
    for key in &good {
        needs.extend(inner.whole(key, 1, MOST)?.map(|amount| (key.to_string(), amount)));
    }
    Ok(needs)
}

fn is_need(key: &str) -> bool {
    let is_host = |host: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        !host.is_empty() && host.len() <= limits::NAME_BYTES && host.chars().all(good)
    };
    PLAIN.contains(&key) || key.strip_prefix(CONNECTIONS).is_some_and(is_host)
}

pub(super) fn canonical(needs: &[(String, u64)]) -> String {
    if needs.is_empty() {
        return String::new();
    }
    let line = |(name, amount): &(String, u64)| format!("{} = {amount}\n", quoted(name));
    format!("\n[needs]\n{}", needs.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use crate::Definition;

    fn parse(needs: &str) -> Result<Definition, String> {
        let text = format!("name = 'a'\nmodel = 'm'\n{needs}");
        Definition::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn needs_are_read_sorted_and_part_of_the_revision() {
        let needs = "[needs]\nmemory_bytes = 1_073_741_824\n'connections:api.example.com:443' = 2\n";
        let with = parse(needs).unwrap();
        let read: Vec<(&str, u64)> =
            with.agent().unwrap().needs.iter().map(|(name, amount)| (name.as_str(), *amount)).collect();
        assert_eq!(read, [("connections:api.example.com:443", 2), ("memory_bytes", 1 << 30)]);
        assert_eq!(Definition::parse(&with.canonical()).unwrap(), with);
        let without = parse("").unwrap();
        assert_ne!(with.revision(), without.revision());
        assert!(!without.canonical().contains("needs"), "old revisions stay");
    }

    #[test]
    fn what_is_no_need_is_refused_with_its_line() {
        let cases = [
            ("[needs]\nrunning = 1\n", "line 4: unknown key \"needs.running\""),
            ("[needs]\n'connections:a b' = 1\n", "unknown key"),
            ("[needs]\n'connections:' = 1\n", "connections:HOST"),
            ("[needs]\ncpu_milli = 0\n", "needs.cpu_milli is 0"),
            ("[needs]\ncpu_milli = -1\n", "needs.cpu_milli is -1"),
            ("[needs]\ncpu_milli = 'two'\n", "needs.cpu_milli is of type string"),
            ("needs = 3\n", "needs is of type integer"),
        ];
        for (needs, words) in cases {
            let error = parse(needs).unwrap_err();
            assert!(error.contains(words), "{needs}: {error}");
        }
        let many: String = (0..17).map(|n| format!("'connections:h{n}' = 1\n")).collect();
        assert!(parse(&format!("[needs]\n{many}")).unwrap_err().contains("17 keys"));
    }
}
