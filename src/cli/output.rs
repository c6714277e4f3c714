//! How results and remarks reach the person: formats, colours, streams.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::{Error, dirs, escape, table::Table};

/// What `--output` takes. Not every command has every form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// More columns.
    Wide,
    /// What the API gave.
    Json,
    /// The same as YAML.
    Yaml,
    /// KIND/NAME, one a line.
    Name,
    /// Annotations of GitHub Actions; of `xene validate` alone.
    #[value(hide = true)]
    Github,
    /// SARIF 2.1.0; of `xene validate` alone.
    #[value(hide = true)]
    Sarif,
    /// For a pull request; of `xene plan` alone.
    #[value(hide = true)]
    Markdown,
}

impl Output {
    /// The form that every command has; `None` if it is one of a command alone.
    pub const fn format(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Wide => Some(Format::Wide),
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
            Self::Name => Some(Format::Name),
            Self::Github | Self::Sarif | Self::Markdown => None,
        }
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// More columns.
    Wide,
    /// What the API gave.
    Json,
    /// The same as YAML.
    Yaml,
    /// KIND/NAME, one a line.
    Name,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// One of the two streams.
pub struct Stream {
    writer: Box<dyn Write + Send>,
    /// True if a person looks at it.
    pub is_terminal: bool,
    /// True if it takes colours.
    pub colored: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("is_terminal", &self.is_terminal).finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream into `writer`.
    pub fn new(writer: impl Write + Send + 'static, is_terminal: bool, color: ColorChoice) -> Self {
        let colored = match color {
            ColorChoice::Auto => is_terminal && !dirs::no_color() && !dirs::dumb_terminal(),
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self { writer: Box::new(writer), is_terminal, colored }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// If nobody takes them.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        Ok(self.writer.write_all(bytes.as_ref())?)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// If nobody takes it.
    pub fn line(&mut self, line: impl AsRef<str>) -> Result<(), Error> {
        Ok(writeln!(self.writer, "{}", line.as_ref())?)
    }

    /// Makes what was written visible.
    ///
    /// # Errors
    /// If nobody takes it.
    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.writer.flush()?)
    }
}

/// Everything a command needs to speak to a person.
#[derive(Debug)]
pub struct Ui {
    /// For results.
    pub out: Stream,
    /// For everything else.
    pub err: Stream,
    /// How results are printed.
    pub format: Format,
    /// No remarks.
    pub quiet: bool,
    /// More remarks than are needed.
    pub verbose: bool,
    /// True if a person looks at stderr, and what stands there can be replaced.
    pub rewrites: bool,
    now: fn() -> Timestamp,
}

impl Ui {
    /// On this process's own streams.
    pub fn of_process(format: Format, color: ColorChoice, quiet: bool) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let (out_terminal, err_terminal) = (stdout.is_terminal(), stderr.is_terminal());
        // Results may be long: written in blocks, flushed where somebody waits for them.
        let out = Stream::new(io::BufWriter::with_capacity(1 << 16, stdout), out_terminal, color);
        let now = || xene_agent::clock::now().wall;
        let rewrites = err_terminal && !dirs::dumb_terminal();
        Self { out, err: Stream::new(stderr, err_terminal, color), format, quiet, verbose: false, rewrites, now }
    }

    /// The time that relative times are told from.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// True if people read the result.
    pub fn is_human(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Prints what the API gave, as JSON or as YAML.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn value(&mut self, value: &Value) -> Result<(), Error> {
        let text = match self.format {
            Format::Yaml => serde_yaml::to_string(value).map_err(io::Error::other)?,
            Format::Json | Format::Table | Format::Wide | Format::Name => {
                serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n"
            }
        };
        self.out.write(text)
    }

    /// Prints one of a stream of values: a line of JSON, or a YAML document.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn one_of_many(&mut self, value: &Value) -> Result<(), Error> {
        if self.format == Format::Yaml {
            self.out.line("---")?;
            return self.value(value);
        }
        self.out.line(value.to_string())
    }

    /// Prints a table.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn table(&mut self, table: &Table) -> Result<(), Error> {
        let text = table.render("", self.out.colored);
        self.out.write(text)
    }

    /// Makes a remark on stderr, unless `--quiet`.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            // A remark that nobody can read is no reason to fail.
            let _ = self.err.line(escape::line(text));
        }
    }

    /// Shows on stderr how far something is, in the place of what it said before; only where a person looks on, and not
    /// with `--quiet`.
    pub fn progress(&mut self, text: &str) {
        if self.rewrites && !self.quiet {
            let _ = self.err.write(format!("\r\x1b[K{}", escape::line(text)));
            let _ = self.err.flush();
        }
    }

    /// Takes it away again.
    pub fn clear_progress(&mut self) {
        if self.rewrites && !self.quiet {
            let _ = self.err.write("\r\x1b[K");
            let _ = self.err.flush();
        }
    }

    /// Tells an error on stderr.
    pub fn error(&mut self, message: &str, hint: Option<&str>) {
        let word = painted("error:", AnsiColor::Red.on_default().bold(), self.err.colored);
        // Results that came before it shall stand before it.
        let _ = self.out.flush();
        let _ = self.err.line(format!("{word} {}", escape::line(message)));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// Says what may help, on stderr.
    pub fn hint(&mut self, hint: &str) {
        let word = painted("hint:", AnsiColor::Cyan.on_default().bold(), self.err.colored);
        let _ = self.err.line(format!("{word} {}", escape::line(hint)));
    }

    /// Makes all output visible.
    ///
    /// # Errors
    /// If nobody takes it.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.flush()?;
        self.err.flush()
    }
}

/// Text in a style, if `colored`.
pub fn painted(text: &str, style: Style, colored: bool) -> String {
    if colored && style != Style::new() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// The style of a phase, whatever has it.
pub fn phase_style(phase: &str) -> Style {
    match phase {
        "Success" | "Scheduled" | "Ready" | "Connected" | "True" => AnsiColor::Green.on_default(),
        "Error" | "Invalid" | "Failing" | "Revoked" | "False" => AnsiColor::Red.on_default(),
        "Running" | "ShuttingDown" => AnsiColor::Cyan.on_default(),
        "StartingUp" | "NotScheduled" | "Disconnected" | "Draining" | "Suspended" | "Warning" => {
            AnsiColor::Yellow.on_default()
        }
        "Unknown" => AnsiColor::Magenta.on_default(),
        "NotExecuted" => Style::new().dimmed(),
        _ => Style::new(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A [`Ui`] into memory.

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is written.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }
    }

    /// The time of all fixtures.
    pub(crate) fn fixed_now() -> Timestamp {
        "2026-11-25T12:00:00Z".parse().unwrap()
    }

    /// A ui, its stdout and its stderr.
    pub(crate) fn ui(format: Format) -> (Ui, Buffer, Buffer) {
        let (out, err) = (Buffer::default(), Buffer::default());
        let stream = |buffer: &Buffer| Stream::new(buffer.clone(), false, ColorChoice::Never);
        let (verbose, rewrites) = (false, false);
        (Ui { out: stream(&out), err: stream(&err), format, quiet: false, verbose, rewrites, now: fixed_now }, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_they_are_wanted() {
        let colored = |terminal, choice| Stream::new(io::sink(), terminal, choice).colored;
        assert!(!colored(false, ColorChoice::Auto));
        assert!(colored(false, ColorChoice::Always));
        assert!(!colored(true, ColorChoice::Never));
        assert_eq!(painted("x", Style::new().bold(), false), "x");
    }

    #[test]
    fn an_error_is_a_sentence_and_a_hint() {
        let (mut ui, _, err) = testing::ui(Format::Table);
        ui.error("it broke\x1b]0;x\x07", Some("mend it"));
        assert_eq!(err.text(), "error: it broke\\x1b]0;x\\x07\nhint: mend it\n");
    }
}
