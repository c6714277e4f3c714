//! A second, span-aware reading of a document: where each part stands, and how far aliases would expand it.
//!
//! Good documents do not come here, unless a glance says that they might be nested too deep or hold anchors or tags.
//! Nothing is expanded and nothing recurses: the cost is that of the text, whatever the text says.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{
    path::Segment,
    rules::{Rule, file},
};

/// How deep a document may be nested, aliases followed.
const MAX_DEPTH: u32 = 64;
/// How many values a document may have, if it looks suspicious at all.
const MAX_NODES: usize = 100_000;
/// How many values aliases may add to a document.
const MAX_ALIASED_NODES: usize = 20_000;
/// How much text aliases may add to a document.
const MAX_ALIASED_BYTES: usize = 1 << 20;

/// A place in a text: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Position {
    fn start_of(span: Span) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: number(span.start.line()), column: number(span.start.col() + 1) }
    }
}

/// Why a document can't be outlined: it breaks a limit, or is not YAML.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) rule: &'static Rule,
    pub(super) at: Position,
    pub(super) message: String,
}

/// The parts of a document and where they stand.
#[derive(Debug)]
pub(super) struct Outline {
    /// In the order in which they end; the root is the last.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar {
        text: String,
        /// False if it is quoted or a block, and so a text whatever it says.
        plain: bool,
    },
    Map(Vec<(Key, usize)>),
    List(Vec<usize>),
    /// The node that it stands for; `None` if that is a key.
    Alias(Option<usize>),
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) at: Position,
}

/// A map or list that is not closed yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
    key: Option<Key>,
    extent: Extent,
}

/// How large a value is, aliases followed.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    nodes: usize,
    bytes: usize,
    depth: u32,
}

impl Outline {
    /// Reads the first document of `text`.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let mut builder = Builder::default();
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = Position::start_of(Span::empty(*error.marker()));
                // The scanner looks ahead, and gives up by itself at a depth beyond ours.
                if error.info().contains("recursion limit") {
                    return too_deep(at);
                }
                Refusal { rule: &file::SYNTAX, at, message: error.info().into() }
            })?;
            if matches!(event, Event::DocumentEnd) {
                break;
            }
            builder.take(event, Position::start_of(span))?;
        }
        Ok(Self { nodes: builder.nodes })
    }

    /// True if the document is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.nodes.last(), Some(Node { content: Content::Map(_), .. }))
    }

    /// The text of a key of the root; `Some("")` if it is no text.
    pub(super) fn header(&self, key: &str) -> Option<&str> {
        let (_, value) = self.entry(self.nodes.last()?, key)?;
        match &self.nodes[value].content {
            Content::Scalar { text, .. } => Some(text),
            Content::Map(_) | Content::List(_) | Content::Alias(_) => Some(""),
        }
    }

    /// Where the value at `path` stands, or the nearest thing around it; with `at_key`, its key.
    pub(super) fn locate(&self, path: &[Segment], at_key: bool) -> Option<Position> {
        let mut node = self.nodes.last()?;
        let mut at = node.at;
        for (depth, segment) in path.iter().enumerate() {
            let found = match (segment, &node.content) {
                (Segment::Key(key), _) => self.entry(node, key),
                (Segment::Index(index), Content::List(items)) => items.get(*index).map(|item| (None, *item)),
                (Segment::Index(_), Content::Scalar { .. } | Content::Map(_) | Content::Alias(_)) => None,
            };
            let Some((key, value)) = found else { break };
            node = &self.nodes[value];
            at = match key {
                Some(key) if at_key && depth + 1 == path.len() => key.at,
                _ => node.at,
            };
        }
        Some(at)
    }

    /// The text of the scalar at `path`, if it stands there without quotes.
    pub(super) fn plain_at(&self, path: &[Segment]) -> Option<&str> {
        let mut node = self.nodes.last()?;
        for segment in path {
            let value = match (segment, &node.content) {
                (Segment::Key(key), _) => self.entry(node, key)?.1,
                (Segment::Index(index), Content::List(items)) => *items.get(*index)?,
                (Segment::Index(_), Content::Scalar { .. } | Content::Map(_) | Content::Alias(_)) => return None,
            };
            node = &self.nodes[self.resolved(value)];
        }
        match &node.content {
            Content::Scalar { text, plain: true } => Some(text),
            Content::Scalar { .. } | Content::Map(_) | Content::List(_) | Content::Alias(_) => None,
        }
    }

    /// The value of an entry.
    pub(super) fn value(&self, (node, entry): (usize, usize)) -> usize {
        match &self.nodes[node].content {
            Content::Map(entries) => entries[entry].1,
            Content::List(items) => items[entry],
            Content::Scalar { .. } | Content::Alias(_) => node,
        }
    }

    /// Where an alias leads; any other node is itself.
    pub(super) fn resolved(&self, node: usize) -> usize {
        match self.nodes[node].content {
            Content::Alias(Some(target)) => target,
            Content::Alias(None) | Content::Scalar { .. } | Content::Map(_) | Content::List(_) => node,
        }
    }

    /// The key of an entry; `None` in a list.
    pub(super) fn key(&self, (node, entry): (usize, usize)) -> Option<&Key> {
        match &self.nodes[node].content {
            Content::Map(entries) => Some(&entries[entry].0),
            Content::List(_) | Content::Scalar { .. } | Content::Alias(_) => None,
        }
    }

    /// Takes entries out, as if they had never stood there; gives all the texts that stood in them.
    pub(super) fn remove(&mut self, entries: &HashSet<(usize, usize)>) -> HashSet<String> {
        let (mut texts, mut seen, mut open) = (HashSet::new(), HashSet::new(), Vec::new());
        for entry in entries {
            texts.extend(self.key(*entry).map(|key| key.text.clone()));
            open.push(self.value(*entry));
        }
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            match &self.nodes[node].content {
                Content::Scalar { text, .. } => _ = texts.insert(text.clone()),
                Content::Map(of) => {
                    texts.extend(of.iter().map(|(key, _)| key.text.clone()));
                    open.extend(of.iter().map(|(_, value)| *value));
                }
                Content::List(of) => open.extend(of),
                Content::Alias(target) => open.extend(target),
            }
        }
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let mut entry = 0..;
            let mut stays = || entry.next().is_none_or(|entry| !entries.contains(&(number, entry)));
            match &mut node.content {
                Content::Map(of) => of.retain(|_| stays()),
                Content::List(of) => of.retain(|_| stays()),
                Content::Scalar { .. } | Content::Alias(_) => {}
            }
        }
        texts
    }

    /// The entry of that key in a map, or in the map that an alias stands for.
    pub(super) fn entry_named(&self, node: usize, key: &str) -> Option<(usize, usize)> {
        let node = self.resolved(node);
        match &self.nodes[node].content {
            Content::Map(entries) => Some((node, entries.iter().position(|(k, _)| k.text == key)?)),
            Content::List(_) | Content::Scalar { .. } | Content::Alias(_) => None,
        }
    }

    fn entry<'a>(&'a self, node: &'a Node, key: &str) -> Option<(Option<&'a Key>, usize)> {
        let Content::Map(entries) = &node.content else { return None };
        let named = |name: &str| entries.iter().find(|(k, _)| k.text == name).map(|(k, value)| (Some(k), *value));
        // Other spellings: `trigger`, and those of `v1alpha1`.
        let other = match key {
            "triggers" => "trigger",
            "schedule" => "cronConfig",
            "run" => "cmd",
            _ => return named(key),
        };
        named(key).or_else(|| named(other))
    }
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    open: Vec<Open>,
    /// How large what an anchor names is, and which node.
    anchors: HashMap<usize, (Extent, Option<usize>)>,
    aliased: Extent,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Refusal> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                let extent = Extent { nodes: 1, bytes: text.len(), depth: 0 };
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str");
                self.close(Node { at, content: Content::Scalar { text: text.into_owned(), plain } }, anchor, extent)
            }
            Event::Alias(anchor) => {
                let Some((extent, node)) = self.anchors.get(&anchor).copied() else {
                    let message = "an alias stands within what it names".into();
                    return Err(Refusal { rule: &file::ALIASES, at, message });
                };
                self.aliased.nodes = self.aliased.nodes.saturating_add(extent.nodes);
                self.aliased.bytes = self.aliased.bytes.saturating_add(extent.bytes);
                if self.aliased.nodes > MAX_ALIASED_NODES || self.aliased.bytes > MAX_ALIASED_BYTES {
                    let message = "the aliases of this document expand to far more than it says".into();
                    return Err(Refusal { rule: &file::ALIASES, at, message });
                }
                self.close(Node { at, content: Content::Alias(node) }, 0, extent)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                self.open(Content::List(Vec::new()), anchor, at)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                self.open(Content::Map(Vec::new()), anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, content, extent, .. }) => self.close(Node { at, content }, anchor, extent),
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(&mut self, content: Content, anchor: usize, at: Position) -> Result<(), Refusal> {
        self.open.push(Open { at, anchor, content, key: None, extent: Extent { nodes: 1, bytes: 0, depth: 1 } });
        self.check_depth(0, at)
    }

    /// `below`: how deep the value itself is.
    fn check_depth(&self, below: u32, at: Position) -> Result<(), Refusal> {
        if u32::try_from(self.open.len()).unwrap_or(u32::MAX).saturating_add(below) > MAX_DEPTH {
            return Err(too_deep(at));
        }
        Ok(())
    }

    /// Takes a whole value: as a key or a value of the map that is open, or as an element of the list.
    fn close(&mut self, node: Node, anchor: usize, extent: Extent) -> Result<(), Refusal> {
        self.check_depth(extent.depth, node.at)?;
        let is_key = matches!(self.open.last(), Some(Open { content: Content::Map(_), key: None, .. }));
        if anchor != 0 {
            self.anchors.insert(anchor, (extent, (!is_key).then_some(self.nodes.len())));
        }
        if let Some(parent) = self.open.last_mut() {
            parent.extent.nodes = parent.extent.nodes.saturating_add(extent.nodes);
            parent.extent.bytes = parent.extent.bytes.saturating_add(extent.bytes);
            parent.extent.depth = parent.extent.depth.max(extent.depth + 1);
            let index = self.nodes.len();
            match (&mut parent.content, parent.key.take()) {
                (Content::Map(entries), Some(key)) => entries.push((key, index)),
                (Content::Map(_), None) => {
                    let text = match node.content {
                        Content::Scalar { text, .. } => text,
                        Content::Map(_) | Content::List(_) | Content::Alias(_) => String::new(),
                    };
                    parent.key = Some(Key { text, at: node.at });
                    return Ok(());
                }
                (Content::List(items), _) => items.push(index),
                (Content::Scalar { .. } | Content::Alias(_), _) => {}
            }
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(too_many(node.at));
        }
        self.nodes.push(node);
        Ok(())
    }
}

pub(super) fn too_many(at: Position) -> Refusal {
    Refusal { rule: &file::TOO_LARGE, at, message: format!("this document has more than {MAX_NODES} values") }
}

/// Where a JSON text has more values than a document may, told without building any of them. Of a text that is no JSON
/// it says nothing that matters: that is refused anyway.
pub(super) fn too_many_values(text: &str) -> Option<Position> {
    let bytes = text.as_bytes();
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b',' => count += 1,
            // The first of those within.
            b'[' | b'{' => {
                let next = bytes[i + 1..].iter().find(|next| !next.is_ascii_whitespace());
                count += usize::from(!matches!(next, None | Some(b']' | b'}')));
            }
            _ => {}
        }
        if count > MAX_NODES {
            let before = &text[..i];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            return Some(Position { line: number(line), column: number(column) });
        }
    }
    None
}

fn too_deep(at: Position) -> Refusal {
    let message = format!("this is nested more than {MAX_DEPTH} levels deep");
    Refusal { rule: &file::TOO_DEEP, at, message }
}

fn refuse_tag(tag: Option<&saphyr_parser::Tag>, at: Position) -> Result<(), Refusal> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(Refusal { rule: &file::TAG, at, message: format!("the tag `{tag}` means nothing here") })
        }
        _ => Ok(()),
    }
}

/// True if only a full reading can tell whether the limits hold. Errs on the side of true.
pub(super) fn needs_reading(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut flow = 0usize;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'[' | b'{' => flow += 1,
            // An anchor or a tag begins a word.
            b'&' | b'!' => {
                let begins = i == 0 || bytes[i - 1].is_ascii_whitespace() || b"[{,".contains(&bytes[i - 1]);
                let goes_on = bytes.get(i + 1).is_some_and(|next| !next.is_ascii_whitespace() && next != byte);
                if begins && goes_on {
                    return true;
                }
            }
            _ => {}
        }
    }
    let limit = MAX_DEPTH as usize;
    flow > limit || deepest_block(text, limit) * 2 + flow > limit
}

/// How many block maps and lists can be open at once, by their indentation; stops counting above `limit`.
fn deepest_block(text: &str, limit: usize) -> usize {
    let (mut columns, mut deepest) = (Vec::new(), 0);
    for line in text.lines() {
        let rest = line.trim_start_matches(' ');
        if rest.is_empty() {
            continue;
        }
        let mut column = line.len() - rest.len();
        while columns.last().is_some_and(|last| *last >= column) {
            columns.pop();
        }
        columns.push(column);
        let mut rest = rest;
        while let Some(after) = rest.strip_prefix(['-', '?', ':']).filter(|after| after.starts_with([' ', '\t'])) {
            let next = after.trim_start_matches([' ', '\t']);
            column += rest.len() - next.len();
            columns.push(column);
            rest = next;
            if columns.len() > limit {
                return columns.len();
            }
        }
        deepest = deepest.max(columns.len());
    }
    deepest
}
