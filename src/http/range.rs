//! Parts of files (RFC 9110, section 14): one range of bytes at a time.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// These bytes of it.
    Bytes(Range<u64>),
    /// Bytes that it does not have.
    Beyond,
}

/// The part that these headers ask for, of a file of `size` bytes with this tag. Several ranges at once, and what can't be
/// read, are answered with all of it, as RFC 9110 has it.
pub(super) fn part(headers: &HeaderMap, size: u64, tag: &str) -> Part {
    let header = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or_default());
    // What it was once may not be continued by what it is now.
    if header(header::IF_RANGE).is_some_and(|known| known.trim() != tag) {
        return Part::Whole;
    }
    let range = header(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Part::Whole };
    let number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>());
    let range = match (first.trim(), last.trim()) {
        ("", "") => return Part::Whole,
        ("", last) => match number(last) {
            // More digits than fit are more than there is.
            Some(last) => size.saturating_sub(last.unwrap_or(u64::MAX))..size,
            None => return Part::Whole,
        },
        (first, last) => {
            let last = if last.is_empty() { Some(Ok(u64::MAX)) } else { number(last) };
            let (Some(first), Some(last)) = (number(first), last) else { return Part::Whole };
            let (first, last) = (first.unwrap_or(u64::MAX), last.unwrap_or(u64::MAX));
            if first > last {
                return Part::Whole;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    if range.start >= range.end { Part::Beyond } else { Part::Bytes(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_is_asked_for_and_there() {
        let part = |range: &str, size| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            part(&headers, size, "\"a\"")
        };
        for (range, expected) in [
            ("bytes=0-", 0..10),
            ("bytes=0-0", 0..1),
            ("bytes=3-5", 3..6),
            ("bytes=9-99999999999999999999999", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes= 2 - 3", 2..4),
        ] {
            assert_eq!(part(range, 10), Part::Bytes(expected), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(part(range, 10), Part::Beyond, "{range}");
        }
        for range in ["", "bytes=", "bytes=-", "bytes=5-3", "bytes=x-3", "bytes=1-2,4-5", "lines=1-2", "bytes=+1-2"] {
            assert_eq!(part(range, 10), Part::Whole, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Beyond);
        assert_eq!(part("bytes=-5", 0), Part::Beyond);
    }

    #[test]
    fn what_has_changed_comes_whole() {
        for (known, expected) in [("\"a\"", Part::Bytes(1..3)), ("\"b\"", Part::Whole), ("W/\"a\"", Part::Whole)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, "bytes=1-".parse().unwrap());
            headers.insert(header::IF_RANGE, known.parse().unwrap());
            assert_eq!(part(&headers, 3, "\"a\""), expected, "{known}");
        }
    }
}
