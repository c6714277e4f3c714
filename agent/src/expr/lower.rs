//! From the parser's tree to [`Node`]s: names are resolved, patterns compiled, and what is not taken is refused.

use std::sync::Arc;

use cel::{
    Env,
    common::ast::{CallExpr, EntryExpr, Expr as Tree, IdedExpr, LiteralValue, SourceInfo, operators},
    parser::ParseError,
};

use super::{
    ExprError, ExprErrorKind, Value,
    functions::{Call, Function, Pattern},
    node::{Each, Kind, Node, Operator},
};

/// Parses a text that has passed the scan.
pub(super) fn parse(text: &str) -> Result<Node, ExprError> {
    // Without the macros of the crate: it would make loops of them, which are harder to bound and to word.
    let parser = Env::default().with_optional_support(false).parser();
    match parser.parse_with_source_info(text) {
        Ok((tree, source)) => Lower { text, source: &source, element: None }.node(&tree),
        Err(errors) => Err(errors
            .errors
            .first()
            .map_or_else(|| ExprError::syntax(0, "the expression can't be read"), |error| worded(text, error))),
    }
}

/// The parser's first complaint, in our words. Its own `Display` is not safe for all positions.
fn worded(text: &str, error: &ParseError) -> ExprError {
    let offset = offset_of(text, error.pos);
    let rest = text[offset..].trim_start();
    let message = if let Some(word) = error.msg.strip_prefix("reserved identifier: ") {
        format!("`{word}` is a reserved word")
    } else if error.msg.starts_with("invalid int literal") {
        "this whole number does not fit 64 bits".into()
    } else if error.msg.starts_with("invalid double literal") {
        "this number can't be read".into()
    } else if error.msg.starts_with("invalid string literal")
        || (error.msg.contains("token recognition error") && rest.starts_with(['"', '\'']))
    {
        "this text has an escape that can't be read; write \\\\ for a backslash".into()
    } else if rest.is_empty() {
        "the expression ends too early".into()
    } else {
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').take(40).collect();
        let sign = rest.chars().next().map(String::from).unwrap_or_default();
        format!("`{}` is not expected here", if word.is_empty() { sign } else { word })
    };
    ExprError::syntax(offset, message)
}

/// From line and column, both from 1 and in characters, to bytes.
fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let (line, column) = (usize::try_from(line).unwrap_or(1).max(1), usize::try_from(column).unwrap_or(1).max(1));
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let within = text[start..].chars().take(column - 1).map(char::len_utf8).sum::<usize>();
    start + within
}

struct Lower<'a> {
    text: &'a str,
    source: &'a SourceInfo,
    /// The variable of the macro that is around this place.
    element: Option<String>,
}

impl Lower<'_> {
    /// The parser counts bytes here, and characters in its complaints.
    fn at(&self, id: u64) -> usize {
        let start = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        self.text.floor_char_boundary(start)
    }

    fn node(&mut self, tree: &IdedExpr) -> Result<Node, ExprError> {
        let at = self.at(tree.id);
        let kind = match &tree.expr {
            Tree::Literal(literal) => Kind::Literal(literal_value(at, literal)?),
            Tree::Ident(name) if name.starts_with('.') => {
                return Err(ExprError::syntax(at, format!("write {} without the dot before it", &name[1..])));
            }
            Tree::Ident(name) if self.element.as_ref() == Some(name) => Kind::Element,
            Tree::Ident(name) => Kind::Variable(name.clone()),
            Tree::Select(select) => Kind::Field(Box::new(self.node(&select.operand)?), select.field.clone()),
            Tree::List(list) => Kind::List(self.nodes(&list.elements)?),
            Tree::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(ExprError::syntax(at, "an entry of this map can't be read"));
                    };
                    entries.push([self.node(&entry.key)?, self.node(&entry.value)?]);
                }
                Kind::Map(entries)
            }
            Tree::Call(call) => self.call(at, call)?,
            Tree::Struct(message) => {
                return Err(ExprError::syntax(
                    at,
                    format!("there is no type {} to make a value of", message.type_name),
                ));
            }
            Tree::Comprehension(_) | Tree::Unspecified => {
                return Err(ExprError::syntax(at, "this part of the expression can't be read"));
            }
        };
        // The parser places a field at its dot and a call at its bracket: people look for where the whole begins.
        let at = match &kind {
            Kind::Field(base, _) | Kind::Has(base, _) | Kind::Matches(base, _) | Kind::Each(_, base, _) => {
                base.at.min(at)
            }
            Kind::Index(two) | Kind::And(two) | Kind::Or(two) | Kind::Binary(_, two) => two[0].at.min(at),
            Kind::Condition(three) | Kind::MapIf(three) => three[0].at.min(at),
            Kind::Call(_, arguments) => arguments.first().map_or(at, |first| first.at.min(at)),
            _ => at,
        };
        Ok(Node { at, kind })
    }

    fn nodes(&mut self, trees: &[IdedExpr]) -> Result<Vec<Node>, ExprError> {
        trees.iter().map(|tree| self.node(tree)).collect()
    }

    fn two(&mut self, trees: &[IdedExpr], at: usize) -> Result<Box<[Node; 2]>, ExprError> {
        let [left, right] = trees else { return Err(ExprError::syntax(at, "an operator needs two sides")) };
        Ok(Box::new([self.node(left)?, self.node(right)?]))
    }

    fn call(&mut self, at: usize, call: &CallExpr) -> Result<Kind, ExprError> {
        let CallExpr { func_name: name, target, args } = call;
        if let Some(operator) = operator(name) {
            return Ok(Kind::Binary(operator, self.two(args, at)?));
        }
        match (name.as_str(), args.as_slice()) {
            (operators::LOGICAL_AND, _) => return Ok(Kind::And(self.two(args, at)?)),
            (operators::LOGICAL_OR, _) => return Ok(Kind::Or(self.two(args, at)?)),
            (operators::INDEX, _) => return Ok(Kind::Index(self.two(args, at)?)),
            (operators::LOGICAL_NOT, [one]) => return Ok(Kind::Not(Box::new(self.node(one)?))),
            (operators::NEGATE, [one]) => return Ok(Kind::Negate(Box::new(self.node(one)?))),
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let three = [self.node(condition)?, self.node(yes)?, self.node(no)?];
                return Ok(Kind::Condition(Box::new(three)));
            }
            (operators::HAS, [one]) if target.is_none() => {
                return match self.node(one)?.kind {
                    Kind::Field(base, field) => Ok(Kind::Has(base, field)),
                    Kind::Index(two) => match *two {
                        [base, Node { kind: Kind::Literal(Value::String(key)), .. }] => {
                            Ok(Kind::Has(Box::new(base), key.to_string()))
                        }
                        _ => Err(ExprError::syntax(at, "has takes one key that is written out, as in has(a.b)")),
                    },
                    _ => Err(ExprError::syntax(at, "has takes one key of a map, as in has(a.b)")),
                };
            }
            _ => {}
        }
        if let (Some(target), Some(each)) = (target, each(name)) {
            return self.each(at, each, target, args);
        }
        let mut arguments = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            arguments.push(self.node(target)?);
        }
        arguments.extend(self.nodes(args)?);
        match Function::find(name, target.is_some(), arguments.len()) {
            Call::Function(Function::Matches) => self.matches(arguments),
            Call::Function(function) => Ok(Kind::Call(function, arguments)),
            Call::Wrong(message) => Err(ExprError::syntax(at, message)),
            Call::Unknown => {
                let message = format!("there is no function {}", name.trim_start_matches('.'));
                Err(ExprError { kind: ExprErrorKind::UnknownFunction, message, offset: Some(at) })
            }
        }
    }

    /// The pattern has to be written out: it is compiled here, once, and no data can choose a costly one.
    fn matches(&self, arguments: Vec<Node>) -> Result<Kind, ExprError> {
        let Ok([text, pattern]) = <[Node; 2]>::try_from(arguments) else {
            return Err(ExprError::syntax(0, "matches takes a text and a pattern"));
        };
        match &pattern.kind {
            Kind::Literal(Value::String(written)) => {
                let compiled = Pattern::new(written).map_err(|mut error| {
                    error.offset = Some(pattern.at);
                    error
                })?;
                Ok(Kind::Matches(Box::new(text), Arc::new(compiled)))
            }
            _ => Err(ExprError::syntax(pattern.at, "the pattern of matches has to be written out, in quotes")),
        }
    }

    fn each(&mut self, at: usize, each: Each, target: &IdedExpr, args: &[IdedExpr]) -> Result<Kind, ExprError> {
        let range = self.node(target)?;
        let (element, body) = match args {
            [IdedExpr { expr: Tree::Ident(element), .. }, body @ ..] if !element.starts_with('.') => (element, body),
            _ => {
                return Err(ExprError::syntax(at, "the first of its arguments names the element, as in all(x, x > 1)"));
            }
        };
        if self.element.is_some() {
            let message = "a list is gone through within going through another; only one at a time is allowed";
            return Err(ExprError::too_large(Some(at), message));
        }
        self.element = Some(element.clone());
        let body = self.nodes(body);
        self.element = None;
        let mut body = body?.into_iter();
        match (each, body.next(), body.next(), body.next()) {
            (_, Some(value), None, _) => Ok(Kind::Each(each, Box::new(range), Box::new(value))),
            (Each::Map, Some(condition), Some(value), None) => Ok(Kind::MapIf(Box::new([range, condition, value]))),
            _ => Err(ExprError::syntax(at, "it takes the element's name and one expression, as in all(x, x > 1)")),
        }
    }
}

fn literal_value(at: usize, literal: &LiteralValue) -> Result<Value, ExprError> {
    Ok(match literal {
        LiteralValue::Boolean(truth) => Value::Bool(*truth.inner()),
        LiteralValue::Double(number) => Value::Double(*number.inner()),
        LiteralValue::Int(number) => Value::Int(*number.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::from(text.inner()),
        LiteralValue::UInt(_) => return Err(ExprError::syntax(at, "write the number without u; all are signed here")),
        LiteralValue::Bytes(_) => {
            return Err(ExprError::syntax(at, "there are no bytes here; write text without the b"));
        }
    })
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Modulo,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}

fn each(name: &str) -> Option<Each> {
    Some(match name {
        operators::ALL => Each::All,
        operators::EXISTS => Each::Exists,
        operators::EXISTS_ONE => Each::ExistsOne,
        operators::FILTER => Each::Filter,
        operators::MAP => Each::Map,
        _ => return None,
    })
}
