//! Names, keys and counters: newtypes that are parsed once and cannot be wrong afterwards.

use std::{borrow::Borrow, fmt, str::FromStr};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de};

/// The `apiVersion` of every object of this language.
pub const API_VERSION: &str = "xene/v1";

/// Labels and annotations: free text by free text, in file order.
pub type Labels = IndexMap<String, String>;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or longer than 63 characters.
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    /// A character is not allowed, or not at that end.
    #[error("a name holds only A-Z a-z 0-9 - _ . and begins and ends with a letter or digit, unlike {0:?}")]
    Character(String),
    /// A pipeline key has no slash between two names.
    #[error("expected WORKFLOW/PIPELINE, got {0:?}")]
    Key(String),
}

/// A name: 1–63 characters of `A-Z a-z 0-9 - _ .`, beginning and ending with a letter or digit.
///
/// It is therefore never a path: no slash, no `..` alone, no leading dot or dash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let length = text.chars().count();
        if length == 0 || length > 63 {
            return Err(NameError::Length(length));
        }
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if !text.chars().all(inner) || !outer(text.chars().next()) || !outer(text.chars().next_back()) {
            return Err(NameError::Character(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Types that are written as text.
#[cfg(feature = "schema")]
macro_rules! text_schema {
    ($name:ident) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string"})
            }
        }
    };
}

#[cfg(feature = "schema")]
text_schema!(PipelineKey);
#[cfg(feature = "schema")]
text_schema!(RunName);
#[cfg(feature = "schema")]
text_schema!(SpecHash);
#[cfg(feature = "schema")]
text_schema!(FileHash);

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
            "description": "1 to 63 characters of A-Z a-z 0-9 - _ . that begin and end with a letter or digit."
        })
    }
}

/// The name of an agent; the certificate carries it.
pub type AgentName = Name;

/// A pipeline's identity for ever: `WORKFLOW/PIPELINE`. Renamed files and edits keep it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PipelineKey {
    /// The workflow's name.
    pub workflow: Name,
    /// The pipeline's name within it.
    pub pipeline: Name,
}

impl FromStr for PipelineKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (workflow, pipeline) = text.split_once('/').ok_or_else(|| NameError::Key(text.into()))?;
        Ok(Self { workflow: workflow.parse()?, pipeline: pipeline.parse()? })
    }
}

impl fmt::Display for PipelineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workflow, self.pipeline)
    }
}

impl Serialize for PipelineKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PipelineKey {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A run's name: a lower-case ULID (26 characters of Crockford's base 32).
///
/// The first 48 bits are a time in unix milliseconds: the slot's, or that of creation. The other 80 are
/// hashed from the slot, so that the same slot always has the same name, or random for a manual run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunName(u128);

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunName {
    /// A name from a time and 80 bits, of which only the low 80 are used.
    pub fn new(at: Timestamp, bits: u128) -> Self {
        let millis = u128::from(at.as_millisecond().max(0).unsigned_abs());
        Self((millis << 80) | (bits & ((1 << 80) - 1)))
    }

    /// The name of the run of one slot: (pipeline, trigger, instant).
    pub fn of_slot(pipeline: &PipelineKey, trigger: &Name, instant: Timestamp) -> Self {
        Self::hashed(instant, &[&pipeline.to_string(), trigger.as_str(), &instant.as_nanosecond().to_string()])
    }

    /// The name of the run that stands for a slot which a lost agent may have started.
    pub fn of_ambiguous(pipeline: &PipelineKey, trigger: &Name, instant: Timestamp) -> Self {
        let at = instant.as_nanosecond().to_string();
        Self::hashed(instant, &[&pipeline.to_string(), "ambiguous", trigger.as_str(), &at])
    }

    /// The name of the run that takes the place of one whose agent is lost.
    pub fn of_lost(run: Self, at: Timestamp) -> Self {
        Self::hashed(at, &["lost", &run.to_string()])
    }

    /// The name of the run of one webhook delivery: a repeated delivery id gives the same run, so the time
    /// part is hashed too.
    pub fn of_delivery(pipeline: &PipelineKey, delivery: &str, at: Timestamp) -> Self {
        Self::hashed(at, &[&pipeline.to_string(), "delivery", delivery])
    }

    /// The name of the run that follows these runs, in the order of `after`; `at` is when the last of them ended.
    pub fn of_upstream(pipeline: &PipelineKey, upstream: &[Self], at: Timestamp) -> Self {
        let names: Vec<String> = upstream.iter().map(ToString::to_string).collect();
        Self::hashed(at, &[&pipeline.to_string(), "after", &names.join(" ")])
    }

    fn hashed(at: Timestamp, parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut bits = [0; 16];
        bits.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self::new(at, u128::from_le_bytes(bits))
    }

    /// The time part.
    pub fn at(self) -> Timestamp {
        Timestamp::from_millisecond(i64::try_from(self.0 >> 80).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Big-endian bytes: their order is the order of names, and so of time.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 26];
        for (i, byte) in text.iter_mut().enumerate() {
            *byte = CROCKFORD[((self.0 >> (125 - 5 * i)) & 31) as usize];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a run's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run's name is 26 characters of 0-9 a-z without i l o u, unlike {0:?}")]
pub struct RunNameError(String);

impl FromStr for RunName {
    type Err = RunNameError;

    fn from_str(text: &str) -> Result<Self, RunNameError> {
        let refuse = || RunNameError(text.chars().take(64).collect());
        if text.len() != 26 {
            return Err(refuse());
        }
        let mut value = 0u128;
        for (i, byte) in text.bytes().enumerate() {
            let digit = CROCKFORD.iter().position(|c| *c == byte.to_ascii_lowercase()).ok_or_else(refuse)?;
            if i == 0 && digit > 7 {
                return Err(refuse());
            }
            value = (value << 5) | digit as u128;
        }
        Ok(Self(value))
    }
}

impl Serialize for RunName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunName {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

macro_rules! content_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The hash of bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", &self.to_string()[..12])
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                hash_bytes(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

content_hash! {
    /// The content hash of what an agent is given of a pipeline: blake3, written as 64 hex digits.
    SpecHash
}

content_hash! {
    /// The content hash of a file that travels or is kept with a run: blake3, written as 64 hex digits.
    FileHash
}

fn hash_bytes(text: &str) -> Result<[u8; 32], NameError> {
    let refuse = || NameError::Character(text.chars().take(80).collect());
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refuse());
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| refuse())?;
    }
    Ok(bytes)
}

/// What a source stood at: a commit's object id in hex, or in directory mode a content hash of the files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Revision(pub String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How often an object's spec has changed; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Who owns a pipeline, counted: `gen` (44 bits, raised by a new or restored store to unix seconds) and `n`
/// (20 bits, +1 at each grant), packed so that numbers compare as epochs do and survive JSON (below 2^53).
///
/// Invariant: of one pipeline it only rises, on agents and in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch before the first grant of generation `gen`.
    pub fn before_first(generation: u64) -> Self {
        Self(generation << 20)
    }

    /// The next epoch: of generation `generation` if that is newer than this epoch's own.
    pub fn next(self, generation: u64) -> Self {
        Self(self.0.max(generation << 20) + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `metadata` of an object that people write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Unique among objects of its kind; the path that has a name keeps it.
    pub name: Name,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For selection in CLI, API and UI.
    #[serde(default, skip_serializing_if = "crate::map::UniqueMap::is_empty")]
    pub labels: crate::map::UniqueMap<String, String>,
    /// For tools; `xene/prune: disabled` keeps the object when its file goes.
    #[serde(default, skip_serializing_if = "crate::map::UniqueMap::is_empty")]
    pub annotations: crate::map::UniqueMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_to_their_alphabet() {
        for good in ["a", "A.b-c_9", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a/b", "..", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn run_names_sort_by_time_and_read_back() {
        let early = RunName::new(Timestamp::from_millisecond(1_700_000_000_000).unwrap(), u128::MAX);
        let late = RunName::new(Timestamp::from_millisecond(1_700_000_000_001).unwrap(), 0);
        assert!(early < late && early.to_string() < late.to_string() && early.to_bytes() < late.to_bytes());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(RunName::from_bytes(late.to_bytes()), late);
        assert_eq!(late.at().as_millisecond(), 1_700_000_000_001);
        assert!("8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RunName>().is_err(), "129 bits");
        assert!("../../../../../../../etc/pa".parse::<RunName>().is_err());
    }

    #[test]
    fn one_slot_has_one_run_name() {
        let key: PipelineKey = "a/b".parse().unwrap();
        let (t, u) = (Timestamp::from_second(60).unwrap(), Timestamp::from_second(120).unwrap());
        let (x, y): (Name, Name) = ("x".parse().unwrap(), "y".parse().unwrap());
        assert_eq!(RunName::of_slot(&key, &x, t), RunName::of_slot(&key, &x, t));
        assert_ne!(RunName::of_slot(&key, &x, t), RunName::of_slot(&key, &y, t));
        assert_ne!(RunName::of_slot(&key, &x, t), RunName::of_slot(&key, &x, u));
    }

    #[test]
    fn epochs_only_rise() {
        let first = Epoch::before_first(7).next(7);
        assert!(first.next(7) > first && first.next(8) > first.next(7));
        assert!(first.next(3) > first, "an older generation never lowers it");
    }
}
