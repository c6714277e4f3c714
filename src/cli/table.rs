//! Aligned columns of text.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::{escape, output::painted};

/// Between two columns.
const GAP: &str = "   ";

/// One cell: a line of text, perhaps in a colour.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text in a style. Whatever acts on a terminal in it is escaped.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: escape::line(text.as_ref()), style }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text.to_string(), Style::new())
    }
}

/// Rows below a head, aligned.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. A column whose name ends in `?` is shown only if it holds something.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    /// True if it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each after `indent`; colours only if `colored`.
    pub fn render(&self, indent: &str, colored: bool) -> String {
        self.lines(&mut self.layout(false), true, indent, colored)
    }

    /// Which columns are shown, how wide; `all`: also those that hold nothing yet.
    pub fn layout(&self, all: bool) -> Layout {
        let used = |column: usize| self.rows.iter().any(|row| !row[column].text.is_empty());
        let shown = (0..self.head.len()).filter(|column| all || !self.head[*column].ends_with('?') || used(*column));
        Layout(shown.map(|column| (column, 0)).collect())
    }

    /// The rows in `layout`, which is widened where they need it, after the head if `head`.
    pub fn lines(&self, layout: &mut Layout, head: bool, indent: &str, colored: bool) -> String {
        let titles: Vec<Cell> = self.head.iter().map(|name| Cell::from(name.trim_end_matches('?'))).collect();
        let lines = || head.then_some(&titles).into_iter().chain(&self.rows);
        for (column, width) in &mut layout.0 {
            *width = lines().map(|row| row[*column].text.width()).max().unwrap_or(0).max(*width);
        }
        let mut out = String::new();
        for row in lines() {
            let mut line = indent.to_owned();
            for (column, width) in &layout.0 {
                let Cell { text, style } = &row[*column];
                line += &painted(text, *style, colored && !text.is_empty());
                line += &" ".repeat(width.saturating_sub(text.width()));
                line += GAP;
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

/// The columns that a table shows, and their widths so far: rows that come later line up with earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Layout(Vec<(usize, usize)>);

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;
    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_line_up_by_width_on_the_screen() {
        let mut table = Table::new(&["NAME", "NOTE?", "PHASE"]);
        table.push(vec!["日本".into(), "".into(), Cell::styled("Ready", AnsiColor::Green.on_default())]);
        table.push(vec!["longer-name".into(), "".into(), "Invalid\x1b[2J".into()]);
        expect![[r#"
            NAME          PHASE
            日本          Ready
            longer-name   Invalid\x1b[2J
        "#]]
        .assert_eq(&table.render("", false));
        let mut layout = table.layout(true);
        table.lines(&mut layout, true, "", false);
        let mut later = Table::new(&["NAME", "NOTE?", "PHASE"]);
        later.push(vec!["a".into(), "n".into(), Cell::styled("Ready", AnsiColor::Green.on_default())]);
        assert_eq!(later.lines(&mut layout, false, "", true), "a             n      \x1b[32mReady\x1b[0m\n");
    }
}
