//! Percent-encoding (RFC 3986).

use std::fmt::Write as _;

/// Encodes all but what RFC 3986 leaves alone.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// `name=value`, joined by `&`: as a query, or as the body of a form.
pub fn pairs(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("aZ0-._~"), "aZ0-._~");
        assert_eq!(encode("a b/ü&=\n"), "a%20b%2F%C3%BC%26%3D%0A");
        assert_eq!(pairs(&[("a", "1&2"), ("b=", "")]), "a=1%262&b%3D=");
    }
}
