//! All reports and charts as one page: self-contained, to be read without JavaScript, dark where the
//! browser is, and to be printed. JavaScript adds sorting and filtering.

mod waterfall;

use std::{
    fmt::{self, Display},
    io::{self, Write},
};

use super::{
    ALL, Report, Whole,
    chart::{Chart, charts, dark_css},
    section::{Cell, Said, Section, Shown, Table},
    text::{head, is_wordy, words},
    whole::exchanges,
};

/// Exchanges whose way is drawn when the page opens; the others open on a click.
const OPEN: usize = 1;

/// Table rows from which on a table is closed when the page opens.
const LONG: usize = 40;

pub(super) fn page(whole: &Whole<'_>, out: &mut impl Write) -> io::Result<()> {
    let charts = charts(whole);
    let range = whole.range();
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>tracer, {}</title>\n<style>\n{}{}</style>\n",
        Text(&range),
        include_str!("html/page.css"),
        dark_css()
    )?;
    writeln!(
        out,
        "<header><h1>tracer</h1>\n<p>{}</p>\n<nav>",
        Text(&said_whole(whole))
    )?;
    for report in ALL {
        writeln!(
            out,
            "<a href=\"#{}\">{}</a>",
            report.name,
            Text(report.title)
        )?;
    }
    writeln!(out, "</nav></header>\n<main>")?;
    for report in ALL {
        section(report, &(report.build)(whole), &charts, out)?;
    }
    writeln!(
        out,
        "</main>\n<script>\n{}</script>",
        include_str!("html/page.js")
    )
}

/// When, how long, how many.
fn said_whole(whole: &Whole<'_>) -> String {
    let kinds = whole.breakdown().kinds.iter();
    let kinds =
        kinds.map(|(kind, tally)| format!("{} {}", kind.name(), exchanges(*kind, tally.count)));
    let kinds: Vec<_> = kinds.collect();
    let range = whole.range();
    format!(
        "{range}, {:.1} s traced: {}",
        whole.seconds,
        kinds.join(", ")
    )
}

/// Text with what HTML would read as its own escaped.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['<', '>', '&', '"', '\'']) {
            out.write_str(&rest[..at])?;
            out.write_str(match rest.as_bytes()[at] {
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'&' => "&amp;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        out.write_str(rest)
    }
}

fn section(
    report: &Report,
    section: &Section<'_>,
    charts: &[Chart],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "<section id=\"{}\"><h2>{}</h2>\n<ul class=\"said\">",
        report.name,
        Text(report.title)
    )?;
    for said in &section.said {
        self::said(said, out)?;
    }
    writeln!(out, "</ul>")?;
    for chart in charts.iter().filter(|chart| chart.report == report.name) {
        let svg = chart.inline_svg();
        writeln!(
            out,
            "<figure role=\"img\" aria-label=\"{}\">{svg}</figure>",
            Text(&chart.title)
        )?;
    }
    for table in &section.tables {
        self::table(report, table, out)?;
    }
    if !section.exchanges.is_empty() {
        writeln!(out, "<h3>one by one</h3>")?;
    }
    for (nth, shown) in section.exchanges.iter().enumerate() {
        exchange(shown, nth < OPEN, out)?;
    }
    for note in &section.notes {
        writeln!(out, "<p class=\"note\">{}</p>", Text(note))?;
    }
    writeln!(out, "</section>")
}

fn said(said: &Said, out: &mut impl Write) -> io::Result<()> {
    let class = if said.bad { " class=\"bad\"" } else { "" };
    write!(out, "<li{class}>{}", Text(&said.sentence))?;
    if !said.evidence.is_empty() {
        write!(out, "<ul>")?;
        for evidence in &said.evidence {
            write!(out, "<li>{}", Text(evidence))?;
        }
        write!(out, "</ul>")?;
    }
    if let Some(remedy) = &said.remedy {
        write!(
            out,
            "<p class=\"fix\">fix: <code>{}</code></p>",
            Text(remedy)
        )?;
    }
    writeln!(out)
}

/// Closing tags that HTML does not ask for are left out: there may be thousands of cells.
fn table(report: &Report, table: &Table, out: &mut impl Write) -> io::Result<()> {
    let open = if table.rows.len() > LONG { "" } else { " open" };
    write!(
        out,
        "<details{open}><summary>{} <small>({})</small></summary>\n<div class=\"scroll\"><table id=\"{}-{}\"><thead><tr>",
        Text(table.title),
        table.rows.len(),
        report.name,
        table.name
    )?;
    for (at, column) in table.columns.iter().enumerate() {
        let class = if table.is_number(at) {
            " class=\"n\""
        } else {
            ""
        };
        write!(out, "<th scope=\"col\"{class}>{}", Text(column.heading))?;
    }
    writeln!(out, "<tbody>")?;
    for row in &table.rows {
        write!(out, "<tr>")?;
        for (at, cell) in row.iter().enumerate() {
            match cell {
                // In another unit in each row: sorted by the value.
                Cell::Time(time) => write!(out, "<td class=\"n\" data-v=\"{}\">", time.as_nanos())?,
                _ if table.is_number(at) => write!(out, "<td class=\"n\">")?,
                _ => write!(out, "<td>")?,
            }
            match cell {
                Cell::Counts(counts) if is_wordy(counts) => lines(counts, out)?,
                cell => write!(out, "{}", Text(&words(cell)))?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "</table></div></details>")
}

/// What was counted, a line each.
fn lines(counts: &[(String, u64)], out: &mut impl Write) -> io::Result<()> {
    for (nth, (what, count)) in counts.iter().enumerate() {
        let end = if nth == 0 { "" } else { "<br>" };
        write!(out, "{end}{count} {}", Text(what))?;
    }
    Ok(())
}

fn exchange(shown: &Shown<'_>, open: bool, out: &mut impl Write) -> io::Result<()> {
    let open = if open { " open" } else { "" };
    let bad = if shown.example.row.outcome().is_good() {
        ""
    } else {
        " class=\"bad\""
    };
    writeln!(
        out,
        "<details{open}><summary{bad}>{}</summary>\n<p class=\"line\">{}</p>",
        Text(&shown.why),
        Text(&head(shown))
    )?;
    let row = &shown.example.row;
    match row.journey() {
        Some(journey) => waterfall::table(journey, row.dns(), &shown.example.named, out)?,
        None => writeln!(
            out,
            "<p class=\"note\">its way is not known: see --path</p>"
        )?,
    }
    writeln!(out, "</details>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Named, Row, Trace},
        report::tests::{dns, sample, whole},
    };

    fn page_of(trace: &Trace) -> String {
        let mut page = Vec::new();
        page_to(trace, &mut page);
        String::from_utf8(page).unwrap()
    }

    fn page_to(trace: &Trace, out: &mut Vec<u8>) {
        page(&whole(trace), out).unwrap();
    }

    #[test]
    fn the_page_needs_no_other_file_and_is_the_same_each_time() {
        let page = page_of(&sample());
        let links = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!links.contains(outside), "{outside}");
        }
        assert_eq!(page, page_of(&sample()));
    }

    #[test]
    fn every_report_is_a_section_and_every_row_of_its_tables_is_there() {
        let trace = sample();
        let page = page_of(&trace);
        let sections = ALL.iter().map(|report| (report.build)(&whole(&trace)));
        let rows: usize = sections
            .flat_map(|section| section.tables)
            .map(|table| table.rows.len())
            .sum();
        // Rows of tables begin their line; those of headings and waterfalls are told apart.
        let ways =
            page.matches("<tr><td>query<td>").count() + page.matches("<tr><td>answer<td>").count();
        assert_eq!(
            page.lines().filter(|line| line.starts_with("<tr>")).count(),
            rows + ways
        );
    }

    #[test]
    fn a_name_that_looks_like_html_is_but_a_name() {
        let mut trace = Trace::default();
        let row = Row::Dns(dns(1, "<script>alert('1')</script>&.test", 0, 200));
        trace.add(&row, &Named::default());
        let page = page_of(&trace);
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;.test"));
    }
}
