//! Every query of docs/recordings.md, run by DuckDB over a recording; and the types that it says columns have.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::stories;

/// What the document calls a recording's directory, and a client's port.
const DIR: &str = "DIR/";
const PORT: &str = "54321";

/// Runs each of the queries on stdin, and prints the rows of each; values are as Python writes them.
const RUN: &str = r#"
import duckdb, json, sys
duckdb.sql("SET TimeZone = 'UTC'")
answers = []
for query in json.load(sys.stdin):
    try:
        answers.append([[str(value) for value in row] for row in duckdb.sql(query).fetchall()])
    except Exception as error:
        answers.append(str(error))
json.dump(answers, sys.stdout)
"#;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recordings.md");
    fs::read_to_string(path).expect("it is committed")
}

/// The queries, each with the sentence before it.
fn questions() -> Vec<(String, Vec<String>)> {
    let document = document();
    let mut blocks = document.split("```sql\n");
    let mut question = blocks.next().expect("text comes first").to_owned();
    let mut questions = Vec::new();
    for block in blocks {
        let (queries, after) = block.split_once("```").expect("it ends");
        let asked = question.trim_end().lines().last().unwrap_or_default();
        let queries = queries.split(';').map(str::trim);
        let queries = queries.filter(|query| !query.is_empty()).map(str::to_owned);
        questions.push((asked.to_owned(), queries.collect()));
        after.clone_into(&mut question);
    }
    questions
}

/// The rows that DuckDB answers to each of `queries`.
fn duckdb(queries: &[String]) -> Vec<Vec<Vec<String>>> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python");
    let mut child = Command::new(python)
        .args(["-c", RUN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("DuckDB is installed by `cargo xtask setup`");
    let stdin = child.stdin.take().expect("it is piped");
    serde_json::to_writer(&stdin, queries).expect("it reads");
    (&stdin).flush().expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it was started");
    assert!(output.status.success(), "{output:?}");
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let rows = answers.into_iter().zip(queries).map(|(answer, query)| {
        let rows = serde_json::from_value(answer.clone());
        rows.unwrap_or_else(|_| panic!("{answer}\n{query}"))
    });
    rows.collect()
}

#[test]
fn every_query_of_the_document_is_answered() {
    let story = stories().join("failures_by_cause");
    let story = format!("{}/", story.display());
    let port =
        format!("SELECT client_port FROM read_parquet('{story}exchanges/**/*.parquet') LIMIT 1");
    let port = duckdb(&[port]).concat().concat().concat();
    let questions = questions();
    assert!(questions.len() >= 9, "{questions:?}");
    let queries: Vec<String> = questions
        .iter()
        .flat_map(|(_, queries)| queries)
        .map(|query| query.replace(DIR, &story).replace(PORT, &port))
        .collect();
    let answers = duckdb(&queries);
    for (query, rows) in queries.iter().zip(&answers) {
        assert!(!rows.is_empty(), "no row: {query}");
        assert!(query.contains(&story), "not of the recording: {query}");
    }
    let of = |words: &str| -> &Vec<Vec<String>> {
        let at = questions
            .iter()
            .position(|(asked, _)| asked.starts_with(words));
        let at = at.unwrap_or_else(|| panic!("{words} is not asked"));
        let before: usize = questions
            .iter()
            .take(at)
            .map(|(_, queries)| queries.len())
            .sum();
        &answers[before]
    };
    let outcomes: Vec<_> = of("What fails").iter().map(|row| row[0].as_str()).collect();
    for outcome in ["dropped", "rejected", "unanswered"] {
        assert!(outcomes.contains(&outcome), "{outcomes:?}");
    }
    let asks = &of("Who asks most")[0];
    assert_eq!(asks[0], "st-client1");
    assert_eq!(of("Every sight")[0][1], "queued");
    let drops = of("What the kernel dropped");
    assert!(
        drops
            .iter()
            .any(|row| row[0] == "NETFILTER_DROP" && row[2] == "FORWARD"),
        "{drops:?}"
    );
    assert_eq!(of("What is missing")[0], ["0"]);
}

#[test]
fn columns_are_of_the_types_that_the_document_says() {
    let document = document();
    let (_, schema) = document
        .split_once("<!-- columns")
        .expect("it describes columns");
    let mut described = Vec::new();
    let mut table = "";
    for line in schema.lines() {
        if let Some(name) = line.strip_prefix("### `") {
            table = name.trim_end_matches('`');
        } else if let Some(row) = line.strip_prefix("| `") {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap_or_default().trim_end_matches('`');
            described.push(json!([table, name, cells.next()]));
        }
    }
    let story = stories().join("failures_by_cause");
    let tables = ["events", "exchanges", "connections", "drops"];
    let queries = tables.map(|table| {
        let files = format!("{}/{table}/**/*.parquet", story.display());
        format!("DESCRIBE FROM read_parquet('{files}', hive_partitioning = false)")
    });
    let mut found = Vec::new();
    for (table, rows) in tables.iter().zip(duckdb(&queries)) {
        for row in rows {
            // Of DuckDB 2; to 1 all moments are of one type.
            let kind = row[1]
                .to_lowercase()
                .replace("timestamptz_ns", "timestamptz");
            found.push(json!([table, row[0], kind]));
        }
    }
    assert_eq!(found, described);
}
