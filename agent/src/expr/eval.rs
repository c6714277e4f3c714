//! Evaluation: every node costs a step, every byte that is read or made is counted, and the budget ends all.

use std::{cmp::Ordering, sync::Arc};

use indexmap::IndexMap;

use super::{
    ExprError, ExprErrorKind, Scope, Value,
    node::{Each, Kind, Node, Operator},
};

/// Steps of one evaluation; each takes less than 0.5 µs, so all together stay below 50 ms.
const STEPS: usize = 100_000;
/// Bytes of text and of lists that one evaluation makes.
const BYTES: usize = 4 * 1024 * 1024;
/// Bytes that are searched or compared in the time of a step.
const SCAN: usize = 64;
/// What a value in a list takes, roughly.
const VALUE: usize = 64;

/// What is left to spend.
#[derive(Debug)]
pub(super) struct Budget {
    steps: usize,
    bytes: usize,
}

impl Budget {
    pub(super) fn step(&mut self) -> Result<(), ExprError> {
        self.steps(1)
    }

    pub(super) fn steps(&mut self, steps: usize) -> Result<(), ExprError> {
        self.steps = self.steps.checked_sub(steps).ok_or_else(|| ExprError {
            kind: ExprErrorKind::TooCostly,
            message: format!("it takes more than {STEPS} steps on this data"),
            offset: None,
        })?;
        Ok(())
    }

    /// Text of this length is gone through.
    pub(super) fn scan(&mut self, length: usize) -> Result<(), ExprError> {
        self.steps(1 + length / SCAN)
    }

    /// Text of this length is made.
    pub(super) fn bytes(&mut self, length: usize) -> Result<(), ExprError> {
        self.scan(length)?;
        self.bytes = self.bytes.checked_sub(length).ok_or_else(|| ExprError {
            kind: ExprErrorKind::TooCostly,
            message: format!("it makes more than {BYTES} bytes of this data"),
            offset: None,
        })?;
        Ok(())
    }

    /// A list or a map of this length is made.
    pub(super) fn values(&mut self, length: usize) -> Result<(), ExprError> {
        self.steps(length)?;
        self.bytes(length.saturating_mul(VALUE))
    }
}

/// One evaluation.
#[derive(Debug)]
pub(super) struct Evaluation<'a> {
    scope: &'a Scope,
    /// What the macro that is around is at.
    element: Value,
    budget: Budget,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(scope: &'a Scope) -> Self {
        Self { scope, element: Value::Null, budget: Budget { steps: STEPS, bytes: BYTES } }
    }

    pub(super) fn value(&mut self, node: &Node) -> Result<Value, ExprError> {
        self.budget.step()?;
        match &node.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Element => Ok(self.element.clone()),
            Kind::Variable(name) => self
                .scope
                .get(name)
                .cloned()
                .ok_or_else(|| ExprError::value(Some(node.at), format!("there is no {name} here"))),
            Kind::Field(base, field) => field_of(&self.value(base)?, field, node.at),
            Kind::Has(base, field) => match self.value(base)? {
                Value::Map(map) => Ok(Value::Bool(map.contains_key(field))),
                other => Err(no_keys(&other, field, node.at)),
            },
            Kind::Index(two) => {
                let (base, index) = (self.value(&two[0])?, self.value(&two[1])?);
                index_of(&base, &index, node.at)
            }
            Kind::List(nodes) => {
                self.budget.values(nodes.len())?;
                let values = nodes.iter().map(|node| self.value(node)).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::List(values.into()))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Not(operand) => match self.value(operand)? {
                Value::Bool(truth) => Ok(Value::Bool(!truth)),
                other => {
                    Err(ExprError::value(Some(node.at), format!("`!` takes true or false, not {}", other.describe())))
                }
            },
            Kind::Negate(operand) => match self.value(operand)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(|| overflow(node.at)),
                Value::Double(number) => Ok(Value::Double(-number)),
                other => Err(ExprError::value(Some(node.at), format!("`-` takes a number, not {}", other.describe()))),
            },
            Kind::And(two) => self.logical(two, false),
            Kind::Or(two) => self.logical(two, true),
            Kind::Condition(three) => {
                let which = if self.truth(&three[0], "the condition before `?`")? { &three[1] } else { &three[2] };
                self.value(which)
            }
            Kind::Binary(operator, two) => {
                let (left, right) = (self.value(&two[0])?, self.value(&two[1])?);
                self.binary(*operator, left, right, node.at)
            }
            Kind::Call(function, arguments) => {
                let arguments = arguments.iter().map(|node| self.value(node)).collect::<Result<Vec<_>, _>>()?;
                function.call(node.at, &arguments, &mut self.budget)
            }
            Kind::Matches(text, pattern) => match self.value(text)? {
                Value::String(text) => pattern.is_match(&text, &mut self.budget).map(Value::Bool),
                other => Err(ExprError::value(Some(node.at), format!("matches does not take {}", other.describe()))),
            },
            Kind::Each(each, range, body) => {
                let elements = self.elements(range)?;
                self.each(*each, &elements, body)
            }
            Kind::MapIf(three) => {
                let mut made = Vec::new();
                for element in self.elements(&three[0])?.iter() {
                    self.element = element.clone();
                    if self.truth(&three[1], "the condition of map")? {
                        let value = self.value(&three[2])?;
                        self.budget.values(1)?;
                        made.push(value);
                    }
                }
                Ok(Value::List(made.into()))
            }
        }
    }

    fn truth(&mut self, node: &Node, what: &str) -> Result<bool, ExprError> {
        match self.value(node)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(ExprError::value(Some(node.at), format!("{what} is {}, not true or false", other.describe()))),
        }
    }

    /// And, or: one side that decides is enough, even if the other has no value. So `has(a.b) && a.b > 1` and
    /// `a.b > 1 && has(a.b)` mean the same, as CEL wants it.
    fn logical(&mut self, two: &[Node; 2], decisive: bool) -> Result<Value, ExprError> {
        let what = if decisive { "a side of `||`" } else { "a side of `&&`" };
        let left = self.truth(&two[0], what);
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        // Without a budget nothing can be decided.
        if let Err(error) = &left
            && error.kind == ExprErrorKind::TooCostly
        {
            return left.map(Value::Bool);
        }
        match self.truth(&two[1], what) {
            Ok(truth) if truth == decisive => Ok(Value::Bool(decisive)),
            Ok(truth) => left.map(|_| Value::Bool(truth)),
            Err(error) if error.kind == ExprErrorKind::TooCostly => Err(error),
            Err(error) => Err(left.err().unwrap_or(error)),
        }
    }

    fn map(&mut self, entries: &[[Node; 2]]) -> Result<Value, ExprError> {
        self.budget.values(entries.len())?;
        let mut map = IndexMap::with_capacity(entries.len());
        for [key, value] in entries {
            let at = key.at;
            let key = match self.value(key)? {
                Value::String(key) => key.to_string(),
                other => {
                    return Err(ExprError::value(
                        Some(at),
                        format!("a key of a map is text, not {}", other.describe()),
                    ));
                }
            };
            self.budget.bytes(key.len())?;
            if map.contains_key(&key) {
                return Err(ExprError::value(Some(at), format!("the map has the key {} twice", shown(&key))));
            }
            let value = self.value(value)?;
            map.insert(key, value);
        }
        Ok(Value::Map(map.into()))
    }

    /// What a macro goes through: the elements of a list, the keys of a map.
    fn elements(&mut self, range: &Node) -> Result<Arc<Vec<Value>>, ExprError> {
        match self.value(range)? {
            Value::List(list) => Ok(list),
            Value::Map(map) => {
                self.budget.values(map.len())?;
                self.budget.bytes(map.keys().map(String::len).sum())?;
                Ok(map.keys().map(|key| Value::from(key.as_str())).collect::<Vec<_>>().into())
            }
            other => {
                let message = format!("{} has no elements to go through", other.describe());
                Err(ExprError::value(Some(range.at), message))
            }
        }
    }

    fn each(&mut self, each: Each, elements: &[Value], body: &Node) -> Result<Value, ExprError> {
        let (mut made, mut found, mut failed) = (Vec::new(), 0, None);
        for element in elements {
            self.element = element.clone();
            if each == Each::Map {
                let value = self.value(body)?;
                self.budget.values(1)?;
                made.push(value);
                continue;
            }
            match (each, self.truth(body, "what is asked of each element")) {
                (Each::All, Ok(false)) => return Ok(Value::Bool(false)),
                (Each::Exists, Ok(true)) => return Ok(Value::Bool(true)),
                (Each::Filter, Ok(true)) => {
                    self.budget.values(1)?;
                    made.push(element.clone());
                }
                (Each::ExistsOne, Ok(true)) => found += 1,
                (_, Ok(_)) => {}
                // As with && and ||: another element may decide.
                (Each::All | Each::Exists, Err(error)) if error.kind != ExprErrorKind::TooCostly => {
                    failed.get_or_insert(error);
                }
                (_, Err(error)) => return Err(error),
            }
        }
        match (each, failed) {
            (_, Some(error)) => Err(error),
            (Each::All, None) => Ok(Value::Bool(true)),
            (Each::Exists, None) => Ok(Value::Bool(false)),
            (Each::ExistsOne, None) => Ok(Value::Bool(found == 1)),
            (Each::Filter | Each::Map, None) => Ok(Value::List(made.into())),
        }
    }

    fn binary(&mut self, operator: Operator, left: Value, right: Value, at: usize) -> Result<Value, ExprError> {
        match operator {
            Operator::Equal => self.equal(&left, &right).map(Value::Bool),
            Operator::NotEqual => self.equal(&left, &right).map(|equal| Value::Bool(!equal)),
            Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
                let order = self.compare(operator, &left, &right, at)?;
                Ok(Value::Bool(order.is_some_and(|order| match operator {
                    Operator::Less => order.is_lt(),
                    Operator::LessEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })))
            }
            Operator::In => match right {
                Value::List(list) => {
                    for value in list.iter() {
                        if self.equal(&left, value)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                Value::Map(map) => match &left {
                    Value::String(key) => Ok(Value::Bool(map.contains_key(&**key))),
                    Value::Bool(_) | Value::Int(_) | Value::Double(_) => Ok(Value::Bool(false)),
                    other => {
                        let message = format!("{} is no key of a map", other.describe());
                        Err(ExprError::value(Some(at), message))
                    }
                },
                other => {
                    let message = format!("`in` looks in a list or in the keys of a map, not in {}", other.describe());
                    Err(ExprError::value(Some(at), message))
                }
            },
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                self.calculate(operator, left, right, at)
            }
        }
    }

    fn calculate(&mut self, operator: Operator, left: Value, right: Value, at: usize) -> Result<Value, ExprError> {
        match (operator, &left, &right) {
            (Operator::Add, Value::String(left), Value::String(right)) => {
                self.budget.bytes(left.len() + right.len())?;
                Ok(Value::from(format!("{left}{right}")))
            }
            (Operator::Add, Value::List(left), Value::List(right)) => {
                self.budget.values(left.len() + right.len())?;
                Ok(Value::List(left.iter().chain(right.iter()).cloned().collect::<Vec<_>>().into()))
            }
            (Operator::Divide | Operator::Modulo, Value::Int(_), Value::Int(0)) => {
                Err(ExprError::value(Some(at), "a whole number can't be divided by 0"))
            }
            (_, Value::Int(left), Value::Int(right)) => match operator {
                Operator::Add => left.checked_add(*right),
                Operator::Subtract => left.checked_sub(*right),
                Operator::Multiply => left.checked_mul(*right),
                Operator::Divide => left.checked_div(*right),
                _ => left.checked_rem(*right),
            }
            .map(Value::Int)
            .ok_or_else(|| overflow(at)),
            (Operator::Add, Value::Double(left), Value::Double(right)) => Ok(Value::Double(left + right)),
            (Operator::Subtract, Value::Double(left), Value::Double(right)) => Ok(Value::Double(left - right)),
            (Operator::Multiply, Value::Double(left), Value::Double(right)) => Ok(Value::Double(left * right)),
            (Operator::Divide, Value::Double(left), Value::Double(right)) => Ok(Value::Double(left / right)),
            _ => Err(mismatch(operator, &left, &right, at)),
        }
    }

    /// Equal, whatever the types: those of two types are not, but numbers are compared as numbers.
    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, ExprError> {
        self.budget.step()?;
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            (Value::Int(_) | Value::Double(_), Value::Int(_) | Value::Double(_)) => {
                Ok(numbers(left, right) == Some(Ordering::Equal))
            }
            (Value::String(left), Value::String(right)) => {
                self.budget.scan(left.len().min(right.len()))?;
                Ok(left == right)
            }
            (Value::List(left), Value::List(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right.iter()) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Map(left), Value::Map(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (key, left) in left.iter() {
                    self.budget.scan(key.len())?;
                    match right.get(key) {
                        Some(right) if self.equal(left, right)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Which of two comes first; none for what is no number.
    fn compare(
        &mut self,
        operator: Operator,
        left: &Value,
        right: &Value,
        at: usize,
    ) -> Result<Option<Ordering>, ExprError> {
        match (left, right) {
            (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
            (Value::Int(_) | Value::Double(_), Value::Int(_) | Value::Double(_)) => Ok(numbers(left, right)),
            (Value::String(left), Value::String(right)) => {
                self.budget.scan(left.len().min(right.len()))?;
                Ok(Some(left.cmp(right)))
            }
            _ => Err(mismatch(operator, left, right, at)),
        }
    }
}

/// Two numbers of either type, exactly.
fn numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Double(right)) => whole_and_double(*left, *right),
        (Value::Double(left), Value::Int(right)) => whole_and_double(*right, *left).map(Ordering::reverse),
        _ => None,
    }
}

fn whole_and_double(whole: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // 2^63 is a double; every double below it that is whole fits 64 bits.
    if double >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if double < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i64)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

fn field_of(base: &Value, field: &str, at: usize) -> Result<Value, ExprError> {
    match base {
        Value::Map(map) => map.get(field).cloned().ok_or_else(|| no_key(field, at)),
        other => Err(no_keys(other, field, at)),
    }
}

fn index_of(base: &Value, index: &Value, at: usize) -> Result<Value, ExprError> {
    match (base, index) {
        (Value::Map(map), Value::String(key)) => map.get(&**key).cloned().ok_or_else(|| no_key(key, at)),
        (Value::List(list), Value::Int(index)) => {
            usize::try_from(*index).ok().and_then(|index| list.get(index)).cloned().ok_or_else(|| {
                ExprError::value(Some(at), format!("the list has no element {index}; it has {}, from 0", list.len()))
            })
        }
        _ => {
            let message = format!("{} has no elements by {}", base.describe(), index.describe());
            Err(ExprError::value(Some(at), message))
        }
    }
}

fn no_key(key: &str, at: usize) -> ExprError {
    ExprError::value(Some(at), format!("there is no key {}; has(…) asks whether there is one", shown(key)))
}

fn no_keys(base: &Value, key: &str, at: usize) -> ExprError {
    ExprError::value(Some(at), format!("{} has no key {}", base.describe(), shown(key)))
}

/// A key as a sentence shows it: data may have chosen it.
fn shown(key: &str) -> String {
    let start: String = key.chars().take(64).collect();
    format!("{start:?}")
}

fn overflow(at: usize) -> ExprError {
    ExprError::value(Some(at), "the result does not fit a whole number of 64 bits")
}

fn mismatch(operator: Operator, left: &Value, right: &Value, at: usize) -> ExprError {
    let hint = match (operator, left, right) {
        (Operator::Add, Value::String(_), _) | (Operator::Add, _, Value::String(_)) => "; string(…) makes text",
        (_, Value::Int(_), Value::Double(_)) | (_, Value::Double(_), Value::Int(_)) => {
            "; double(…) makes one of the other"
        }
        _ => "",
    };
    let (sign, left, right) = (operator.sign(), left.describe(), right.describe());
    ExprError::value(Some(at), format!("`{sign}` does not take {left} and {right}{hint}"))
}
