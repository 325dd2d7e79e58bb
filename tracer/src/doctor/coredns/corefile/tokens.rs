//! Lines of words: quotes, comments and environment variables as Caddy's lexer takes them.

/// The words of a line that has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    /// From 1.
    pub(super) number: usize,
}

/// Splits `text`. A quoted word may go on over lines, and belongs to the one it began on; a `#`
/// begins a comment only where a word could begin.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let mut word = String::new();
    let (mut number, mut began) = (1, 1);
    let (mut quoted, mut escaped, mut comment, mut inside) = (false, false, false, false);
    for char in text.chars().chain(['\n']) {
        if quoted {
            match char {
                '"' if !escaped => {
                    quoted = false;
                    push(&mut found, &mut word, began);
                    inside = false;
                }
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                _ => {
                    if escaped && char != '"' {
                        word.push('\\');
                    }
                    word.push(char);
                }
            }
            escaped = false;
        } else if char.is_whitespace() {
            if inside {
                push(&mut found, &mut word, began);
                inside = false;
            }
            comment &= char != '\n';
        } else if comment {
        } else if !inside && char == '#' {
            comment = true;
        } else if !inside && char == '"' {
            (quoted, inside, began) = (true, true, number);
        } else {
            if !inside {
                (inside, began) = (true, number);
            }
            word.push(char);
        }
        number += usize::from(char == '\n');
    }
    found
}

fn push(found: &mut Vec<Line>, word: &mut String, number: usize) {
    let word = std::mem::take(word);
    match found.last_mut() {
        Some(line) if line.number == number => line.words.push(word),
        _ => found.push(Line {
            words: vec![word],
            number,
        }),
    }
}
