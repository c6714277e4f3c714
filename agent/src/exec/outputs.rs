//! What a step publishes: the file `$XENE_OUTPUT`, with `name=value` lines and `name<<EOF` blocks.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

use crate::decide::event::OutputsError;

/// The longest value, in bytes.
const MAX_VALUE: usize = 64 << 10;
/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads the file of a step that has ended. A file that is gone publishes nothing.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, OutputsError> {
    let unreadable = |error: io::Error| OutputsError::Unreadable(error.to_string());
    // The step may have put anything in its place: a link to a file that is not its own, or a pipe that never ends.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(unreadable)?,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(OutputsError::Unreadable("it is not a file any more".to_owned()));
    }
    if metadata.len() > MAX_FILE {
        return Err(too_large("$XENE_OUTPUT", metadata.len(), MAX_FILE));
    }
    if metadata.len() == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&bytes)
}

/// Parses the file. A name that comes again wins over what it was before; blank lines are passed over.
fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, OutputsError> {
    let mut outputs: Vec<(String, String)> = Vec::new();
    // Bytes that are no text stand in the value that they belong to, whose name and line are told.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
    let mut raw = bytes.split(|byte| *byte == b'\n');
    let mut is_text = move |count: usize| raw.by_ref().take(count).all(|line| std::str::from_utf8(line).is_ok());
    while let Some((at, line)) = lines.next() {
        if line.is_empty() {
            is_text(1);
            continue;
        }
        let mut taken = 1;
        let malformed = OutputsError::Malformed { line: at + 1 };
        let (name, value) = match (line.find('='), line.find("<<")) {
            (equals, Some(block)) if equals.is_none_or(|equals| block < equals) => {
                let (name, end) = (&line[..block], &line[block + 2..]);
                if end.is_empty() {
                    return Err(malformed);
                }
                let mut value = Vec::new();
                loop {
                    match lines.next() {
                        Some((_, line)) if line == end => break,
                        Some((_, line)) => value.push(line),
                        None => return Err(OutputsError::Unterminated { line: at + 1, end: shortened(end) }),
                    }
                }
                taken += value.len() + 1;
                (name, value.join("\n"))
            }
            (Some(equals), _) => (&line[..equals], line[equals + 1..].to_owned()),
            (None, _) => return Err(malformed),
        };
        if name.is_empty() || name.trim() != name {
            return Err(malformed);
        }
        let why = match (is_text(taken), value.contains('\0')) {
            (false, _) => Some("is not UTF-8 text"),
            (true, true) => Some("holds a NUL character"),
            (true, false) => None,
        };
        if let Some(why) = why {
            return Err(OutputsError::BadValue { name: shortened(name), line: at + 1, why: why.to_owned() });
        }
        if value.len() > MAX_VALUE {
            return Err(too_large(name, value.len() as u64, MAX_VALUE as u64));
        }
        match outputs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => outputs.push((name.to_owned(), value)),
        }
    }
    Ok(outputs)
}

/// So much of a text as a message may hold.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn too_large(what: &str, size: u64, limit: u64) -> OutputsError {
    OutputsError::TooLarge { what: what.to_owned(), size, limit }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn reads_lines_and_blocks() {
        let text = "a=1\nb=x=y<<z\n\nc<<EOF\none\n\n d=2\nEOF\na=3\r\ne=\nf<<X\nX\n";
        let expected = [("a", "3"), ("b", "x=y<<z"), ("c", "one\n\n d=2"), ("e", ""), ("f", "")];
        assert_eq!(parse(text.as_bytes()), Ok(owned(&expected)));
        assert_eq!(parse(b"a=1"), Ok(owned(&[("a", "1")])), "a last line without its end");
    }

    #[test]
    fn says_which_line_is_wrong() {
        let cases = [("a=1\noops", 2), ("=1", 1), ("\n\n<<E\nE", 3), ("a<<\n\n", 1), (" a=1", 1)];
        for (text, line) in cases {
            assert_eq!(parse(text.as_bytes()), Err(OutputsError::Malformed { line }), "{text:?}");
        }
    }

    #[test]
    fn says_which_block_has_no_end_and_which_value_is_no_text() {
        let message = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert_eq!(message(b"a<<E\nb\n"), "the block begun in line 1 of $XENE_OUTPUT has no line `E`");
        assert_eq!(message(b"a=1\nb=x\0y\n"), "line 2 of $XENE_OUTPUT: the value of b holds a NUL character");
        assert_eq!(message(b"\na=1\nb=\xff\n"), "line 3 of $XENE_OUTPUT: the value of b is not UTF-8 text");
        assert_eq!(message(b"a<<E\nx\n\xc3\nE\n"), "line 1 of $XENE_OUTPUT: the value of a is not UTF-8 text");
        assert_eq!(parse(b"a<<E\nx\ny\nE\n\nb=\xc3\xa4"), Ok(owned(&[("a", "x\ny"), ("b", "\u{e4}")])));
    }

    #[test]
    fn says_the_real_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, format!("big={}", "x".repeat(MAX_VALUE))).unwrap();
        assert_eq!(read(&path).map(|outputs| outputs.len()), Ok(1));
        std::fs::write(&path, format!("big={}", "x".repeat(MAX_VALUE + 1))).unwrap();
        assert_eq!(read(&path), Err(too_large("big", MAX_VALUE as u64 + 1, MAX_VALUE as u64)));
        std::fs::write(&path, vec![b'\n'; 1_048_577]).unwrap();
        assert_eq!(read(&path), Err(too_large("$XENE_OUTPUT", 1_048_577, MAX_FILE)));
    }

    #[test]
    fn follows_no_link_and_waits_for_no_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link, pipe) = (dir.path().join("secret"), dir.path().join("link"), dir.path().join("pipe"));
        std::fs::write(&secret, "a=1").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(read(&link), Err(OutputsError::Unreadable(_))));
        assert!(matches!(read(&pipe), Err(OutputsError::Unreadable(_))));
        assert!(matches!(read(dir.path()), Err(OutputsError::Unreadable(_))));
        assert_eq!(read(&dir.path().join("gone")), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s)[a=<E\n\r ]{0,40}|.{0,40}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn reads_back_blocks_and_lines(pairs in prop::collection::btree_map("[a-z]{1,5}", "[ -~\n]{0,30}", 0..6)) {
            let mut text = String::new();
            for (name, value) in &pairs {
                let block = value.contains('\n');
                let parts = if block { [name, "<<__END__\n", value, "\n__END__\n"] } else { [name, "=", value, "\n"] };
                text.push_str(&parts.concat());
            }
            prop_assert_eq!(parse(text.as_bytes()), Ok(pairs.into_iter().collect()));
        }
    }
}
