//! Problems as people read them: place, sentence, the line itself with a caret, and how to mend it.

use std::fmt::Write;

use xene_schemas::diagnostic::Diagnostic;

/// The longest piece of a line that is shown, in characters.
const MAX_SHOWN: usize = 160;

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
    let mut out = format!("{diagnostic}\n");
    let line = diagnostic.line.checked_sub(1).and_then(|line| text?.lines().nth(line as usize));
    let margin = diagnostic.line.to_string().len();
    if let Some(line) = line {
        let before = diagnostic.column.saturating_sub(1) as usize;
        let marked = marked_length(line.chars().skip(before));
        // A line without end (JSON, most often) is shown from a little before the place.
        let skipped = if before + marked > MAX_SHOWN { before.saturating_sub(MAX_SHOWN / 4) } else { 0 };
        let shown: String = line.chars().skip(skipped).take(MAX_SHOWN).map(visible).collect();
        let number = diagnostic.line;
        let pad = " ".repeat(before - skipped);
        let carets = "^".repeat(marked.min(MAX_SHOWN - (before - skipped)).max(1));
        // Writing to a string does not fail.
        let _ = writeln!(out, "{:margin$} |", "");
        let _ = writeln!(out, "{number} | {}", shown.trim_end());
        let _ = writeln!(out, "{:margin$} | {pad}{carets}", "");
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(out, "{:margin$} = hint: {hint}", "");
    }
    out
}

/// How much of a line the carets mark: a word, or a text in quotes.
fn marked_length(rest: impl Iterator<Item = char>) -> usize {
    let mut rest = rest.peekable();
    if let Some(quote) = rest.peek().copied().filter(|c| matches!(c, '"' | '\'')) {
        return 2 + rest.skip(1).take_while(|c| *c != quote).count();
    }
    rest.take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ']' | '}' | ':')).count().max(1)
}

/// Tabs and other control characters would move the caret or the terminal.
fn visible(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}
