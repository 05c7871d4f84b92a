//! Reading TOML key by key, with errors that name the key and its line.

use super::{DEFINITION_BYTES, DefinitionError};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};
use types::limits;

/// A table whose keys are taken out one by one.
pub(super) struct Table<'a> {
    /// Where the table stands, with a dot at the end: empty for the top.
    path: String,
    /// The line of the table itself.
    line: Option<usize>,
    entries: BTreeMap<String, Entry<'a>>,
    /// Byte offsets of all line ends of the text.
    line_ends: Vec<usize>,
}

struct Entry<'a> {
    line: usize,
    value: DeValue<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn root(text: &'a str) -> Result<Table<'a>, DefinitionError> {
        if text.len() > DEFINITION_BYTES {
            let message =
                format!("the definition has {} bytes, at most {DEFINITION_BYTES} are allowed", text.len());
            let next = "give long texts to the task as inputs".to_string();
            return Err(DefinitionError { key: String::new(), line: None, message, next });
        }
        let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        match DeTable::parse(text) {
            Ok(table) => Ok(Table::of(String::new(), None, table.into_inner(), line_ends)),
            Err(error) => Err(DefinitionError {
                key: String::new(),
                line: error.span().map(|span| line_of(&line_ends, span.start)),
                message: format!("this is not TOML: {}", error.message().trim()),
                next: "correct the line; texts need quotes, tables a line like [limits]".to_string(),
            }),
        }
    }

    fn of(path: String, line: Option<usize>, table: DeTable<'a>, line_ends: Vec<usize>) -> Table<'a> {
        let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'a>>)| {
            let line = line_of(&line_ends, key.span().start);
            let key: std::borrow::Cow<'a, str> = key.into_inner();
            (key.into_owned(), Entry { line, value: value.into_inner() })
        };
        let entries = table.into_iter().map(entry).collect();
        Table { path, line, entries, line_ends }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.entries.get(key).map(|entry| entry.line)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Refuses every key that is not allowed, and says which are.
    pub(super) fn only(&self, what: &str, allowed: &[&str]) -> Result<(), DefinitionError> {
        self.only_some(what, allowed, allowed)
    }

    /// The same where the allowed keys are too many to be shown.
    pub(super) fn only_some(
        &self,
        what: &str,
        allowed: &[&str],
        shown: &[&str],
    ) -> Result<(), DefinitionError> {
        match self.entries.iter().find(|(key, _)| !allowed.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, entry)) => Err(DefinitionError {
                key: self.full(key),
                line: Some(entry.line),
                message: format!("unknown key {:?} in {what}", self.full(key)),
                next: format!("the keys are: {}", shown.join(", ")),
            }),
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(None) };
        match value {
            DeValue::String(text) => Ok(Some(text.into_owned())),
            other => Err(self.wrong_type(key, line, &other, "a text in quotes")),
        }
    }

    /// The name of an agent or team: it becomes part of quota paths and metric labels.
    pub(super) fn name(&mut self, key: &str) -> Result<String, DefinitionError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        self.identifier(key, "letters, digits, - _ and .", good)
    }

    pub(super) fn model(&mut self, key: &str) -> Result<String, DefinitionError> {
        let good = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
        self.identifier(key, "visible ASCII without quotes and backslashes", good)
    }

    pub(super) fn identifier(
        &mut self,
        key: &str,
        allowed: &str,
        good: impl Fn(char) -> bool,
    ) -> Result<String, DefinitionError> {
        let line = self.line(key);
        let Some(text) = self.text(key)? else { return Err(self.absent(key, &format!("{key} = \"...\""))) };
        if !text.is_empty() && text.len() <= limits::NAME_BYTES && text.chars().all(good) {
            return Ok(text);
        }
        let shown: String = text.chars().take(40).collect();
        Err(DefinitionError {
            key: self.full(key),
            line: line.or(self.line),
            message: format!("{} {shown:?} is not allowed", self.full(key)),
            next: format!("use 1 to {} characters: {allowed}", limits::NAME_BYTES),
        })
    }

    /// A whole number between two bounds, both allowed.
    pub(super) fn whole(&mut self, key: &str, least: u64, most: u64) -> Result<Option<u64>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(None) };
        let expected = format!("a whole number from {least} to {most}");
        let DeValue::Integer(number) = &value else {
            return Err(self.wrong_type(key, line, &value, &expected));
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => Err(self.out_of_range(key, line, number.as_str(), &expected)),
        }
    }

    /// A number from 0 on, in thousandths.
    pub(super) fn milli(&mut self, key: &str, most_milli: u32) -> Result<Option<u32>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(None) };
        let expected = format!("a number from 0 to {}", most_milli / 1000);
        let text = match &value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            other => return Err(self.wrong_type(key, line, other, &expected)),
        };
        match text.parse::<f64>().map(|number| (number * 1000.0).round()) {
            Ok(milli) if (0.0..=f64::from(most_milli)).contains(&milli) => Ok(Some(milli as u32)),
            Ok(_) | Err(_) => Err(self.out_of_range(key, line, text, &expected)),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(None) };
        match value {
            DeValue::Boolean(flag) => Ok(Some(flag)),
            other => Err(self.wrong_type(key, line, &other, "true or false")),
        }
    }

    /// A list whose items are names or tables: a name stands for a table with nothing but it.
    pub(super) fn tables(&mut self, key: &str) -> Result<Vec<Table<'a>>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(Vec::new()) };
        let expected = "a list of names in quotes, or of tables like { name = \"...\" }";
        let DeValue::Array(items) = value else {
            return Err(self.wrong_type(key, line, &value, expected));
        };
        let table = |item: toml::Spanned<DeValue<'a>>| {
            let (path, line_ends) = (self.full(key) + ".", self.line_ends.clone());
            let line = line_of(&line_ends, item.span().start);
            match item.into_inner() {
                DeValue::Table(inner) => Ok(Table::of(path, Some(line), inner, line_ends)),
                name @ DeValue::String(_) => {
                    let entries = BTreeMap::from([("name".to_string(), Entry { line, value: name })]);
                    Ok(Table { path, line: Some(line), entries, line_ends })
                }
                other => Err(self.wrong_type(key, line, &other, expected)),
            }
        };
        items.into_iter().map(table).collect()
    }

    /// One of a few words; the answer is its index.
    pub(super) fn choice(&mut self, key: &str, words: &[&str]) -> Result<Option<usize>, DefinitionError> {
        let line = self.line(key);
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().position(|word| *word == text) {
            Some(index) => Ok(Some(index)),
            None => Err(DefinitionError {
                key: self.full(key),
                line,
                message: format!(
                    "{} cannot be {:?}",
                    self.full(key),
                    text.chars().take(40).collect::<String>()
                ),
                next: format!("write one of: {}", words.join(", ")),
            }),
        }
    }

    pub(super) fn needed_choice(&mut self, key: &str, words: &[&str]) -> Result<usize, DefinitionError> {
        let example = format!("{key} = {:?}", words.first().copied().unwrap_or_default());
        self.choice(key, words)?.ok_or_else(|| self.absent(key, &example))
    }

    pub(super) fn table(&mut self, key: &str) -> Result<Option<Table<'a>>, DefinitionError> {
        let Some(Entry { line, value }) = self.entries.remove(key) else { return Ok(None) };
        match value {
            DeValue::Table(inner) => {
                Ok(Some(Table::of(self.full(key) + ".", Some(line), inner, self.line_ends.clone())))
            }
            other => Err(self.wrong_type(key, line, &other, "a table")),
        }
    }

    pub(super) fn needed_table(&mut self, key: &str, example: &str) -> Result<Table<'a>, DefinitionError> {
        self.table(key)?.ok_or_else(|| self.absent(key, example))
    }

    fn full(&self, key: &str) -> String {
        let key: String = key.chars().take(limits::NAME_BYTES).collect();
        format!("{}{key}", self.path)
    }

    /// What is wrong with a key that was taken out, at the table's own line.
    pub(super) fn error(&self, key: &str, message: String, next: &str) -> DefinitionError {
        DefinitionError { key: self.full(key), line: self.line, message, next: next.to_string() }
    }

    fn absent(&self, key: &str, example: &str) -> DefinitionError {
        let (key, next) = (self.full(key), format!("add {example}"));
        DefinitionError { message: format!("{key} is missing"), key, line: self.line, next }
    }

    fn wrong_type(&self, key: &str, line: usize, value: &DeValue<'_>, expected: &str) -> DefinitionError {
        let key = self.full(key);
        let message = format!("{key} is of type {}, {expected} is needed", value.type_str());
        DefinitionError { next: format!("write {key} as {expected}"), key, line: Some(line), message }
    }

    fn out_of_range(&self, key: &str, line: usize, given: &str, expected: &str) -> DefinitionError {
        let key = self.full(key);
        let given: String = given.chars().take(40).collect();
        let message = format!("{key} is {given}, {expected} is needed");
        DefinitionError { next: format!("write {key} as {expected}"), key, line: Some(line), message }
    }
}

fn line_of(line_ends: &[usize], at: usize) -> usize {
    line_ends.partition_point(|end| *end < at) + 1
}
