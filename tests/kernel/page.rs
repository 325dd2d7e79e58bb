//! The page of a real trace in a real browser: as it is, without JavaScript, and used.

use std::fs;
use std::process::Command;

use crate::support::program;

/// What Chromium makes of a page.
fn dom(html: &str) -> String {
    dom_in(Scheme::Light, html)
}

/// What the user of a browser likes, by the browser's own numbers.
#[derive(Clone, Copy)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

fn dom_in(scheme: Scheme, html: &str) -> String {
    let home = tempfile::tempdir().expect("there is room for temporary files");
    let page = home.path().join("page.html");
    fs::write(&page, html).expect("there is room for temporary files");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            scheme as u8
        ))
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium is installed by `cargo xtask setup`");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a page is UTF-8")
}

/// The page in a frame where scripts do not run, with what came of it put in the frame's place.
fn without_scripts(html: &str) -> String {
    let escaped = html.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!doctype html><iframe sandbox=\"allow-same-origin\" srcdoc=\"{escaped}\"></iframe>\n<script>\nonload = () => {{ const page = frames[0].document.documentElement; document.documentElement.replaceWith(document.adoptNode(page)); }};\n</script>"
    )
}

/// The page with a user who sorts names by queries, twice, and looks for some; what comes of it is in
/// the attribute `data-seen` of the body: the first three counts each way, and how many rows are left.
fn with_user(html: &str) -> String {
    const USER: &str = r#"
<script>
const table = document.getElementById("dns-names");
const at = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === "queries");
const counts = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[at].textContent));
const button = table.tHead.rows[0].cells[at].querySelector("button");
const sorted = (way) => counts().every((count, nth, all) => nth === 0 || way * (count - all[nth - 1]) >= 0);
const before = counts().length;
button.click();
const falls = sorted(-1) && table.querySelector("[aria-sort=descending]") !== null;
button.click();
const rises = sorted(1) && table.querySelector("[aria-sort=ascending]") !== null;
const input = table.closest("details").querySelector("input");
input.value = "MISSING";
input.dispatchEvent(new Event("input"));
const left = [...table.tBodies[0].rows].filter((row) => !row.hidden);
const right = left.length > 0 && left.every((row) => row.textContent.includes("missing"));
document.body.dataset.seen = [before > 20, falls, rises, right, left.length < before].join();
</script>"#;
    format!("{html}{USER}")
}

/// The page with a user who opens the first waterfall that is closed: in the attribute `data-seen` of the
/// body are whether it was to be seen before, whether it is now, how many bars it has, the page's
/// background, and what was asked of the network.
fn with_reader(html: &str) -> String {
    const READER: &str = r#"
<script>
const way = document.querySelector("details:not([open]) > div > table.way");
const before = way.checkVisibility();
way.closest("details").querySelector("summary").click();
const bars = [...way.querySelectorAll(".bar")].filter((bar) => bar.getBoundingClientRect().width > 0);
const back = getComputedStyle(document.body).backgroundColor.replaceAll(" ", "");
const asked = performance.getEntriesByType("resource").length;
document.body.dataset.seen = [before, way.checkVisibility(), bars.length > 4, back, asked].join(" ");
</script>"#;
    format!("{html}{READER}")
}

#[test]
#[ignore = "needs root, a BPF kernel and Chromium; run `cargo xtask test kernel`"]
fn a_browser_reads_the_page_of_a_trace_with_javascript_and_without() {
    let prefix = format!("t{}-page-", std::process::id());
    let trace = [
        "lab", "--for", "3s", "--path", "-o", "html", "--prefix", &prefix,
    ];
    let output = Command::new(program()).args(trace).output();
    let output = output.expect("the program was built");
    let code = output.status.code();
    assert!(code == Some(0) || code == Some(3), "{output:?}");
    let html = String::from_utf8(output.stdout).expect("a page is UTF-8");
    let count = |text: &str, what: &str| text.matches(what).count();

    let with = dom(&html);
    let rows = count(&html, "<tr>");
    assert!(rows > 50, "the lab fills the tables: {rows} rows");
    assert_eq!(count(&with, "<tr>"), rows, "rows that can be sorted");
    assert!(count(&with, "<th scope=\"col\"><button>") > 10, "headings");
    assert!(count(&with, "type=\"search\"") > 0, "rows can be filtered");
    let charts = count(&html, "<svg ");
    assert!(charts >= 10, "all charts are there: {charts}");

    let without = dom(&without_scripts(&html));
    assert_eq!(count(&without, "<tr>"), rows, "without JavaScript");
    assert_eq!(count(&without, "<svg "), charts, "without JavaScript");
    assert_eq!(count(&without, "<button>"), 0, "a button that does nothing");
    for section in ["stalls", "dns", "services", "drops", "unseen"] {
        let section = format!("<section id=\"{section}\">");
        assert!(without.contains(&section), "{section}");
    }

    let used = dom(&with_user(&html));
    let seen = "data-seen=\"true,true,true,true,true\"";
    assert!(
        used.contains(seen),
        "sorting and filtering: {:?}",
        used.find("data-seen").map(|at| &used[at..at + 60])
    );

    let read = with_reader(&html);
    for (scheme, back) in [
        (Scheme::Light, "rgb(255,255,255)"),
        (Scheme::Dark, "rgb(21,24,28)"),
    ] {
        let page = dom_in(scheme, &read);
        let seen = format!("data-seen=\"false true true {back} 0\"");
        assert!(
            page.contains(&seen),
            "a waterfall is opened, nothing is asked of the network, {back} is behind: {:?}",
            page.find("data-seen").map(|at| &page[at..at + 60])
        );
    }
}
