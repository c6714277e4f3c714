//! A line of a log as HTML: text stays text, colours become fixed classes, all other escape sequences are dropped.

use std::{borrow::Cow, fmt::Write as _};

use anstyle_parse::{Params, Parser, Perform};

/// How text looks, in the terms of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    /// One of the sixteen colours.
    ink: Option<u8>,
    paper: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    strike: bool,
    inverse: bool,
}

/// Writes one line, without its line feed, as HTML. `style` is what earlier lines left, and becomes what this one
/// leaves. What a carriage return overwrote is not shown, as on a terminal.
pub(super) fn write_line(line: &[u8], style: &mut Style, html: &mut String) {
    let mut writer = Writer { style: *style, open: Style::default(), html };
    // A parser for each line: a sequence that is never ended must not swallow the next one.
    let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::new();
    let end = line.strip_suffix(b"\r").unwrap_or(line);
    let shown = end.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    for byte in &end[..shown] {
        parser.advance(&mut Silent(&mut writer.style), *byte);
    }
    for byte in String::from_utf8_lossy(&end[shown..]).bytes() {
        parser.advance(&mut writer, byte);
    }
    writer.switch(Style::default());
    *style = writer.style;
}

/// The text of a line alone, as it is searched.
pub(super) fn plain(line: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(line);
    // Most lines hold nothing but text.
    if text.bytes().all(|byte| byte >= b' ' || byte == b'\t') && !text.contains('\u{7f}') {
        return text;
    }
    struct Text(String);
    impl Perform for Text {
        fn print(&mut self, c: char) {
            self.0.push(c);
        }
        fn execute(&mut self, byte: u8) {
            if byte == b'\t' {
                self.0.push('\t');
            }
        }
    }
    let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::new();
    let mut plain = Text(String::with_capacity(line.len()));
    text.bytes().for_each(|byte| parser.advance(&mut plain, byte));
    Cow::Owned(plain.0)
}

/// Follows styles without showing anything.
struct Silent<'a>(&'a mut Style);

impl Perform for Silent<'_> {
    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if action == b'm' && intermediates.is_empty() && !ignore {
            self.0.apply(params);
        }
    }
}

struct Writer<'a> {
    style: Style,
    /// What the open `<span>` shows; the default needs none.
    open: Style,
    html: &'a mut String,
}

impl Writer<'_> {
    fn switch(&mut self, to: Style) {
        if self.open == to {
            return;
        }
        if self.open != Style::default() {
            self.html.push_str("</span>");
        }
        if to != Style::default() {
            self.html.push_str("<span class=\"");
            to.write_classes(self.html);
            self.html.push_str("\">");
        }
        self.open = to;
    }
}

impl Perform for Writer<'_> {
    fn print(&mut self, c: char) {
        self.switch(self.style);
        match c {
            '<' => self.html.push_str("&lt;"),
            '>' => self.html.push_str("&gt;"),
            '&' => self.html.push_str("&amp;"),
            '"' => self.html.push_str("&quot;"),
            c if is_treacherous(c) => {
                // Writing to a String can't fail.
                let _ = write!(self.html, "<span class=\"ctl\">U+{:04X}</span>", u32::from(c));
            }
            c => self.html.push(c),
        }
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\t' {
            self.html.push('\t');
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        Silent(&mut self.style).csi_dispatch(params, intermediates, ignore, action);
    }
}

/// True for characters that turn the order of others or stand for nothing that can be seen.
pub(super) fn is_treacherous(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || (c.is_control() && c != '\t')
        || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

impl Style {
    fn apply(&mut self, params: &Params) {
        let mut groups = params.iter();
        if params.is_empty() {
            *self = Self::default();
        }
        while let Some(group) = groups.next() {
            match *group {
                [0] | [] => *self = Self::default(),
                [1] => self.bold = true,
                [2] => self.dim = true,
                [3] => self.italic = true,
                [4] => self.underline = true,
                [4, kind] => self.underline = kind != 0,
                [7] => self.inverse = true,
                [9] => self.strike = true,
                [22] => (self.bold, self.dim) = (false, false),
                [23] => self.italic = false,
                [24] => self.underline = false,
                [27] => self.inverse = false,
                [29] => self.strike = false,
                [code @ 30..=37] => self.ink = u8::try_from(code - 30).ok(),
                [code @ 90..=97] => self.ink = u8::try_from(code - 90 + 8).ok(),
                [39] => self.ink = None,
                [code @ 40..=47] => self.paper = u8::try_from(code - 40).ok(),
                [code @ 100..=107] => self.paper = u8::try_from(code - 100 + 8).ok(),
                [49] => self.paper = None,
                // Written with semicolons its parts are groups of their own.
                [38] => self.ink = extended(&mut groups.by_ref().map(|group| group.first().copied().unwrap_or(0))),
                [48] => self.paper = extended(&mut groups.by_ref().map(|group| group.first().copied().unwrap_or(0))),
                [38, ref rest @ ..] => self.ink = extended(&mut without_space(rest)),
                [48, ref rest @ ..] => self.paper = extended(&mut without_space(rest)),
                _ => {}
            }
        }
    }

    fn write_classes(self, html: &mut String) {
        let mut gap = "";
        let mut word = |html: &mut String, word: &str, number: Option<u8>| {
            html.push_str(gap);
            html.push_str(word);
            if let Some(number) = number {
                // Writing to a String can't fail.
                let _ = write!(html, "{number}");
            }
            gap = " ";
        };
        if self.ink.is_some() {
            word(html, "f", self.ink);
        }
        if self.paper.is_some() {
            word(html, "b", self.paper);
        }
        let marks = [
            (self.bold, "sb"),
            (self.dim, "sd"),
            (self.italic, "si"),
            (self.underline, "su"),
            (self.strike, "ss"),
            (self.inverse, "sr"),
        ];
        marks.iter().filter(|(is_set, _)| *is_set).for_each(|(_, mark)| word(html, mark, None));
    }
}

/// `38:2:SPACE:r:g:b` names a colour space first, `38:2:r:g:b` does not.
fn without_space(rest: &[u16]) -> impl Iterator<Item = u16> {
    let skipped = usize::from(rest.len() >= 5 && rest[0] == 2);
    rest.iter().take(1).chain(rest.iter().skip(1 + skipped)).copied()
}

/// The nearest of the sixteen colours to one of 256, or of 16 millions.
fn extended(codes: &mut dyn Iterator<Item = u16>) -> Option<u8> {
    match codes.next()? {
        5 => Some(match codes.next()? {
            code @ 0..=15 => u8::try_from(code).ok()?,
            code @ 16..=231 => {
                let level = |n: u16| if n == 0 { 0 } else { 55 + n * 40 };
                let code = code - 16;
                nearest(level(code / 36), level(code / 6 % 6), level(code % 6))
            }
            code @ 232..=255 => {
                let grey = 8 + (code - 232) * 10;
                nearest(grey, grey, grey)
            }
            _ => return None,
        }),
        2 => Some(nearest(codes.next()?, codes.next()?, codes.next()?)),
        _ => None,
    }
}

fn nearest(red: u16, green: u16, blue: u16) -> u8 {
    const PALETTE: [(i32, i32, i32); 16] = [
        (0, 0, 0),
        (170, 0, 0),
        (0, 170, 0),
        (170, 85, 0),
        (0, 0, 170),
        (170, 0, 170),
        (0, 170, 170),
        (170, 170, 170),
        (85, 85, 85),
        (255, 85, 85),
        (85, 255, 85),
        (255, 255, 85),
        (85, 85, 255),
        (255, 85, 255),
        (85, 255, 255),
        (255, 255, 255),
    ];
    let apart = |(r, g, b): &(i32, i32, i32)| {
        let square = |a: &i32, b: u16| (a - i32::from(b.min(255))).pow(2);
        square(r, red) + square(g, green) + square(b, blue)
    };
    let found = PALETTE.iter().enumerate().min_by_key(|(_, colour)| apart(colour));
    found.and_then(|(at, _)| u8::try_from(at).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(line: &[u8]) -> String {
        let mut html = String::new();
        write_line(line, &mut Style::default(), &mut html);
        html
    }

    #[test]
    fn colours_become_classes_and_nothing_else_acts() {
        let cases: &[(&[u8], &str)] = &[
            (b"plain", "plain"),
            (b"\x1b[31mred\x1b[0m on", "<span class=\"f1\">red</span> on"),
            (b"\x1b[1;4;92mx", "<span class=\"f10 sb su\">x</span>"),
            (b"\x1b[38;5;196mx\x1b[39my", "<span class=\"f1\">x</span>y"),
            (b"\x1b[38;2;255;255;255;1mx", "<span class=\"f15 sb\">x</span>"),
            (b"\x1b[38;2;65535;65535;65535;1mx", "<span class=\"f15 sb\">x</span>"),
            (b"\x1b[48:2::0:0:0mx", "<span class=\"b0\">x</span>"),
            (b"<script>alert(1)</script>&\"", "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;"),
            (b"\x1b]0;title\x07a\x1b]8;;http://evil\x1b\\b\x1b[2J\x1b[10Hc", "abc"),
            (b"\x1bPq<svg onload=x>\x1b\\d", "d"),
            ("a\u{202e}b".as_bytes(), "a<span class=\"ctl\">U+202E</span>b"),
            (b"10%\r50%\r100%\r", "100%"),
            (b"\x1b[32m10%\r50%", "<span class=\"f2\">50%</span>"),
            (b"bad \xff byte, cut \xc3", "bad \u{fffd} byte, cut \u{fffd}"),
            (b"bell\x07 back\x08 tab\tend", "bell back tab\tend"),
        ];
        for (line, expected) in cases {
            assert_eq!(html(line), *expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn styles_last_over_lines_and_cut_sequences_do_not() {
        let (mut style, mut out) = (Style::default(), String::new());
        write_line(b"\x1b[31mone", &mut style, &mut out);
        write_line(b"two\x1b]0;never ended", &mut style, &mut out);
        write_line(b"three\x1b[m", &mut style, &mut out);
        assert_eq!(out, "<span class=\"f1\">one</span><span class=\"f1\">two</span><span class=\"f1\">three</span>");
        assert_eq!(style, Style::default());
        assert_eq!(plain(b"\x1b[31ma\x1b[0mb\tc\x07"), "ab\tc");
    }

    proptest! {
        #[test]
        fn no_bytes_make_markup(line in proptest::collection::vec(prop_oneof![Just(0x1b), Just(b'['), Just(b'<'), Just(b'm'), any::<u8>()], 0..200)) {
            let html = html(&line);
            let tags = html.replace("</span>", "");
            let rest: String = tags.split("<span class=\"").enumerate().map(|(at, part)| match at {
                0 => part,
                _ => part.split_once("\">").expect("a whole tag").1,
            }).collect();
            prop_assert!(!rest.contains('<') && !rest.contains('>'), "{html}");
            prop_assert_eq!(html.matches("<span").count(), html.matches("</span>").count());
        }
    }
}
