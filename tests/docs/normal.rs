//! Output without what differs from run to run: names of runs, commits, times, addresses, the width of columns.

/// A text, line by line.
pub(crate) fn text(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(line).collect();
    lines.join("\n").trim_end().to_owned()
}

/// One line.
pub(crate) fn line(line: &str) -> String {
    if line.trim_start().starts_with("Date: ") {
        return "Date: [TIME]".to_owned();
    }
    let words: Vec<_> = line.trim_end().split(' ').map(word).collect();
    let mut text = words.join(" ");
    for (long, short) in [("in [TIME]", "[TIME]"), ("[TIME] ago", "[TIME]"), ("   ", "  "), ("   ", "  ")] {
        while text.contains(long) {
            text = text.replace(long, short);
        }
    }
    if text.contains("greeted") {
        text = text.replace(|c: char| c.is_ascii_digit(), "");
    }
    text
}

/// What stands between spaces: parts that differ, joined by characters that don't.
fn word(word: &str) -> String {
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if word.split_once('/').is_some_and(|(busy, slots)| is_count(busy) && is_count(slots)) {
        return "[BUSY]".to_owned();
    }
    let belongs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_');
    let (mut text, mut rest) = (String::new(), word);
    while let Some(start) = rest.find(belongs) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !belongs(c)).unwrap_or(from.len());
        let token = from[..end].trim_end_matches(['.', ':']);
        text += before;
        text += kind(token).unwrap_or(token);
        text += &from[token.len()..end];
        rest = &from[end..];
    }
    text + rest
}

fn kind(token: &str) -> Option<&'static str> {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_run = || token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let is_version = || token.split('.').count() == 3 && token.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match token.len() {
        _ if token.starts_with("xene-join.") => Some("[TOKEN]"),
        _ if token.starts_with("127.0.0.1:") || token.starts_with("0.0.0.0:") => Some("[ADDRESS]"),
        _ if token.strip_prefix("dir-").is_some_and(is_hex) => Some("[ID]"),
        26 if is_run() => Some("[RUN]"),
        7 | 12 | 16 | 40 | 64 if is_hex(token) => Some("[ID]"),
        20.. if token.ends_with('Z') && token.as_bytes()[10] == b'T' => Some("[TIME]"),
        _ if token == "now" || is_duration(token) => Some("[TIME]"),
        _ if is_version() => Some("[VERSION]"),
        _ => None,
    }
}

/// `3s`, `1.2s`, `31ms`, `1m05s`.
fn is_duration(token: &str) -> bool {
    let mut rest = token;
    while let Some(unit) = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|unit| *unit > 0) {
        rest = &rest[unit..];
        match ["ms", "s", "m", "h", "d"].iter().find_map(|unit| rest.strip_prefix(unit)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty() && !token.is_empty()
}

#[test]
fn what_differs_is_named_and_the_rest_stays() {
    let table = [
        ("NAME   AGE\n01m888myjtf9mcv85qb7vjje3f    3s  \n", "NAME  AGE\n[RUN]  [TIME]"),
        ("for 2s, looked at now (1fd20c7: x)", "for [TIME], looked at [TIME] ([ID]: x)"),
        ("in 5s (2026-11-25T02:16:00.000Z)", "[TIME] ([TIME])"),
        ("xene 0.1.0 at http://127.0.0.1:7420", "xene [VERSION] at http://[ADDRESS]"),
        ("2/4 run/01m888myjtf9mcv85qb7vjje3f", "[BUSY] run/[RUN]"),
        ("exited with 7 at greet.yaml:13:11: x", "exited with 7 at greet.yaml:13:11: x"),
        ("took 1m05s.", "took [TIME]."),
    ];
    for (found, expected) in table {
        assert_eq!(text(found), expected);
    }
}
