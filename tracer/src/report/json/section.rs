//! Reports as JSON: an object each, of the type `report`.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{micros, row, summary::SCHEMA, time};
use crate::report::{
    Report, Whole,
    section::{Cell, Said, Section, Shown, Table},
};

pub(in crate::report) fn section(
    report: &Report,
    section: &Section<'_>,
    whole: &Whole<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("report"));
    object.insert("schema".to_owned(), json!(SCHEMA));
    object.insert("report".to_owned(), json!(report.name));
    object.insert("title".to_owned(), json!(report.title));
    if let Some((first, last)) = whole.breakdown().range {
        object.insert("from".to_owned(), json!(time(first)));
        object.insert("to".to_owned(), json!(time(last)));
    }
    let said: Vec<_> = section.said.iter().map(said).collect();
    object.insert("findings".to_owned(), Value::Array(said));
    let tables = section.tables.iter();
    let tables = tables.map(|table| (table.name.to_owned(), self::table(table)));
    object.insert("tables".to_owned(), Value::Object(tables.collect()));
    if !section.exchanges.is_empty() {
        let exchanges: Result<Vec<_>, _> = section.exchanges.iter().map(exchange).collect();
        object.insert("exchanges".to_owned(), Value::Array(exchanges?));
    }
    object.insert("notes".to_owned(), json!(section.notes));
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

fn said(said: &Said) -> Value {
    let mut object = Map::new();
    object.insert("wrong".to_owned(), json!(said.bad));
    object.insert("sentence".to_owned(), json!(said.sentence));
    object.insert("evidence".to_owned(), json!(said.evidence));
    if let Some(remedy) = &said.remedy {
        object.insert("remedy".to_owned(), json!(remedy));
    }
    Value::Object(object)
}

fn table(table: &Table) -> Value {
    let rows = table.rows.iter().map(|row| {
        let cells = table.columns.iter().zip(row);
        let cells = cells.filter_map(|(column, cell)| Some((column.key.to_owned(), value(cell)?)));
        Value::Object(cells.collect())
    });
    Value::Array(rows.collect())
}

/// `None` for what is left out.
fn value(cell: &Cell) -> Option<Value> {
    Some(match cell {
        Cell::Nothing => return None,
        Cell::Text(text) => json!(text),
        Cell::Count(count) => json!(count),
        Cell::Share(share) => json!(share),
        Cell::Time(time) => json!(micros(*time)),
        Cell::Counts(counts) => {
            let counts = counts
                .iter()
                .map(|(what, count)| (what.clone(), json!(count)));
            Value::Object(counts.collect())
        }
    })
}

/// The row as `trace` prints it, and why it is shown.
fn exchange(shown: &Shown<'_>) -> io::Result<Value> {
    let mut line = Vec::new();
    row(&shown.example.row, &shown.example.named, &mut line)?;
    let row: Value = serde_json::from_slice(&line)?;
    Ok(json!({ "why": shown.why, "row": row }))
}
