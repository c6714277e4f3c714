//! Expressions: CEL, with bounds that hold against hostile text and hostile data.
//!
//! `when`, `{expr: …}` and a webhook's `params` are expressions. The grammar is that of the `cel` crate, whose parser
//! reads them; that crate's interpreter has no limit of cost and copies what it passes on, so values are computed here,
//! where each step and each byte is counted. Types are those of JSON: null, booleans, whole numbers of 64 bits,
//! numbers, text, lists, and maps whose keys are text.
//!
//! - [`scan`] looks at the text before the parser does: its length, tokens and nesting.
//! - [`lower`] turns the parser's tree into [`node`]s, and refuses what is not taken.
//! - [`eval`] computes, within a budget; [`functions`] are what can be called.

mod eval;
mod functions;
mod lower;
mod node;
mod paths;
mod scan;
#[cfg(test)]
mod tests;
mod value;

use indexmap::IndexMap;

use self::{eval::Evaluation, node::Node};
pub use self::{functions::FUNCTIONS, paths::Path, value::Value};

/// The longest expression, in bytes.
pub const TEXT_LIMIT: usize = 4 * 1024;

/// A parsed expression. To evaluate it often, parse it once.
#[derive(Debug, Clone)]
pub struct Expr {
    root: Node,
    paths: Vec<Path>,
}

/// The variables that an expression sees, by name.
#[derive(Debug, Clone, Default)]
pub struct Scope(IndexMap<&'static str, Value>);

/// What is wrong with an expression, or why it has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// Which kind of mistake.
    pub kind: ExprErrorKind,
    /// One sentence without a full stop, for people.
    pub message: String,
    /// Where in the text, in bytes, if one place is to blame.
    pub offset: Option<usize>,
}

/// Kinds of mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExprErrorKind {
    /// It can't be read, or uses what is not taken.
    Syntax,
    /// It is too long, too deep, or could cost too much.
    TooLarge,
    /// It calls a function that there is not.
    UnknownFunction,
    /// It can be read, and has no value: a type that does not fit, a key that is missing.
    Value,
    /// To compute it took too many steps or too much memory.
    TooCostly,
}

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// If the text is not an expression, or is too large for one; never [`ExprErrorKind::Value`] or
    /// [`ExprErrorKind::TooCostly`].
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        scan::check(text)?;
        let root = lower::parse(text)?;
        let paths = paths::of(&root);
        Ok(Self { root, paths })
    }

    /// What it reads of its variables, each place by itself, in the order of the text.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Its value. Bounded in time and memory whatever the text and the scope.
    ///
    /// # Errors
    /// [`ExprErrorKind::Value`] or [`ExprErrorKind::TooCostly`].
    pub fn eval(&self, scope: &Scope) -> Result<Value, ExprError> {
        Evaluation::new(scope).value(&self.root)
    }

    /// Its value, if that is true or false.
    ///
    /// # Errors
    /// As [`Self::eval`], and if the value is of another type.
    pub fn eval_bool(&self, scope: &Scope) -> Result<bool, ExprError> {
        match self.eval(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => {
                Err(ExprError::value(Some(self.root.at), format!("it gives {}, not true or false", other.describe())))
            }
        }
    }
}

impl Scope {
    /// No variable.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable; a second one of the same name takes its place.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl ExprError {
    fn syntax(offset: usize, message: impl Into<String>) -> Self {
        Self { kind: ExprErrorKind::Syntax, message: message.into(), offset: Some(offset) }
    }

    fn too_large(offset: Option<usize>, message: impl Into<String>) -> Self {
        Self { kind: ExprErrorKind::TooLarge, message: message.into(), offset }
    }

    fn value(offset: Option<usize>, message: impl Into<String>) -> Self {
        Self { kind: ExprErrorKind::Value, message: message.into(), offset }
    }

    /// Line and column, both from 1 and in characters, of its place in `text`.
    pub fn line_column(&self, text: &str) -> Option<(usize, usize)> {
        let before = text.get(..self.offset?)?;
        let line = before.rsplit('\n').next().unwrap_or(before);
        Some((before.matches('\n').count() + 1, line.chars().count() + 1))
    }
}
