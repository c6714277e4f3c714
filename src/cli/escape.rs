//! Text from elsewhere made safe for a terminal: only colours may act on it, everything else is shown, not obeyed.

/// Where in an escape sequence the text stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`, with the bytes since.
    Sequence(Vec<u8>),
}

/// Passes a stream of bytes on to a terminal. Lines, tabs and SGR colours (`ESC [ … m`) pass; other control
/// characters, escape sequences and bidirectional overrides become visible text; what is not UTF-8 becomes `\xNN`.
#[derive(Debug)]
pub struct Escaper {
    state: State,
    /// The bytes of a character that is not whole yet.
    partial: Vec<u8>,
    /// True after a colour that no reset has followed.
    coloured: bool,
}

/// A colour sequence is short; what is longer is not one.
const LONGEST_SEQUENCE: usize = 64;

impl Default for Escaper {
    fn default() -> Self {
        Self { state: State::Text, partial: Vec::new(), coloured: false }
    }
}

impl Escaper {
    /// Takes the next bytes, gives what may be written. A sequence or character that is cut waits for its rest.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.partial).as_slice(), bytes].concat();
            joined.as_slice()
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.character(c, &mut out));
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    // Valid by the split; lossy only spares a second check's error path.
                    String::from_utf8_lossy(good).chars().for_each(|c| self.character(c, &mut out));
                    let Some(length) = error.error_len() else {
                        self.partial = bad.to_vec();
                        break;
                    };
                    self.give_up(&mut out);
                    bad[..length].iter().for_each(|byte| hex(*byte, &mut out));
                    rest = &bad[length..];
                }
            }
        }
        out
    }

    /// What is left at the end, and a reset if colours are still on.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.give_up(&mut out);
        std::mem::take(&mut self.partial).into_iter().for_each(|byte| hex(byte, &mut out));
        if std::mem::take(&mut self.coloured) {
            out.push_str("\x1b[0m");
        }
        out
    }

    fn character(&mut self, c: char, out: &mut String) {
        match (&mut self.state, c) {
            (State::Text, '\x1b') => self.state = State::Escape,
            (State::Text, c) => visible(c, out),
            (State::Escape, '[') => self.state = State::Sequence(Vec::new()),
            (State::Sequence(bytes), '0'..='9' | ';' | ':') if bytes.len() < LONGEST_SEQUENCE => {
                bytes.extend(c.to_string().bytes());
            }
            (State::Sequence(bytes), 'm') => {
                let codes = String::from_utf8_lossy(bytes).into_owned();
                self.coloured = !matches!(codes.as_str(), "" | "0");
                out.push_str("\x1b[");
                out.push_str(&codes);
                out.push('m');
                self.state = State::Text;
            }
            (State::Escape | State::Sequence(_), c) => {
                self.give_up(out);
                self.character(c, out);
            }
        }
    }

    /// Shows a sequence that turned out to be no colour.
    fn give_up(&mut self, out: &mut String) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => {}
            State::Escape => out.push_str("\\x1b"),
            State::Sequence(bytes) => {
                out.push_str("\\x1b[");
                out.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}

/// One line of text from elsewhere, such as a name or a message, with nothing in it that acts on a terminal.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c => visible(c, &mut out),
        }
    }
    out
}

/// The same of a program's output, of which only the text matters: colours are left out, and of a line that was
/// written over by carriage returns only what was to be seen last is kept.
pub fn output_line(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("\x1b[") {
        out += &line(before);
        let end = tail.find(|c: char| !matches!(c, '0'..='9' | ';' | ':')).unwrap_or(tail.len());
        match tail[end..].strip_prefix('m') {
            Some(after) => rest = after,
            None => {
                out += "\\x1b[";
                rest = tail;
            }
        }
    }
    out + &line(rest)
}

fn hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("\\x");
    out.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
}

fn visible(c: char, out: &mut String) {
    match c {
        '\n' | '\t' => out.push(c),
        // A carriage return overwrites what was said before.
        '\r' => out.push_str("\\r"),
        // Bidirectional controls reorder what a person reads.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            out.extend(c.escape_unicode());
        }
        // All of them are below U+00A0.
        c if c.is_control() => hex(u32::from(c) as u8, out),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &[u8], expected: &str) {
        for cut in 0..=input.len() {
            let mut escaper = Escaper::default();
            let text = escaper.push(&input[..cut]) + &escaper.push(&input[cut..]) + &escaper.finish();
            assert_eq!(text, expected, "cut at {cut}");
        }
    }

    #[test]
    fn colours_pass_and_all_else_is_shown() {
        check(b"plain\ttext\n", "plain\ttext\n");
        check(b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m");
        check(b"\x1b[38:5:1mred", "\x1b[38:5:1mred\x1b[0m");
        check("gr\u{fc}n \u{1f600}".as_bytes(), "gr\u{fc}n \u{1f600}");
        check(b"\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07");
        check(b"\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\");
        check(b"\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H");
        check(b"\x1b[?25l", "\\x1b[?25l");
        check(b"\x1b\x1b[1mx\x1b[m", "\\x1b\x1b[1mx\x1b[m");
        check(b"\x1b[12", "\\x1b[12");
        check(b"a\x08b\x00", "a\\x08b\\x00");
        check(b"\xff\xfe\n", "\\xff\\xfe\n");
        check(b"\xe2\x82", "\\xe2\\x82");
        check("\u{9b}31m".as_bytes(), "\\x9b31m");
        check("a\u{202e}b".as_bytes(), "a\\u{202e}b");
        check(b"50%\r100%\n", "50%\\r100%\n");
    }

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(line("two\nlines\x1b[31m"), "two lines\\x1b[31m");
    }

    #[test]
    fn output_loses_its_colours_and_what_was_written_over() {
        assert_eq!(output_line("\x1b[1;31merror\x1b[0m: no\n"), "error: no");
        assert_eq!(output_line("10%\r55%\r100%\r\n"), "100%");
        assert_eq!(output_line("a\x1b[2Jb\x1b[3"), "a\\x1b[2Jb\\x1b[3");
        assert_eq!(output_line("\x1b]0;t\x07"), "\\x1b]0;t\\x07");
    }

    proptest! {
        #[test]
        fn nothing_but_colours_reaches_the_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let mut escaper = Escaper::default();
            let text = escaper.push(&bytes[..cut]) + &escaper.push(&bytes[cut..]) + &escaper.finish();
            let mut rest = text.as_str();
            while let Some(at) = rest.find(|c: char| c.is_control() && c != '\n' && c != '\t') {
                let tail = rest[at..].strip_prefix("\x1b[").expect("only colours begin so");
                let end = tail.find(|c: char| !matches!(c, '0'..='9' | ';' | ':')).expect("a colour ends");
                prop_assert!(tail[end..].starts_with('m'));
                rest = &tail[end..];
            }
        }
    }
}
