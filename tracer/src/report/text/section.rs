//! Reports for people: the finding first, its evidence under it, tables, exchanges one by one.

use std::io::{self, Write};

use super::{Paint, line, path, short};
use crate::report::{
    Report, Whole,
    section::{Cell, Said, Section, Shown, Table},
};

/// Most rows of a table.
const ROWS: usize = 12;

/// Most exchanges of a sort.
const SHOWN: usize = 2;

/// Most characters of a cell that is not the last of its row.
const CELL: usize = 44;

pub(in crate::report) fn section(
    report: &Report,
    section: &Section<'_>,
    whole: &Whole<'_>,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(colour);
    writeln!(out)?;
    write!(out, "{}", paint.strong(report.title))?;
    writeln!(out, "  {}", paint.dim(whole.range()))?;
    for said in &section.said {
        self::said(said, paint, out)?;
    }
    for table in &section.tables {
        self::table(table, paint, out)?;
    }
    for shown in section.exchanges.iter().filter(|shown| shown.nth <= SHOWN) {
        exchange(shown, paint, out)?;
    }
    for note in &section.notes {
        writeln!(out, "  {}", paint.dim(note))?;
    }
    Ok(())
}

fn said(said: &Said, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if said.bad {
        writeln!(out, "{} {}", paint.bad("✗"), paint.strong(&said.sentence))?;
    } else {
        writeln!(out, "  {}", said.sentence)?;
    }
    for evidence in &said.evidence {
        writeln!(out, "      {evidence}")?;
    }
    if let Some(remedy) = &said.remedy {
        writeln!(out, "      {} {remedy}", paint.strong("fix:"))?;
    }
    Ok(())
}

fn table(table: &Table, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n  {}", paint.strong(table.title))?;
    let last = table.columns.len() - 1;
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .take(ROWS)
        .map(|row| {
            let cells = row.iter().enumerate();
            cells
                .map(|(at, cell)| fit(&words(cell), at == last))
                .collect()
        })
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells
            .chain([table.columns[at].heading.chars().count()])
            .max()
            .unwrap_or(0)
    };
    let right: Vec<bool> = (0..=last).map(|at| table.is_number(at)).collect();
    let write_row = |cells: &[&str], dim: bool, out: &mut dyn Write| -> io::Result<()> {
        let mut line = String::from("   ");
        for (at, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(width(at) - cell.chars().count());
            line += " ";
            if right[at] {
                line = line + &pad + cell;
            } else {
                line = line + cell + &pad;
            }
            line += " ";
        }
        let line = line.trim_end();
        if dim {
            writeln!(out, "{}", paint.dim(line))
        } else {
            writeln!(out, "{line}")
        }
    };
    let headings: Vec<_> = table.columns.iter().map(|column| column.heading).collect();
    write_row(&headings, true, out)?;
    for row in &rows {
        let cells: Vec<_> = row.iter().map(String::as_str).collect();
        write_row(&cells, false, out)?;
    }
    if table.rows.len() > ROWS {
        let more = format!(
            "and {} more, with -o json or -o html",
            table.rows.len() - ROWS
        );
        writeln!(out, "    {}", paint.dim(more))?;
    }
    Ok(())
}

/// A cell in words.
pub(in crate::report) fn words(cell: &Cell) -> String {
    match cell {
        Cell::Nothing => "-".to_owned(),
        Cell::Text(text) => text.clone(),
        Cell::Count(count) => count.to_string(),
        Cell::Share(share) if *share > 0.0 && *share < 0.0005 => "< 0.1 %".to_owned(),
        Cell::Share(share) => format!("{:.1} %", share * 100.0),
        Cell::Time(time) => short(*time).to_string(),
        Cell::Counts(counts) if counts.is_empty() => "-".to_owned(),
        Cell::Counts(counts) if is_wordy(counts) => {
            let counts = counts.iter().map(|(what, count)| format!("{count} {what}"));
            counts.collect::<Vec<_>>().join("; ")
        }
        Cell::Counts(counts) => {
            let counts = counts.iter().map(|(what, count)| format!("{what} {count}"));
            counts.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Whether what was counted takes several words: a number behind them would be read with them.
pub(in crate::report) fn is_wordy(counts: &[(String, u64)]) -> bool {
    counts.iter().any(|(what, _)| what.contains(' '))
}

fn fit(text: &str, last: bool) -> String {
    if last {
        text.to_owned()
    } else {
        path::cut(text, CELL)
    }
}

fn exchange(shown: &Shown<'_>, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n  {}", paint.strong(&shown.why))?;
    let example = shown.example;
    line::in_utc(&example.row, &example.named, paint, out)
}

/// The line of an exchange, as it is printed when it ends, without what is under it.
pub(in crate::report) fn head(shown: &Shown<'_>) -> String {
    let mut line = Vec::new();
    let (row, named) = (&shown.example.row, &shown.example.named);
    // Writing to memory does not fail.
    let _ = line::in_utc(row, named, Paint(false), &mut line);
    let text = String::from_utf8_lossy(&line);
    text.lines().next().unwrap_or_default().to_owned()
}
