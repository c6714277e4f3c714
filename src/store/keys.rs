//! Keys of the tables: bytes whose order is the order of the values, so that every list is a range scan.
//!
//! Names hold no byte below `-`, so a zero byte between two of them keeps their order.

use std::{borrow::Cow, marker::PhantomData};

use heed::{BoxedError, BytesDecode, BytesEncode};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use xene_schemas::meta::{Name, PipelineKey, RunName, SpecHash};

/// Texts longer than this are cut and told apart by a hash: LMDB takes keys of 511 bytes.
const TEXT_MAX: usize = 400;

/// A name.
pub(super) enum NameKey {}

/// A pipeline's key: workflow, then pipeline.
pub(super) enum ByPipeline {}

/// A run's name: by time.
pub(super) enum ByRun {}

/// A pipeline's key, then a run's name: a pipeline's runs by time.
pub(super) enum ByPipelineRun {}

/// A pipeline's key, then a due time, then a trigger.
pub(super) enum BySlot {}

/// A pipeline's key, then the hash of a delivery id, which may be any text. In no order of use.
pub(super) enum ByDelivery {}

/// The hash of a spec.
pub(super) enum ByHash {}

/// Any text, such as a path. The value must hold it too: a long one can't be read back from the key.
pub(super) enum ByText {}

/// A value in MessagePack with field names: a field may be added with a default, or dropped.
pub(super) struct Row<T>(PhantomData<T>);

/// Why bytes are not a key.
#[derive(Debug, thiserror::Error)]
#[error("a key of {0} bytes does not have the form of its table")]
struct KeyError(usize);

/// All keys of one pipeline begin with this, and no others.
pub(super) fn pipeline_prefix(key: &PipelineKey, extra: usize) -> Vec<u8> {
    let (workflow, pipeline) = (key.workflow.as_str().as_bytes(), key.pipeline.as_str().as_bytes());
    let mut bytes = Vec::with_capacity(workflow.len() + pipeline.len() + 2 + extra);
    bytes.extend_from_slice(workflow);
    bytes.push(0);
    bytes.extend_from_slice(pipeline);
    bytes.push(0);
    bytes
}

/// All keys of one workflow's pipelines begin with this, and no others.
pub(super) fn workflow_prefix(workflow: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(workflow.as_str().len() + 1);
    bytes.extend_from_slice(workflow.as_str().as_bytes());
    bytes.push(0);
    bytes
}

/// Splits at the first two zero bytes: a pipeline's key and what follows.
fn split_pipeline(bytes: &[u8]) -> Result<(PipelineKey, &[u8]), BoxedError> {
    let (workflow, rest) = split_zero(bytes)?;
    let (pipeline, rest) = split_zero(rest)?;
    Ok((PipelineKey { workflow: name(workflow)?, pipeline: name(pipeline)? }, rest))
}

fn split_zero(bytes: &[u8]) -> Result<(&[u8], &[u8]), KeyError> {
    let at = bytes.iter().position(|byte| *byte == 0).ok_or(KeyError(bytes.len()))?;
    Ok((&bytes[..at], &bytes[at + 1..]))
}

fn name(bytes: &[u8]) -> Result<Name, BoxedError> {
    Ok(std::str::from_utf8(bytes)?.parse()?)
}

fn run(bytes: &[u8]) -> Result<RunName, BoxedError> {
    let bytes = bytes.try_into().map_err(|_| KeyError(bytes.len()))?;
    Ok(RunName::from_bytes(bytes))
}

/// Signed nanoseconds with the sign bit turned, so that bytes order as times do.
fn time_bytes(at: Timestamp) -> [u8; 16] {
    (at.as_nanosecond() ^ i128::MIN).to_be_bytes()
}

impl<'a> BytesEncode<'a> for NameKey {
    type EItem = Name;

    fn bytes_encode(name: &'a Name) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Borrowed(name.as_str().as_bytes()))
    }
}

impl<'a> BytesDecode<'a> for NameKey {
    type DItem = Name;

    fn bytes_decode(bytes: &'a [u8]) -> Result<Name, BoxedError> {
        name(bytes)
    }
}

impl<'a> BytesEncode<'a> for ByPipeline {
    type EItem = PipelineKey;

    fn bytes_encode(key: &'a PipelineKey) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Owned(pipeline_prefix(key, 0)))
    }
}

impl<'a> BytesDecode<'a> for ByPipeline {
    type DItem = PipelineKey;

    fn bytes_decode(bytes: &'a [u8]) -> Result<PipelineKey, BoxedError> {
        match split_pipeline(bytes)? {
            (key, []) => Ok(key),
            _ => Err(KeyError(bytes.len()).into()),
        }
    }
}

impl<'a> BytesEncode<'a> for ByRun {
    type EItem = RunName;

    fn bytes_encode(run: &'a RunName) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Owned(run.to_bytes().to_vec()))
    }
}

impl<'a> BytesDecode<'a> for ByRun {
    type DItem = RunName;

    fn bytes_decode(bytes: &'a [u8]) -> Result<RunName, BoxedError> {
        run(bytes)
    }
}

impl<'a> BytesEncode<'a> for ByPipelineRun {
    type EItem = (&'a PipelineKey, RunName);

    fn bytes_encode((key, run): &'a Self::EItem) -> Result<Cow<'a, [u8]>, BoxedError> {
        let mut bytes = pipeline_prefix(key, 16);
        bytes.extend_from_slice(&run.to_bytes());
        Ok(Cow::Owned(bytes))
    }
}

impl<'a> BytesDecode<'a> for ByPipelineRun {
    type DItem = (PipelineKey, RunName);

    fn bytes_decode(bytes: &'a [u8]) -> Result<Self::DItem, BoxedError> {
        let (key, rest) = split_pipeline(bytes)?;
        Ok((key, run(rest)?))
    }
}

impl<'a> BytesEncode<'a> for BySlot {
    type EItem = (&'a PipelineKey, Timestamp, &'a Name);

    fn bytes_encode((key, slot, trigger): &'a Self::EItem) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Owned(slot_bytes(key, *slot, Some(trigger))))
    }
}

/// The key of a due time; without a trigger below those of all triggers.
pub(super) fn slot_bytes(key: &PipelineKey, slot: Timestamp, trigger: Option<&Name>) -> Vec<u8> {
    let trigger = trigger.map_or("", Name::as_str).as_bytes();
    let mut bytes = pipeline_prefix(key, 16 + trigger.len());
    bytes.extend_from_slice(&time_bytes(slot));
    bytes.extend_from_slice(trigger);
    bytes
}

impl<'a> BytesEncode<'a> for ByDelivery {
    type EItem = (&'a PipelineKey, &'a str);

    fn bytes_encode((key, delivery): &'a Self::EItem) -> Result<Cow<'a, [u8]>, BoxedError> {
        let mut bytes = pipeline_prefix(key, 32);
        bytes.extend_from_slice(blake3::hash(delivery.as_bytes()).as_bytes());
        Ok(Cow::Owned(bytes))
    }
}

impl<'a> BytesEncode<'a> for ByHash {
    type EItem = SpecHash;

    fn bytes_encode(hash: &'a SpecHash) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Borrowed(&hash.0))
    }
}

impl<'a> BytesDecode<'a> for ByHash {
    type DItem = SpecHash;

    fn bytes_decode(bytes: &'a [u8]) -> Result<SpecHash, BoxedError> {
        Ok(SpecHash(bytes.try_into().map_err(|_| KeyError(bytes.len()))?))
    }
}

impl<'a> BytesEncode<'a> for ByText {
    type EItem = str;

    fn bytes_encode(text: &'a str) -> Result<Cow<'a, [u8]>, BoxedError> {
        let mut bytes = Vec::with_capacity(text.len().min(TEXT_MAX + 32) + 1);
        bytes.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_MAX)]);
        // Also keeps the key of an empty text from being empty, which LMDB refuses.
        bytes.push(0);
        if text.len() > TEXT_MAX {
            bytes.extend_from_slice(blake3::hash(text.as_bytes()).as_bytes());
        }
        Ok(Cow::Owned(bytes))
    }
}

impl<'a, T: Serialize + 'a> BytesEncode<'a> for Row<T> {
    type EItem = T;

    fn bytes_encode(row: &'a T) -> Result<Cow<'a, [u8]>, BoxedError> {
        Ok(Cow::Owned(rmp_serde::to_vec_named(row)?))
    }
}

impl<'a, T: DeserializeOwned + 'a> BytesDecode<'a> for Row<T> {
    type DItem = T;

    fn bytes_decode(bytes: &'a [u8]) -> Result<T, BoxedError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Name> {
        // Few characters, so that names are often prefixes of each other.
        prop::collection::vec(prop::sample::select(vec!['a', 'B', '0', '-', '.', '_']), 0..4)
            .prop_map(|inner| format!("a{}z", inner.into_iter().collect::<String>()).parse().unwrap())
    }

    fn keys() -> impl Strategy<Value = PipelineKey> {
        (names(), names()).prop_map(|(workflow, pipeline)| PipelineKey { workflow, pipeline })
    }

    fn runs() -> impl Strategy<Value = RunName> {
        any::<u128>().prop_map(|bits| RunName::from_bytes(bits.to_be_bytes()))
    }

    fn times() -> impl Strategy<Value = Timestamp> {
        (-4_000_000_000_000_000_000i128..4_000_000_000_000_000_000)
            .prop_map(|nanos| Timestamp::from_nanosecond(nanos).unwrap())
    }

    fn bytes<'a, C: BytesEncode<'a>>(item: &'a C::EItem) -> Vec<u8> {
        C::bytes_encode(item).unwrap().into_owned()
    }

    proptest! {
        #[test]
        fn bytes_order_as_values_do(a in (keys(), runs(), times(), names()), b in (keys(), runs(), times(), names())) {
            prop_assert_eq!(bytes::<NameKey>(&a.3).cmp(&bytes::<NameKey>(&b.3)), a.3.cmp(&b.3));
            prop_assert_eq!(bytes::<ByPipeline>(&a.0).cmp(&bytes::<ByPipeline>(&b.0)), a.0.cmp(&b.0));
            prop_assert_eq!(bytes::<ByRun>(&a.1).cmp(&bytes::<ByRun>(&b.1)), a.1.cmp(&b.1));
            let (x, y) = ((&a.0, a.1), (&b.0, b.1));
            prop_assert_eq!(bytes::<ByPipelineRun>(&x).cmp(&bytes::<ByPipelineRun>(&y)), x.cmp(&y));
            let (x, y) = ((&a.0, a.2, &a.3), (&b.0, b.2, &b.3));
            prop_assert_eq!(bytes::<BySlot>(&x).cmp(&bytes::<BySlot>(&y)), x.cmp(&y));
        }

        #[test]
        fn keys_read_back(key in keys(), name in names(), run: u128) {
            let run = RunName::from_bytes(run.to_be_bytes());
            prop_assert_eq!(NameKey::bytes_decode(&bytes::<NameKey>(&name)).unwrap(), name);
            prop_assert_eq!(&ByPipeline::bytes_decode(&bytes::<ByPipeline>(&key)).unwrap(), &key);
            prop_assert_eq!(ByPipelineRun::bytes_decode(&bytes::<ByPipelineRun>(&(&key, run))).unwrap(), (key, run));
        }

        #[test]
        fn texts_of_any_length_are_told_apart(a in ".{0,3}", b in ".{0,3}", long: bool) {
            let (a, b) = if long { (format!("{}{a}", "x".repeat(398)), format!("{}{b}", "x".repeat(398))) } else { (a, b) };
            let (x, y) = (bytes::<ByText>(&a), bytes::<ByText>(&b));
            prop_assert!(!x.is_empty() && x.len() <= 511);
            prop_assert_eq!(x == y, a == b);
        }

        #[test]
        fn never_panics(garbage in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = NameKey::bytes_decode(&garbage);
            let _ = ByPipeline::bytes_decode(&garbage);
            let _ = ByPipelineRun::bytes_decode(&garbage);
            let _ = ByRun::bytes_decode(&garbage);
        }
    }
}
