//! Problems as people read them: place, sentence, the line itself with a caret, and how to mend it.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use xene_schemas::diagnostic::Diagnostic;

/// How much of a line is shown, in columns of a terminal.
const MAX_SHOWN: usize = 160;
/// How much of a line that is cut stands before the place.
const CONTEXT: usize = 40;

/// Plain text, several lines, ending with a line break:
///
/// ```text
/// xene.d/a.yaml:7:17: error[XE0030]: this workflow has no trigger `nightli`
///   |
/// 7 |       triggers: nightli
///   |                 ^^^^^^^
///   = hint: did you mean `nightly`?
/// ```
///
/// Without the file's text, or for a problem of the whole file, only the sentence and the hint.
pub fn render(diagnostic: &Diagnostic, text: Option<&str>) -> String {
    let line = diagnostic.line.checked_sub(1).and_then(|line| text?.lines().nth(line as usize));
    render_line(diagnostic, line)
}

/// The lines of a file, found once however many problems it has.
#[derive(Debug)]
pub struct Lines<'t>(Vec<&'t str>);

impl<'t> Lines<'t> {
    /// Those of a text.
    pub fn of(text: &'t str) -> Self {
        Self(text.lines().collect())
    }

    /// [`render`], for one of many problems of this text.
    pub fn render(&self, diagnostic: &Diagnostic) -> String {
        let line = diagnostic.line.checked_sub(1).and_then(|line| self.0.get(line as usize).copied());
        render_line(diagnostic, line)
    }
}

fn render_line(diagnostic: &Diagnostic, line: Option<&str>) -> String {
    let mut out = format!("{diagnostic}\n");
    let margin = diagnostic.line.to_string().len();
    if let Some(Excerpt { text, before, marked }) = line.map(|line| excerpt(line, diagnostic.column)) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{:margin$} |", "");
        let _ = writeln!(out, "{} | {text}", diagnostic.line);
        let _ = writeln!(out, "{:margin$} | {}{}", "", " ".repeat(before), "^".repeat(marked));
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(out, "{:margin$} = hint: {hint}", "");
    }
    out
}

/// A part of a line, and what of it is meant, in columns of a terminal.
#[derive(Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    before: usize,
    marked: usize,
}

/// `column` is in characters, from 1; 0 means the whole line.
fn excerpt(line: &str, column: u32) -> Excerpt {
    let start = column.saturating_sub(1) as usize;
    let length = if column == 0 { line.trim_end().chars().count() } else { marked_length(line.chars().skip(start)) };
    // A line without end (JSON, most often) is shown from a little before the place.
    let shown_before: usize = line.chars().take(start).map(width).sum();
    let skipped = if shown_before + length > MAX_SHOWN { start.saturating_sub(CONTEXT) } else { 0 };
    let mut text = if skipped > 0 { "…".to_owned() } else { String::new() };
    let (mut before, mut marked) = (text.width(), 0);
    for (index, c) in line.chars().enumerate().skip(skipped) {
        if text.width() + width(c) > MAX_SHOWN {
            text.push('…');
            break;
        }
        match index {
            _ if index < start => before += width(c),
            _ if index < start + length => marked += width(c),
            _ => {}
        }
        text.push_str(&visible(c));
    }
    Excerpt { text: text.trim_end().to_owned(), before, marked: marked.max(1) }
}

/// How much of a line the carets mark: a word, or a text in quotes.
fn marked_length(rest: impl Iterator<Item = char>) -> usize {
    let mut rest = rest.peekable();
    if let Some(quote) = rest.peek().copied().filter(|c| matches!(c, '"' | '\'')) {
        return 2 + rest.skip(1).take_while(|c| *c != quote).count();
    }
    rest.take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}' | ':')).count().max(1)
}

/// A tab is as wide as it stands in most editors that show YAML.
const TAB: &str = "  ";

fn width(c: char) -> usize {
    if c == '\t' {
        TAB.len()
    } else if c.is_control() {
        1
    } else {
        c.width().unwrap_or(0)
    }
}

/// Tabs and other control characters would move the caret or the terminal.
fn visible(c: char) -> String {
    if c == '\t' {
        TAB.to_owned()
    } else if c.is_control() {
        " ".to_owned()
    } else {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(line: &str, column: u32) -> String {
        let Excerpt { text, before, marked } = excerpt(line, column);
        format!("{text}\n{}{}", " ".repeat(before), "^".repeat(marked))
    }

    #[test]
    fn carets_stand_below_what_is_meant() {
        assert_eq!(drawn("a: nightli # x", 4), "a: nightli # x\n   ^^^^^^^");
        assert_eq!(drawn("a: \"x y\", b", 4), "a: \"x y\", b\n   ^^^^^");
        assert_eq!(drawn("\ta: b", 2), "  a: b\n  ^", "a tab is two columns wide");
        assert_eq!(drawn("名: 前", 4), "名: 前\n    ^^", "characters of two columns");
        assert_eq!(drawn("a: e\u{301}x", 4), "a: e\u{301}x\n   ^^", "characters of no column");
        assert_eq!(drawn("a: b", 9), "a: b\n    ^", "beyond the end");
        assert_eq!(drawn("  whole line ", 0), "  whole line\n^^^^^^^^^^^^");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}here{}", "x ".repeat(500), " y".repeat(500));
        let text = drawn(&line, 1001);
        let (shown, carets) = text.split_once('\n').unwrap();
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert!(shown.width() <= MAX_SHOWN + 1);
        assert_eq!(shown.chars().skip(carets.find('^').unwrap()).take(4).collect::<String>(), "here");
        assert_eq!(carets.trim(), "^^^^");
    }
}
