//! What people and scripts see: tables, and JSON or YAML with stable keys.
//!
//! Every answer is first a [`View`]; the output format decides how it is written. Keys of the JSON form are a promise:
//! they are added to, never renamed.

mod health;
pub(crate) mod job;
pub(crate) mod node;
pub(crate) mod nodelist;
pub(crate) mod other;
#[cfg(test)]
mod tests;
pub(crate) mod time;

use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// How to write an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// JSON with stable keys.
    Json,
    /// The same as YAML.
    Yaml,
    /// Ids or names only, one per line.
    Name,
}

/// An answer in every form that it has.
pub(crate) struct View {
    /// For people.
    pub(crate) text: String,
    /// For scripts.
    pub(crate) value: Value,
    /// Ids or names, one per line.
    pub(crate) names: Vec<String>,
}

/// Where answers go, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// The form.
    pub(crate) format: Format,
    /// Tables start with a line of headings.
    pub(crate) heading: bool,
    /// Escape sequences for colours may be used on standard output.
    pub(crate) colour: bool,
}

impl Screen {
    /// A screen with colours if standard output is a terminal and `NO_COLOR` is not set.
    pub(crate) fn new(format: Format, heading: bool) -> Self {
        Self {
            format,
            heading,
            colour: may_colour(std::io::stdout().is_terminal()),
        }
    }

    /// True for the formats that people read.
    pub(crate) fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// True if there is room for more columns.
    pub(crate) fn wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Writes an answer to standard output.
    pub(crate) fn print(&self, view: &View) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(self.render(view).as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes one value of a stream: a line of JSON, a YAML document, or a line for people.
    pub(crate) fn print_item(&self, view: &View) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => format!("{}\n", view.value),
            Format::Yaml => format!("---\n{}", self.render(view)),
            _ => self.render(view),
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Writes an answer that is one of many (`again`), or the only one.
    pub(crate) fn print_item_or_page(&self, view: &View, again: bool) -> Result<(), Failure> {
        if again {
            self.print_item(view)
        } else {
            self.print(view)
        }
    }

    /// Writes a sentence for people; scripts get `value` instead.
    pub(crate) fn say(&self, sentence: &str, value: Value, name: &str) -> Result<(), Failure> {
        self.print(&View {
            text: format!("{sentence}\n"),
            value,
            names: vec![name.to_owned()],
        })
    }

    fn render(&self, view: &View) -> String {
        match self.format {
            Format::Table | Format::Wide => view.text.clone(),
            Format::Json => format!("{:#}\n", view.value),
            Format::Yaml => serde_yaml_ng::to_string(&view.value).unwrap_or_default(),
            Format::Name => view.names.iter().map(|n| format!("{n}\n")).collect(),
        }
    }

    /// Rows below headings, in columns two spaces apart. `right` names the columns that are aligned to the right.
    pub(crate) fn table(
        &self,
        headings: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
        right: &[&str],
    ) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.heading {
            table.set_header(headings.to_vec());
        }
        for row in rows {
            table.add_row(row.into_iter().map(|cell| printable(&cell)));
        }
        table.discover_columns();
        for (index, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if right.contains(heading) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let mut text = String::new();
        for (index, line) in table.lines().enumerate() {
            let line = line.trim_end();
            if index == 0 && self.heading && self.colour {
                text.push_str(&format!("\x1b[1m{line}\x1b[0m\n"));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// Lines of `name: value`, aligned.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    facts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{:width$} {}\n", format!("{name}:"), printable(value)))
        .collect()
}

/// Text from others must not move the cursor or change colours.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// True if escape sequences for colours are welcome.
pub(crate) fn may_colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
