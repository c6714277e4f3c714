//! The tree that is evaluated: every name resolved, every pattern compiled.

use std::sync::Arc;

use super::{
    Value,
    functions::{Function, Pattern},
};

/// One part of an expression.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands in the text, in bytes.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Value),
    /// A variable of the scope.
    Variable(String),
    /// The variable of the macro around it; there is one at most.
    Element,
    Field(Box<Node>, String),
    /// `has(operand.field)`.
    Has(Box<Node>, String),
    Index(Box<[Node; 2]>),
    List(Vec<Node>),
    Map(Vec<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Condition(Box<[Node; 3]>),
    Binary(Operator, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Arc<Pattern>),
    /// A macro over the elements of a list or the keys of a map.
    Each(Each, Box<Node>, Box<Node>),
    /// `list.map(x, condition, value)`.
    MapIf(Box<[Node; 3]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

impl Operator {
    /// As it is written.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
        }
    }
}

impl Node {
    /// The nodes right below it, in the order of the text.
    pub(super) fn children(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Literal(_) | Kind::Variable(_) | Kind::Element => Vec::new(),
            Kind::Field(one, _) | Kind::Has(one, _) | Kind::Not(one) | Kind::Negate(one) | Kind::Matches(one, _) => {
                vec![one]
            }
            Kind::Index(two) | Kind::And(two) | Kind::Or(two) | Kind::Binary(_, two) => two.iter().collect(),
            Kind::Condition(three) | Kind::MapIf(three) => three.iter().collect(),
            Kind::List(nodes) | Kind::Call(_, nodes) => nodes.iter().collect(),
            Kind::Map(entries) => entries.iter().flatten().collect(),
            Kind::Each(_, range, body) => vec![range, body],
        }
    }
}
