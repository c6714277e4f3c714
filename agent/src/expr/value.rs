//! Values: those of JSON, cheap to pass on.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ExprError;

/// Values in one piece of data. A payload of 1 MiB could hold half a million, each of which costs memory.
const VALUES: usize = 100_000;
/// Lists and maps within each other.
const DEPTH: usize = 64;
/// The longest text made of a value, in bytes: that of an output.
const TEXT: usize = 64 * 1024;

/// What an expression reads and gives. To clone one is cheap, whatever its size.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map, in the order in which it was made.
    Map(Arc<IndexMap<String, Value>>),
}

impl Value {
    /// A map of some values.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(Arc::new(entries.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }

    /// Takes JSON over. A whole number that 64 bits can't hold becomes a double.
    ///
    /// # Errors
    /// If it holds more than 100,000 values, or lists and maps more than 64 deep in each other.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ExprError> {
        convert(json, DEPTH, &mut 0)
    }

    /// As environment variables and params take it: text as it is, numbers and booleans as they are written, lists and
    /// maps as JSON.
    ///
    /// # Errors
    /// If it is null, which is no text, or longer than 64 KiB.
    pub fn to_text(&self) -> Result<String, ExprError> {
        let mut text = String::new();
        match self {
            Self::Null => return Err(ExprError::value(None, "it gives null, where text is needed")),
            Self::String(string) if string.len() <= TEXT => return Ok(string.to_string()),
            Self::String(_) => return Err(too_long()),
            Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::List(_) | Self::Map(_) => self.write(&mut text)?,
        }
        Ok(text)
    }

    /// Appends it as JSON. Values can be shared, so the text can be far longer than the data: it is bounded on the way.
    fn write(&self, text: &mut String) -> Result<(), ExprError> {
        use std::fmt::Write;
        if text.len() > TEXT {
            return Err(too_long());
        }
        let quoted = |text: &mut String, string: &str| {
            if text.len() + string.len() > TEXT {
                return Err(too_long());
            }
            text.push_str(&serde_json::Value::from(string).to_string());
            Ok(())
        };
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
            Self::Int(number) => _ = write!(text, "{number}"),
            Self::Double(number) => _ = write!(text, "{number}"),
            Self::String(string) => quoted(text, string)?,
            Self::List(list) => {
                text.push('[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    value.write(text)?;
                }
                text.push(']');
            }
            Self::Map(map) => {
                text.push('{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    quoted(text, key)?;
                    text.push(':');
                    value.write(text)?;
                }
                text.push('}');
            }
        }
        if text.len() > TEXT { Err(too_long()) } else { Ok(()) }
    }

    /// Its type, as a sentence says it.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Double(_) => "a number with a fraction",
            Self::String(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

fn too_long() -> ExprError {
    ExprError::value(None, format!("it gives more than {TEXT} bytes of text"))
}

fn convert(json: &serde_json::Value, depth: usize, count: &mut usize) -> Result<Value, ExprError> {
    *count += 1;
    if *count > VALUES {
        return Err(ExprError::value(None, format!("the data holds more than {VALUES} values")));
    }
    if depth == 0 {
        return Err(ExprError::value(
            None,
            format!("lists and maps of the data stand more than {DEPTH} deep in each other"),
        ));
    }
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(text.as_str().into()),
        serde_json::Value::Array(list) => {
            let list = list.iter().map(|value| convert(value, depth - 1, count)).collect::<Result<_, _>>()?;
            Value::List(Arc::new(list))
        }
        serde_json::Value::Object(map) => {
            let entry =
                |(key, value): (&String, &serde_json::Value)| Ok((key.clone(), convert(value, depth - 1, count)?));
            Value::Map(Arc::new(map.iter().map(entry).collect::<Result<_, ExprError>>()?))
        }
    })
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}
