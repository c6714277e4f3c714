//! A look at the text before the parser's: its recursion and its memory are bounded here, in one pass.

use super::{ExprError, TEXT_LIMIT};

/// Names, numbers, texts and signs of one expression.
const TOKENS: usize = 1_000;
/// Operations that take each other's results. The parser's recursion and the tree's are as deep.
const DEPTH: usize = 64;
/// What a bracket counts for: the parser goes through all kinds of operators for each.
const BRACKET: usize = 4;

/// What stands between two brackets, or in the whole.
#[derive(Default)]
struct Level {
    /// Where it opens, and with what.
    start: usize,
    bracket: u8,
    /// Signs since the last one that begins anew, on top of the deepest bracket among them.
    depth: usize,
    /// The deepest before that.
    deepest: usize,
    /// Each `?` is a level for what follows it.
    conditions: usize,
}

impl Level {
    fn total(&self) -> usize {
        self.depth.max(self.deepest) + self.conditions
    }
}

/// Refuses what is too large, and words the mistakes that a parser would word worse.
pub(super) fn check(text: &str) -> Result<(), ExprError> {
    if text.len() > TEXT_LIMIT {
        let message = format!("the expression is {} bytes long; the limit is {TEXT_LIMIT}", text.len());
        return Err(ExprError::too_large(None, message));
    }
    let bytes = text.as_bytes();
    let (mut at, mut tokens) = (0, 0);
    let mut level = Level::default();
    let mut around: Vec<Level> = Vec::new();
    while let Some(byte) = bytes.get(at) {
        let start = at;
        let next = bytes.get(at + 1).copied();
        at += 1;
        tokens += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' => tokens -= 1,
            b'/' if next == Some(b'/') => {
                tokens -= 1;
                at = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |end| at + end);
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9' => {
                at = end_of_word(bytes, at);
                let word = &text[start..at];
                if ["r", "b", "br", "rb"].iter().any(|prefix| prefix.eq_ignore_ascii_case(word))
                    && matches!(bytes.get(at), Some(b'"' | b'\''))
                {
                    at = end_of_text(bytes, at, word.contains(['r', 'R'])).ok_or_else(|| unclosed_text(start))?;
                }
                level.depth += usize::from(word == "in");
            }
            b'"' | b'\'' => at = end_of_text(bytes, start, false).ok_or_else(|| unclosed_text(start))?,
            b'(' | b'[' | b'{' => {
                around.push(std::mem::replace(&mut level, Level { start, bracket: *byte, ..Level::default() }));
                if around.len() * BRACKET > DEPTH {
                    return Err(too_deep(start));
                }
            }
            b')' | b']' | b'}' => {
                let opening = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                let (shown, wanted) = (char::from(*byte), char::from(opening));
                let Some(outer) = around.pop() else {
                    return Err(ExprError::syntax(start, format!("`{shown}` has no `{wanted}` before it")));
                };
                if level.bracket != opening {
                    let message = format!("`{shown}` does not close `{}`", char::from(level.bracket));
                    return Err(ExprError::syntax(start, message));
                }
                let inner = level.total() + BRACKET;
                level = outer;
                level.depth = (level.depth + 1).max(inner);
            }
            b',' | b':' => begin_anew(&mut level),
            b'?' => {
                begin_anew(&mut level);
                level.conditions += 1;
            }
            b'&' | b'|' if next == Some(*byte) => {
                at += 1;
                begin_anew(&mut level);
            }
            b'=' if next == Some(b'=') => {
                at += 1;
                level.depth += 1;
            }
            b'!' | b'<' | b'>' if next == Some(b'=') => {
                at += 1;
                level.depth += 1;
            }
            b'!' => {}
            b'<' | b'>' | b'+' | b'-' | b'*' | b'/' | b'%' | b'.' => level.depth += 1,
            b'=' => return Err(ExprError::syntax(start, "`=` does not compare; write `==`")),
            b'&' => return Err(ExprError::syntax(start, "`&` is not known; write `&&` for and")),
            b'|' => return Err(ExprError::syntax(start, "`|` is not known; write `||` for or")),
            b'$' => {
                let message = "`$` is not known; an expression stands by itself, without ${{ }}";
                return Err(ExprError::syntax(start, message));
            }
            _ => {
                let character: String = text[start..].chars().take(1).flat_map(char::escape_debug).collect();
                return Err(ExprError::syntax(start, format!("`{character}` is not known outside of quotes")));
            }
        }
        if level.total() > DEPTH {
            return Err(too_deep(start));
        }
        if tokens > TOKENS {
            let message = format!("the expression has more than {TOKENS} words and signs");
            return Err(ExprError::too_large(Some(start), message));
        }
    }
    if !around.is_empty() {
        return Err(ExprError::syntax(level.start, format!("`{}` is not closed", char::from(level.bracket))));
    }
    if tokens == 0 { Err(ExprError::syntax(0, "the expression is empty")) } else { Ok(()) }
}

/// After a comma, an `&&` or a `||`: what follows does not take the result of what was before.
fn begin_anew(level: &mut Level) {
    level.deepest = level.deepest.max(level.depth);
    level.depth = 0;
}

fn too_deep(start: usize) -> ExprError {
    let message = "too many operations and brackets take each other's results; split the expression";
    ExprError::too_large(Some(start), message)
}

fn unclosed_text(start: usize) -> ExprError {
    ExprError::syntax(start, "the quotes that open here are not closed")
}

fn end_of_word(bytes: &[u8], from: usize) -> usize {
    let more = bytes[from..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    from + more
}

/// Where the text that opens at `start` ends, after its quotes; none if it does not.
fn end_of_text(bytes: &[u8], start: usize, raw: bool) -> Option<usize> {
    let quote = *bytes.get(start)?;
    let triple = bytes.get(start..start + 3).is_some_and(|three| three.iter().all(|b| *b == quote));
    let mut at = if triple { start + 3 } else { start + 1 };
    loop {
        match *bytes.get(at)? {
            b'\\' if !raw => at += 2,
            b'\n' | b'\r' if !triple => return None,
            byte if byte == quote && !triple => return Some(at + 1),
            byte if byte == quote && bytes.get(at..at + 3).is_some_and(|three| three.iter().all(|b| *b == quote)) => {
                return Some(at + 3);
            }
            _ => at += 1,
        }
    }
}
