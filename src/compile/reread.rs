//! An outlined document read as types: an error knows the entry that it is about, and reading can go on without it.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::outline::{Content, Node, Outline};

/// An entry of a map or an element of a list: the node of the whole, and which of its entries.
pub(super) type Entry = (usize, usize);

/// Why a document is not a `T`.
#[derive(Debug)]
pub(super) struct Failure {
    /// In the words of serde, or of the type.
    pub(super) message: String,
    /// The way to the place, innermost first; empty for the document itself.
    pub(super) way: Vec<Entry>,
    /// True if it is about the key of the innermost entry, not about its value.
    pub(super) at_key: bool,
}

/// Reads an outline as `T`, as if the entries `without` were not there.
pub(super) fn read<'o, T: Deserialize<'o>>(outline: &'o Outline, without: &'o HashSet<Entry>) -> Result<T, Failure> {
    let root = outline.nodes.len().checked_sub(1).ok_or_else(|| de::Error::custom("nothing there"))?;
    T::deserialize(Reader { nodes: &outline.nodes, without, node: root })
}

impl Failure {
    fn below(mut self, entry: Entry) -> Self {
        self.way.push(entry);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), way: Vec::new(), at_key: false }
    }
}

#[derive(Clone, Copy)]
struct Reader<'o> {
    nodes: &'o [Node],
    without: &'o HashSet<Entry>,
    node: usize,
}

/// What a scalar that is not quoted means in YAML's core schema.
enum Plain<'o> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'o str),
}

impl<'o> Plain<'o> {
    fn of(text: &'o str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" => return Self::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => return Self::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        let radix = |prefix, radix| text.strip_prefix(prefix).map(|digits| u64::from_str_radix(digits, radix));
        if let Some(Ok(number)) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)) {
            return Self::Unsigned(number);
        }
        let digits = text.trim_start_matches(['-', '+']);
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
            // As the first reader has it: 007 is a text.
            && !(digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
        match (is_number, text.parse(), text.parse(), text.parse()) {
            (true, Ok(number), ..) => Self::Unsigned(number),
            (true, _, Ok(number), _) => Self::Signed(number),
            (true, _, _, Ok(number)) => Self::Float(number),
            _ => Self::Text(text),
        }
    }
}

impl<'o> Reader<'o> {
    fn content(&self) -> &'o Content {
        &self.nodes[self.node].content
    }

    /// Where an alias leads, or where we are.
    fn resolved(self) -> Self {
        match self.content() {
            Content::Alias(Some(target)) => Self { node: *target, ..self },
            Content::Scalar { .. } | Content::Map(_) | Content::List(_) | Content::Alias(None) => self,
        }
    }

    /// An empty value stands for an empty map or list.
    fn is_empty(&self) -> bool {
        matches!(self.content(), Content::Scalar { text, plain: true } if text.is_empty())
    }

    fn map<V: Visitor<'o>>(self, entries: usize, visitor: V) -> Result<V::Value, Failure> {
        let at = Cell::new(None);
        let access = Entries { reader: self, next: 0, count: entries, at: &at };
        visitor.visit_map(access).map_err(|error| {
            // A key that comes a second time is known when it has been read.
            match at.get() {
                Some(entry) if error.way.is_empty() && error.message.starts_with("duplicate ") => {
                    Failure { at_key: true, ..error }.below(entry)
                }
                _ => error,
            }
        })
    }
}

impl<'o> Deserializer<'o> for Reader<'o> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        let this = self.resolved();
        match this.content() {
            Content::Scalar { text, plain: false } => visitor.visit_str(text),
            Content::Scalar { text, plain: true } => match Plain::of(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(truth) => visitor.visit_bool(truth),
                Plain::Unsigned(number) => visitor.visit_u64(number),
                Plain::Signed(number) => visitor.visit_i64(number),
                Plain::Float(number) => visitor.visit_f64(number),
                Plain::Text(text) => visitor.visit_str(text),
            },
            Content::Map(entries) => this.map(entries.len(), visitor),
            Content::List(items) => visitor.visit_seq(Items { reader: this, next: 0, count: items.len() }),
            Content::Alias(_) => visitor.visit_unit(),
        }
    }

    fn deserialize_str<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.resolved().content() {
            Content::Scalar { text, .. } => visitor.visit_str(text),
            Content::Map(_) | Content::List(_) | Content::Alias(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.resolved().content() {
            Content::Scalar { text, plain: true } if matches!(Plain::of(text), Plain::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_map<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_empty() { self.map(0, visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: Visitor<'o>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'o>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_empty() {
            visitor.visit_seq(Items { reader: self, next: 0, count: 0 })
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_enum<V: Visitor<'o>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.resolved().content() {
            Content::Scalar { text, .. } => visitor.visit_enum(Word(text)),
            Content::Map(_) => Err(de::Error::invalid_type(Unexpected::Map, &"a word")),
            Content::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a word")),
            Content::Alias(_) => Err(de::Error::custom("an alias stands within what it names")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'o>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'o>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        ignored_any
    }
}

/// The entries of a map.
struct Entries<'o, 'c> {
    reader: Reader<'o>,
    next: usize,
    count: usize,
    /// The entry whose key was read last.
    at: &'c Cell<Option<Entry>>,
}

impl<'o> MapAccess<'o> for Entries<'o, '_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'o>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Reader { nodes, without, node } = self.reader;
        while self.next < self.count && without.contains(&(node, self.next)) {
            self.next += 1;
        }
        let Content::Map(entries) = &nodes[node].content else { return Ok(None) };
        let Some((key, _)) = entries.get(self.next).filter(|_| self.next < self.count) else { return Ok(None) };
        let entry = (node, self.next);
        self.at.set(Some(entry));
        let key: StrDeserializer<'_, Failure> = key.text.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| Failure { at_key: true, ..error }.below(entry))
    }

    fn next_value_seed<V: DeserializeSeed<'o>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let entry = (self.reader.node, self.next);
        self.next += 1;
        match &self.reader.nodes[entry.0].content {
            Content::Map(entries) => {
                let value = Reader { node: entries[entry.1].1, ..self.reader };
                seed.deserialize(value).map_err(|error| error.below(entry))
            }
            Content::Scalar { .. } | Content::List(_) | Content::Alias(_) => Err(de::Error::custom("no map")),
        }
    }
}

/// The elements of a list.
struct Items<'o> {
    reader: Reader<'o>,
    next: usize,
    count: usize,
}

impl<'o> SeqAccess<'o> for Items<'o> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'o>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Reader { nodes, without, node } = self.reader;
        while self.next < self.count && without.contains(&(node, self.next)) {
            self.next += 1;
        }
        let Content::List(items) = &nodes[node].content else { return Ok(None) };
        let Some(item) = items.get(self.next).filter(|_| self.next < self.count) else { return Ok(None) };
        let entry = (node, self.next);
        self.next += 1;
        let item = Reader { node: *item, ..self.reader };
        seed.deserialize(item).map(Some).map_err(|error| error.below(entry))
    }
}

/// One word of an enum; the language's have no content.
struct Word<'o>(&'o str);

impl<'o> EnumAccess<'o> for Word<'o> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'o>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let word: StrDeserializer<'_, Failure> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'o> VariantAccess<'o> for Word<'o> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'o>>(self, _: T) -> Result<T::Value, Failure> {
        Err(de::Error::custom("this word takes no value"))
    }

    fn tuple_variant<V: Visitor<'o>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom("this word takes no value"))
    }

    fn struct_variant<V: Visitor<'o>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom("this word takes no value"))
    }
}
