//! What an expression reads of its variables, so that a compiler can say what there is not.

use super::{
    Value,
    node::{Kind, Node},
};

/// One place where an expression reads a variable: `tasks.build.outputs["tag"]` is `tasks`, `build`, `outputs`, `tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The variable, then the keys that are written out; what follows a computed key is not part of it.
    pub segments: Vec<String>,
    /// Where it begins in the text, in bytes.
    pub offset: usize,
    /// True if it is only asked for, by `has(…)`.
    pub asked: bool,
    /// True if a key that is not written out follows: `tasks[name]`.
    pub open: bool,
}

pub(super) fn of(root: &Node) -> Vec<Path> {
    let mut paths = Vec::new();
    collect(root, &mut paths);
    paths.sort_by_key(|path| path.offset);
    paths
}

fn collect(node: &Node, paths: &mut Vec<Path>) {
    if let Some(path) = path(node) {
        return paths.push(path);
    }
    if let Kind::Index(two) = &node.kind
        && let Some(base) = path(&two[0])
    {
        paths.push(Path { open: true, ..base });
        return collect(&two[1], paths);
    }
    for child in node.children() {
        collect(child, paths);
    }
}

/// The path that a node is, if all of it is written out.
fn path(node: &Node) -> Option<Path> {
    let (base, key) = match &node.kind {
        Kind::Variable(name) => {
            return Some(Path { segments: vec![name.clone()], offset: node.at, asked: false, open: false });
        }
        Kind::Field(base, field) | Kind::Has(base, field) => (path(base)?, field.clone()),
        Kind::Index(two) => match &two[1].kind {
            Kind::Literal(Value::String(key)) => (path(&two[0])?, key.to_string()),
            _ => return None,
        },
        _ => return None,
    };
    let mut path = base;
    path.segments.push(key);
    path.asked |= matches!(node.kind, Kind::Has(..));
    Some(path)
}
