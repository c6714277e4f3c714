//! A map in file order that refuses a key written twice, which the YAML library lets pass silently.

use std::{fmt, hash::Hash, marker::PhantomData, ops::Deref};

use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};

/// A map in file order whose keys are unique by construction; reads like an [`IndexMap`].
#[derive(Debug, Clone)]
pub struct UniqueMap<K: Hash + Eq, V>(IndexMap<K, V>);

impl<K: Hash + Eq, V> UniqueMap<K, V> {
    /// No entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The map itself.
    pub fn into_inner(self) -> IndexMap<K, V> {
        self.0
    }
}

impl<K: Hash + Eq, V> Default for UniqueMap<K, V> {
    fn default() -> Self {
        Self(IndexMap::new())
    }
}

impl<K: Hash + Eq, V: PartialEq> PartialEq for UniqueMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Hash + Eq, V: Eq> Eq for UniqueMap<K, V> {}

impl<K: Hash + Eq, V> Deref for UniqueMap<K, V> {
    type Target = IndexMap<K, V>;

    fn deref(&self) -> &IndexMap<K, V> {
        &self.0
    }
}

impl<K: Hash + Eq, V> From<IndexMap<K, V>> for UniqueMap<K, V> {
    fn from(map: IndexMap<K, V>) -> Self {
        Self(map)
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for UniqueMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<'a, K: Hash + Eq, V> IntoIterator for &'a UniqueMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = indexmap::map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K: Hash + Eq + Serialize, V: Serialize> Serialize for UniqueMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, K, V> Deserialize<'de> for UniqueMap<K, V>
where
    K: Hash + Eq + Deserialize<'de> + fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Unique(PhantomData))
    }
}

struct Unique<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Unique<K, V>
where
    K: Hash + Eq + Deserialize<'de> + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = UniqueMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = IndexMap::new();
        while let Some(key) = access.next_key::<K>()? {
            if map.contains_key(&key) {
                return Err(Error::custom(format_args!("duplicate key {:?}", key.to_string())));
            }
            let value = access.next_value()?;
            map.insert(key, value);
        }
        // Entries are large and most maps hold few: room for more would be most of a workflow's memory.
        map.shrink_to_fit();
        Ok(UniqueMap(map))
    }
}

#[cfg(feature = "schema")]
impl<K: Hash + Eq + schemars::JsonSchema, V: schemars::JsonSchema> schemars::JsonSchema for UniqueMap<K, V> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names = generator.subschema_for::<K>();
        let values = generator.subschema_for::<V>();
        schemars::json_schema!({"type": "object", "propertyNames": names, "additionalProperties": values})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_written_twice_is_refused() {
        let once: UniqueMap<String, u8> = serde_yaml::from_str("a: 1\nb: 2\n").unwrap();
        assert_eq!(once.keys().collect::<Vec<_>>(), ["a", "b"]);
        let twice = serde_yaml::from_str::<UniqueMap<String, u8>>("a: 1\na: 2\n").unwrap_err();
        assert!(twice.to_string().contains("duplicate key \"a\""), "{twice}");
    }
}
