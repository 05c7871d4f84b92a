//! How things are printed: tables for people, JSON for programs.

use crate::failure::Failure;
use serde::Serialize;
use std::io::Write;

/// A table for people, one JSON value, one JSON value a line, or comma-separated values (of reports only).
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    Csv,
}

/// Where a verb's words go.
pub(crate) struct Out<'a> {
    pub(crate) format: Format,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    /// A terminal obeys control characters; what models say must not reach it as orders.
    terminal: bool,
}

impl<'a> Out<'a> {
    pub(crate) fn new(
        format: Format,
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
        terminal: bool,
    ) -> Out<'a> {
        Out { format, stdout, stderr, terminal }
    }

    /// Prints one thing.
    pub(crate) fn one<T: Serialize>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Csv => self.text(&table(value)),
            Format::Json => self.line(&pretty(value)),
            Format::Jsonl => self.line(&compact(value)),
        }
    }

    /// Prints many things: a table, an array, or a line each.
    pub(crate) fn many<T: Serialize>(
        &mut self,
        values: &[T],
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Csv => self.text(&table(values)),
            Format::Json => self.line(&pretty(&values)),
            Format::Jsonl => values.iter().try_for_each(|value| self.line(&compact(value))),
        }
    }

    /// One element of an array that grows while it is printed.
    pub(crate) fn element<T: Serialize>(&mut self, value: &T, first: bool) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.raw(&format!("{}{}", if first { "[\n" } else { ",\n" }, compact(value))),
            Format::Jsonl | Format::Table | Format::Csv => self.line(&compact(value)),
        }
    }

    pub(crate) fn end_of_elements(&mut self, none: bool) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(if none { "[]" } else { "\n]" }),
            Format::Jsonl | Format::Table | Format::Csv => Ok(()),
        }
    }

    /// Text as it is, at once: it may be a token of many.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.terminal { self.raw(&printable_lines(text)) } else { self.raw(text) }
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Orders for the terminal, which only `top` gives: what names and models say was made harmless before.
    pub(crate) fn screen(&mut self, orders: &str) -> Result<(), Failure> {
        self.raw(orders)
    }

    /// Notes and results share a screen.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Something about the result, for the person who waits for it.
    pub(crate) fn note(&mut self, line: &str) -> Result<(), Failure> {
        // Nobody misses a note when stderr is closed.
        let _ = writeln!(self.stderr, "{}", printable(line));
        Ok(())
    }

    fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(self.stdout.flush()?)
    }
}

fn pretty<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("our own values have only text keys")
}

fn compact<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("our own values have only text keys")
}

/// Columns two spaces apart, each as wide as its widest cell.
pub(crate) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = clean.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headers[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let head = headers.iter().map(|header| header.to_string()).collect();
    std::iter::once(head).chain(clean).map(|row: Vec<String>| aligned(&row, &widths)).collect()
}

fn aligned(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// `name: value` lines; empty values are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let shown = fields.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{:<width$} {}\n", format!("{name}:"), printable(value))).collect()
}

fn cell_text(cell: &str) -> String {
    if cell.is_empty() { "-".to_string() } else { printable(cell) }
}

/// Control characters and line ends become spaces: one cell is one line, and gives a terminal no orders.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same, but lines and tabs stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}

/// `1.5 GiB`, from whole numbers only.
pub(crate) fn bytes(count: u64) -> String {
    let unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let step = (0..6).take_while(|step| count >> (10 * (step + 1)) > 0).count();
    if step == 0 {
        return format!("{count} B");
    }
    let whole = count >> (10 * step);
    let tenth = (count >> (10 * (step - 1)) & 1023) * 10 / 1024;
    format!("{whole}.{tenth} {}", unit[step])
}

/// Shows None as nothing.
pub(crate) fn or_empty<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn tables_align_and_give_no_orders_to_a_terminal() {
        let rows = vec![vec!["ä\u{1b}[2J".into(), "1".into()], vec!["longer name".into(), "".into()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME         N\nä [2J        1\nlonger name  -\n");
    }

    #[test]
    fn an_array_that_grows_is_json() {
        for values in [vec![], vec![1], vec![1, 2, 3]] {
            let mut stdout = vec![];
            let mut stderr = vec![];
            let mut out = Out::new(Format::Json, &mut stdout, &mut stderr, false);
            for (at, value) in values.iter().enumerate() {
                out.element(value, at == 0).unwrap();
            }
            out.end_of_elements(values.is_empty()).unwrap();
            assert_eq!(serde_json::from_slice::<Vec<i32>>(&stdout).unwrap(), values);
        }
    }
}
