//! Values of environment variables: a literal, or where the value comes from.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

/// A literal as written: text, whole number, number or boolean. It reaches a step as text.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(truth) => write!(f, "{truth}"),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::String(text) => serializer.serialize_str(text),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Boolean(truth) => serializer.serialize_bool(*truth),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match EnvValue::deserialize(deserializer)? {
            EnvValue::Literal(scalar) => Ok(scalar),
            _ => Err(de::Error::custom("expected text, a number or true/false, not a map")),
        }
    }
}

/// The value of an environment variable.
///
/// Written as a literal or as a map with one key: `{param: NAME}`, `{output: TASK.NAME}` (with `default`),
/// `{secret: NAME/KEY}`, `{expr: CEL}`.
#[derive(Debug, Clone, PartialEq)]
pub enum EnvValue {
    /// As it stands.
    Literal(Scalar),
    /// The run's param of that name.
    Param(String),
    /// An output of a task that ended before, and what to use where that task was skipped.
    Output {
        /// The task.
        task: String,
        /// The output's name.
        name: String,
        /// Used if the task did not publish it.
        default: Option<String>,
    },
    /// A key of a sealed secret, `NAME/KEY`.
    Secret(String),
    /// A CEL expression.
    Expr(String),
}

impl Serialize for EnvValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value) = match self {
            Self::Literal(scalar) => return scalar.serialize(serializer),
            Self::Param(name) => ("param", name.clone()),
            Self::Output { task, name, .. } => ("output", format!("{task}.{name}")),
            Self::Secret(name) => ("secret", name.clone()),
            Self::Expr(text) => ("expr", text.clone()),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(key, &value)?;
        if let Self::Output { default: Some(default), .. } = self {
            map.serialize_entry("default", default)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvVisitor)
    }
}

struct EnvVisitor;

impl<'de> Visitor<'de> for EnvVisitor {
    type Value = EnvValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "text, a number, true/false, or one of {param: NAME}, {output: TASK.NAME}, {secret: NAME/KEY}, {expr: CEL}",
        )
    }

    fn visit_bool<E>(self, truth: bool) -> Result<EnvValue, E> {
        Ok(EnvValue::Literal(Scalar::Boolean(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<EnvValue, E> {
        Ok(EnvValue::Literal(Scalar::Integer(number)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<EnvValue, E> {
        let number =
            i64::try_from(number).map_err(|_| E::custom("a number above 2^63; quote it to keep it as text"))?;
        self.visit_i64(number)
    }

    fn visit_f64<E>(self, number: f64) -> Result<EnvValue, E> {
        Ok(EnvValue::Literal(Scalar::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<EnvValue, E> {
        Ok(EnvValue::Literal(Scalar::String(text.into())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<EnvValue, A::Error> {
        use de::Error;
        let (mut value, mut default) = (None, None);
        while let Some(key) = access.next_key::<String>()? {
            if key == "default" {
                default = Some(access.next_value::<Scalar>()?.to_string());
                continue;
            }
            let text: String = access.next_value()?;
            let next = match key.as_str() {
                "param" => EnvValue::Param(text),
                "secret" => EnvValue::Secret(text),
                "expr" => EnvValue::Expr(text),
                "output" => {
                    // A task's name may hold dots; an output's name may not.
                    let (task, name) = text
                        .rsplit_once('.')
                        .ok_or_else(|| A::Error::custom(format_args!("expected TASK.NAME, got {text:?}")))?;
                    EnvValue::Output { task: task.into(), name: name.into(), default: None }
                }
                _ => return Err(A::Error::unknown_field(&key, &["param", "output", "default", "secret", "expr"])),
            };
            if value.replace(next).is_some() {
                return Err(A::Error::custom("only one of param, output, secret and expr may be given"));
            }
        }
        match (value, default) {
            (Some(EnvValue::Output { task, name, .. }), default) => Ok(EnvValue::Output { task, name, default }),
            (Some(_), Some(_)) => Err(A::Error::custom("default belongs to output; a param has its own")),
            (Some(value), None) => Ok(value),
            (None, _) => Err(A::Error::custom("expected one of param, output, secret or expr")),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "number", "boolean"]})
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for EnvValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EnvValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = |key: &str, about: &str| {
            serde_json::json!({
                "type": "object", "required": [key], "additionalProperties": false,
                "properties": {key: {"type": "string", "description": about}}
            })
        };
        let mut output = one("output", "TASK.NAME: an output of a task that ended before.");
        output["properties"]["output"]["pattern"] = r"\.".into();
        output["properties"]["default"] = serde_json::json!({
            "type": ["string", "number", "boolean"],
            "description": "Used if the task did not publish it."
        });
        schemars::json_schema!({
            "description": "A literal, or where the value comes from.",
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                one("param", "A param of the run."),
                output,
                one("secret", "NAME/KEY of a sealed secret."),
                one("expr", "A CEL expression.")
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_literals_and_references() {
        let read = |text: &str| serde_yaml::from_str::<EnvValue>(text).map_err(|e| e.to_string());
        assert_eq!(read("no"), Ok(EnvValue::Literal(Scalar::String("no".into()))));
        assert_eq!(read("7"), Ok(EnvValue::Literal(Scalar::Integer(7))));
        assert_eq!(read("{param: who}"), Ok(EnvValue::Param("who".into())));
        let output = EnvValue::Output { task: "a.b".into(), name: "n".into(), default: Some("0".into()) };
        assert_eq!(read("{output: a.b.n, default: 0}"), Ok(output.clone()));
        assert_eq!(read(&serde_yaml::to_string(&output).unwrap()), Ok(output));
        for bad in ["{param: a, expr: b}", "{parm: a}", "{output: a}", "{}", "[1]", "{param: a, default: b}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
