//! What an expression can call.

use regex::{Regex, RegexBuilder};

use super::{ExprError, ExprErrorKind, Value, eval::Budget};

/// Functions and macros by name, for those who look for the one that was meant.
pub const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "split",
    "join",
    "string",
    "int",
    "double",
    "bool",
    "has",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    LowerAscii,
    UpperAscii,
    Trim,
    Replace,
    Split,
    Join,
    String,
    Int,
    Double,
    Bool,
}

/// What a name and a number of arguments come to.
pub(super) enum Call {
    Function(Function),
    /// There is one of that name, which is called otherwise; a sentence says how.
    Wrong(String),
    Unknown,
}

/// How a function is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `value.function()`.
    Method,
    /// `function(value)`.
    Plain,
    Both,
}

impl Function {
    /// By name; `arguments` counts the value before the dot too.
    pub(super) fn find(name: &str, method: bool, arguments: usize) -> Call {
        use Style::{Both, Method, Plain};
        let (function, style, count, example) = match name {
            "size" => (Self::Size, Both, 1..=1, "size(list)"),
            "contains" => (Self::Contains, Method, 2..=2, "text.contains(\"part\")"),
            "startsWith" => (Self::StartsWith, Method, 2..=2, "text.startsWith(\"beginning\")"),
            "endsWith" => (Self::EndsWith, Method, 2..=2, "text.endsWith(\"end\")"),
            "matches" => (Self::Matches, Both, 2..=2, "text.matches(\"^v[0-9]+$\")"),
            "lowerAscii" => (Self::LowerAscii, Method, 1..=1, "text.lowerAscii()"),
            "upperAscii" => (Self::UpperAscii, Method, 1..=1, "text.upperAscii()"),
            "trim" => (Self::Trim, Method, 1..=1, "text.trim()"),
            "replace" => (Self::Replace, Method, 3..=3, "text.replace(\"old\", \"new\")"),
            "split" => (Self::Split, Method, 2..=2, "text.split(\"/\")"),
            "join" => (Self::Join, Method, 1..=2, "list.join(\",\")"),
            "string" => (Self::String, Plain, 1..=1, "string(value)"),
            "int" => (Self::Int, Plain, 1..=1, "int(value)"),
            "double" => (Self::Double, Plain, 1..=1, "double(value)"),
            "bool" => (Self::Bool, Plain, 1..=1, "bool(value)"),
            "all" | "exists" | "exists_one" | "filter" | "map" => {
                return Call::Wrong(format!("{name} is called on a list, as in list.{name}(x, x > 1)"));
            }
            "has" => return Call::Wrong("has takes one key of a map, as in has(a.b)".into()),
            _ => return Call::Unknown,
        };
        if style == (if method { Plain } else { Method }) || !count.contains(&arguments) {
            return Call::Wrong(format!("{name} is called like this: {example}"));
        }
        Call::Function(function)
    }

    /// Calls it with as many arguments as [`Self::find`] has agreed to.
    pub(super) fn call(self, at: usize, arguments: &[Value], budget: &mut Budget) -> Result<Value, ExprError> {
        let text = |text: String, budget: &mut Budget| {
            budget.bytes(text.len())?;
            Ok(Value::from(text))
        };
        match (self, arguments) {
            (Self::Size, [Value::String(text)]) => {
                budget.scan(text.len())?;
                Ok(whole(text.chars().count()))
            }
            (Self::Size, [Value::List(list)]) => Ok(whole(list.len())),
            (Self::Size, [Value::Map(map)]) => Ok(whole(map.len())),
            (Self::Contains, [Value::String(text), Value::String(part)]) => {
                budget.scan(text.len())?;
                Ok(Value::Bool(text.contains(&**part)))
            }
            (Self::StartsWith, [Value::String(text), Value::String(part)]) => {
                budget.scan(part.len())?;
                Ok(Value::Bool(text.starts_with(&**part)))
            }
            (Self::EndsWith, [Value::String(text), Value::String(part)]) => {
                budget.scan(part.len())?;
                Ok(Value::Bool(text.ends_with(&**part)))
            }
            (Self::LowerAscii, [Value::String(string)]) => {
                budget.scan(string.len())?;
                text(string.to_ascii_lowercase(), budget)
            }
            (Self::UpperAscii, [Value::String(string)]) => {
                budget.scan(string.len())?;
                text(string.to_ascii_uppercase(), budget)
            }
            (Self::Trim, [Value::String(string)]) => {
                budget.scan(string.len())?;
                text(string.trim().to_owned(), budget)
            }
            (Self::Replace, [Value::String(string), Value::String(from), Value::String(to)]) => {
                budget.scan(string.len())?;
                // Counted before it is made: it may grow by the length of `to` for each place.
                let places = string.matches(&**from).count();
                budget.bytes(string.len() + places * to.len())?;
                Ok(Value::from(string.replace(&**from, to)))
            }
            (Self::Split, [Value::String(string), Value::String(by)]) => {
                budget.scan(string.len())?;
                let parts: Vec<&str> = if by.is_empty() {
                    string.char_indices().map(|(i, c)| &string[i..i + c.len_utf8()]).collect()
                } else {
                    string.split(&**by).collect()
                };
                budget.values(parts.len())?;
                budget.bytes(string.len())?;
                Ok(Value::List(parts.into_iter().map(Value::from).collect::<Vec<_>>().into()))
            }
            (Self::Join, [Value::List(list), between @ ..]) => join(at, list, between.first(), budget),
            (Self::String, [value @ Value::String(_)]) => Ok(value.clone()),
            (Self::String, [value @ (Value::Bool(_) | Value::Int(_) | Value::Double(_))]) => {
                text(value.to_text()?, budget)
            }
            (Self::Int, [value @ Value::Int(_)]) | (Self::Double, [value @ Value::Double(_)]) => Ok(value.clone()),
            (Self::Bool, [value @ Value::Bool(_)]) => Ok(value.clone()),
            (Self::Int, [Value::String(text)]) => parsed(at, text, text.parse().map(Value::Int).ok(), "a whole number"),
            // Towards zero, as in other languages; the bounds are those that a double holds exactly.
            (Self::Int, [Value::Double(number)]) if number.trunc().abs() < 9.2e18 => {
                Ok(Value::Int(number.trunc() as i64))
            }
            (Self::Double, [Value::Int(number)]) => Ok(Value::Double(*number as f64)),
            (Self::Double, [Value::String(text)]) => parsed(at, text, text.parse().map(Value::Double).ok(), "a number"),
            (Self::Bool, [Value::String(text)]) => {
                let truth = match &**text {
                    "true" => Some(Value::Bool(true)),
                    "false" => Some(Value::Bool(false)),
                    _ => None,
                };
                parsed(at, text, truth, "true or false")
            }
            _ => {
                let types: Vec<_> = arguments.iter().map(Value::describe).collect();
                Err(ExprError::value(Some(at), format!("{} does not take {}", self.name(), types.join(" and "))))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Matches => "matches",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Trim => "trim",
            Self::Replace => "replace",
            Self::Split => "split",
            Self::Join => "join",
            Self::String => "string",
            Self::Int => "int",
            Self::Double => "double",
            Self::Bool => "bool",
        }
    }
}

fn whole(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn parsed(at: usize, text: &str, value: Option<Value>, what: &str) -> Result<Value, ExprError> {
    value.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        ExprError::value(Some(at), format!("{shown:?} is not {what}"))
    })
}

fn join(at: usize, list: &[Value], between: Option<&Value>, budget: &mut Budget) -> Result<Value, ExprError> {
    let between = match between {
        None => "",
        Some(Value::String(between)) => between,
        Some(other) => {
            return Err(ExprError::value(Some(at), format!("join puts text between, not {}", other.describe())));
        }
    };
    let mut joined = String::new();
    for (index, value) in list.iter().enumerate() {
        let Value::String(text) = value else {
            return Err(ExprError::value(Some(at), format!("join takes a list of texts, not of {}", value.describe())));
        };
        let between = if index == 0 { "" } else { between };
        budget.bytes(between.len() + text.len())?;
        budget.step()?;
        joined.push_str(between);
        joined.push_str(text);
    }
    Ok(Value::from(joined))
}

/// A regular expression of `matches`, with what a byte of text costs it at worst.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    regex: Regex,
    steps_per_byte: usize,
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// If it is no regular expression, or a large one.
    pub(super) fn new(text: &str) -> Result<Self, ExprError> {
        // The engine goes through all states for each byte at worst, so the cost of a match is by the size of the
        // program; the size is learnt by trying.
        for steps_per_byte in [1, 4, 16] {
            match RegexBuilder::new(text).size_limit(steps_per_byte * 16 * 1024).nest_limit(50).build() {
                Ok(regex) => return Ok(Self { regex, steps_per_byte: steps_per_byte * 4 }),
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    // The last line of the library's text says what is wrong; those before it draw where.
                    let text = error.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    return Err(ExprError::syntax(0, format!("the pattern can't be read: {why}")));
                }
            }
        }
        let message = "the pattern is too large; repeat less often, or write [0-9] and [a-z] for \\d and \\w";
        Err(ExprError { kind: ExprErrorKind::TooLarge, message: message.into(), offset: None })
    }

    pub(super) fn is_match(&self, text: &str, budget: &mut Budget) -> Result<bool, ExprError> {
        budget.steps(1 + text.len().saturating_mul(self.steps_per_byte))?;
        Ok(self.regex.is_match(text))
    }
}
