//! The command line as a user without root meets it: help, mistakes, exit codes.
//!
//! Help is compared with tests/data/cli/*.txt; with UPDATE_EXPECT=1 it is written there instead.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn tracer(words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(words.split_whitespace())
        .env_remove("COLUMNS")
        .env_remove("RUST_LOG")
        .output()
        .expect("cargo built it")
}

/// Help of `command` is what is on file.
fn check_help(command: &str, file: &str) {
    let output = tracer(&format!("{command} --help"));
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/cli")
        .join(file);
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, said.as_bytes()).expect("the directory is there");
    }
    let expected = fs::read_to_string(&path).expect("it was written with UPDATE_EXPECT=1");
    assert_eq!(said, expected, "{file}; if it is meant, UPDATE_EXPECT=1");
}

#[test]
fn help_of_each_command_is_what_is_on_file() {
    check_help("", "tracer.txt");
    check_help("trace", "trace.txt");
    check_help("record", "record.txt");
    check_help("report", "report.txt");
    check_help("export", "export.txt");
    check_help("diagnose", "diagnose.txt");
    check_help("drops", "drops.txt");
    check_help("doctor", "doctor.txt");
    check_help("explain", "explain.txt");
    check_help("lab", "lab.txt");
    check_help("probes", "probes.txt");
    check_help("lab-serve", "lab-serve.txt");
}

/// `words` end with 2 and this one line.
fn check(words: &str, expected: &str) {
    let output = tracer(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("tracer: {expected}\n"), "{words}");
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(output.stdout.is_empty(), "{words}");
}

#[test]
fn mistakes_are_told_in_one_line_that_names_the_remedy() {
    check("trace --xyzzy", "unexpected argument '--xyzzy' found");
    check(
        "trace --for",
        "a value is required for '--for <DURATION>' but none was supplied",
    );
    check(
        "trace --netsn x",
        "unexpected argument '--netsn' found; a similar argument exists: '--netns'",
    );
    check(
        "trase",
        "unrecognized subcommand 'trase'; a similar subcommand exists: 'trace'",
    );
    check(
        "trace -o xml",
        "invalid value 'xml' for '--output <OUTPUT>' [possible values: text, json, html]; a similar value exists: 'html'",
    );
    check(
        "trace --for soon",
        "invalid value 'soon' for '--for <DURATION>': not a duration: write 30s, 5m or 1h30m",
    );
    check(
        "trace --for 0s",
        "invalid value '0s' for '--for <DURATION>': not a duration: write 30s, 5m or 1h30m",
    );
    check(
        "trace --unanswered-after=-1s",
        "invalid value '-1s' for '--unanswered-after <DURATION>': not a duration: write 30s, 5m or 1h30m",
    );
    check(
        "trace --vip 10.96.0.0/33",
        "invalid value '10.96.0.0/33' for '--vip <CIDR>': not a prefix: write 10.96.0.0/12 or fd00:10:96::/112",
    );
    check(
        "trace --vip kube-dns",
        "invalid value 'kube-dns' for '--vip <CIDR>': not a prefix: write 10.96.0.0/12 or fd00:10:96::/112",
    );
    check(
        "trace --ring-kib 1000",
        "invalid value '1000' for '--ring-kib <KIB>': not a power of two between 4 and 1048576",
    );
    check(
        "trace --dns-port 0",
        "invalid value '0' for '--dns-port <PORT>': 0 is not in 1..=65535",
    );
    check(
        "trace --dns-port 1 --dns-port 2 --dns-port 3 --dns-port 4 --dns-port 5",
        "--dns-port was given 5 times: 4 ports can be watched at once",
    );
    check(
        "trace --selector app=web,",
        "invalid value 'app=web,' for '--selector <SELECTOR>': not a label selector: write app=web, tier!=db, env in (a,b), or !canary",
    );
    check(
        "trace --workload cart",
        "invalid value 'cart' for '--workload <WORKLOAD>': not a workload: write deploy/cart or shop/deploy/cart",
    );
    check(
        "trace --no-api --node n1",
        "--node goes by what the API server says: leave --no-api out",
    );
    check(
        "drops --every 0s",
        "invalid value '0s' for '--every <DURATION>': not a duration: write 30s, 5m or 1h30m",
    );
    check(
        "lab --prefix ../x",
        "build the lab: lab prefix \"../x\" is not a letter or digit and up to 31 letters, digits, '-' or '_'",
    );
}

#[test]
fn no_command_shows_what_there_is_and_fails() {
    let output = tracer("");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Commands:\n  trace"), "{said}");
}

#[test]
fn completion_knows_commands_and_options_in_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tracer(&format!("completion {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8_lossy(&output.stdout);
        for word in ["trace", "doctor", "workload"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = tracer("--version");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, concat!("tracer ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(output.status.code(), Some(0));
}

/// One source: what `tracer explain` prints is what the documentation says.
#[test]
fn the_documentation_has_the_page_of_each_finding() {
    let names = tracer("explain");
    assert_eq!(names.status.code(), Some(0));
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    let mut text =
        "# Findings\n\nWhat `tracer explain NAME` prints; made by `UPDATE_EXPECT=1 cargo test \
                    --test cli`.\n"
            .to_owned();
    let mut pages = 0;
    for line in names.lines() {
        let name = line.split_whitespace().next().expect("a line has a name");
        let page = tracer(&format!("explain {name}"));
        assert_eq!(page.status.code(), Some(0), "{name}");
        let page = String::from_utf8_lossy(&page.stdout).into_owned();
        let (title, rest) = page.split_once('\n').expect("a page has a title");
        text.extend(["\n## ", title, "\n", &rest.replace('<', "\\<")]);
        pages += 1;
    }
    assert!(pages > 50, "{names}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md");
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(&path, &text).expect("the directory is there");
    }
    let expected = fs::read_to_string(&path).expect("it was written with UPDATE_EXPECT=1");
    assert_eq!(text, expected, "if it is meant, UPDATE_EXPECT=1");
}
