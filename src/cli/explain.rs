//! `xene explain [CODE]`: what a diagnostic means, and how to mend it.

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{
    Error,
    output::{Format, Ui, painted, phase_style},
    table::{Cell, Table},
};
use crate::compile::rules::{self, Rule};

/// Arguments of `xene explain`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Without a code all of them are listed.")]
pub struct Args {
    /// A diagnostic's code, such as XE0012.
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

/// Prints a page, or the list of all.
///
/// # Errors
/// If there is no such code, or the page can't be written.
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let Some(code) = &args.code else { return list(ui) };
    // A number alone will do.
    let whole = if code.bytes().all(|b| b.is_ascii_digit()) { format!("XE{code:0>4}") } else { code.clone() };
    let Some(rule) = rules::find(&whole) else {
        let hint = rules::suggest(&whole, rules::ALL.iter().map(|rule| rule.code));
        let hint = hint.unwrap_or_else(|| "`xene explain` lists all codes".into());
        return Err(Error::NotFound { message: format!("there is no diagnostic {code}"), hint: Some(hint) });
    };
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&value(rule)),
        Format::Name => ui.out.line(rule.code),
        Format::Table | Format::Wide => {
            let page = shown(rule.page, ui.out.colored);
            ui.out.write(page)
        }
    }
}

fn list(ui: &mut Ui) -> Result<(), Error> {
    match ui.format {
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = rules::ALL.iter().map(|rule| value(rule)).collect();
            ui.value(&json!({"apiVersion": "xene/v1", "kind": "List", "items": items}))
        }
        Format::Name => rules::ALL.iter().try_for_each(|rule| ui.out.line(rule.code)),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["CODE", "SEVERITY", "TITLE"]);
            for rule in rules::ALL {
                let severity = rule.severity.to_string();
                let style = phase_style(if severity == "error" { "Error" } else { "Warning" });
                table.push(vec![rule.code.into(), Cell::styled(severity, style), rule.title.into()]);
            }
            ui.table(&table)
        }
    }
}

fn value(rule: &Rule) -> Value {
    json!({"code": rule.code, "title": rule.title, "severity": rule.severity, "page": rule.page})
}

/// A page for a terminal: headings stand out, examples are set in, links are their text.
fn shown(page: &str, colored: bool) -> String {
    let (mut out, mut in_example) = (String::new(), false);
    let bold = Style::new().bold();
    for line in page.lines() {
        if line.starts_with("```") {
            in_example = !in_example;
            continue;
        }
        let shown = match line.trim_start_matches('#') {
            _ if in_example && line.is_empty() => String::new(),
            _ if in_example => format!("    {}", example_line(line, colored)),
            heading if heading.len() < line.len() => painted(heading.trim(), bold, colored),
            text => prose(text, colored),
        };
        out.push_str(&shown);
        out.push('\n');
    }
    out
}

/// The comment that says what is wrong is what one looks for.
fn example_line(line: &str, colored: bool) -> String {
    match line.find("# error: ").or_else(|| line.find("# warning: ")) {
        Some(at) => format!("{}{}", &line[..at], painted(&line[at..], AnsiColor::Red.on_default(), colored)),
        None => line.to_owned(),
    }
}

/// `[text](target)` as `text`; on a terminal, code is coloured instead of quoted.
fn prose(line: &str, colored: bool) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        match after.split_once("](").and_then(|(name, tail)| Some((name, tail.split_once(')')?.1))) {
            Some((name, tail)) => {
                text = text + before + name;
                rest = tail;
            }
            None => {
                text = text + before + "[";
                rest = after;
            }
        }
    }
    text += rest;
    if !colored {
        return text;
    }
    let style = AnsiColor::Cyan.on_default();
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { painted(part, style, true) } else { part.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::cli::output::testing;

    fn explain(code: Option<&str>, format: Format) -> Result<String, Error> {
        let (mut ui, out, _) = testing::ui(format);
        run(&Args { code: code.map(Into::into) }, &mut ui)?;
        Ok(out.text())
    }

    #[test]
    fn a_page_is_text_for_a_terminal() {
        let page =
            "# XE1: it broke\n\nSee [there](x.md#y), `code` and a[0].\n\n```yaml\na: 1\n\nb: # error: XE1\n```\n";
        assert_eq!(
            shown(page, false),
            "XE1: it broke\n\nSee there, `code` and a[0].\n\n    a: 1\n\n    b: # error: XE1\n"
        );
        assert!(shown(page, true).contains("\u{1b}[36mcode\u{1b}[0m"));
        assert!(
            explain(Some("xe0041"), Format::Table).unwrap().starts_with("XE0041: tasks wait for each other\n\nEach")
        );
        assert!(explain(Some("41"), Format::Table).unwrap().starts_with("XE0041: "));
    }

    #[test]
    fn without_a_code_all_are_listed() {
        let text = explain(None, Format::Table).unwrap();
        assert_eq!(text.lines().count(), rules::ALL.len() + 1);
        assert!(text.contains("\nXE0031   warning    unused trigger\n"), "{text}");
        let list: Value = serde_json::from_str(&explain(None, Format::Json).unwrap()).unwrap();
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"][0]["code"], "XE0001");
        let one: Value = serde_json::from_str(&explain(Some("XE0001"), Format::Json).unwrap()).unwrap();
        assert_eq!(one, list["items"][0]);
    }

    #[test]
    fn an_unknown_code_names_the_closest() {
        let told = |code| {
            let error = explain(Some(code), Format::Table).unwrap_err();
            assert_eq!(error.status(), 4);
            format!("{error}\n  {}\n", error.hint().unwrap())
        };
        expect![[r#"
            there is no diagnostic XE0019
              did you mean `XE0009`?
            there is no diagnostic cron
              `xene explain` lists all codes
        "#]]
        .assert_eq(&(told("XE0019") + &told("cron")));
    }
}
