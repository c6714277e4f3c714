//! Places within a document: a path that costs nothing until there is a problem to report.

/// A place within a document, as a list on the stack: each part borrows its parent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// One part of a path within a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A key of a map.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

impl<'a> Path<'a> {
    /// The document itself.
    pub(super) const ROOT: Path<'static> = Path { parent: None, part: Part::Root };

    /// The value of a key.
    pub(super) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), part: Part::Key(key) }
    }

    /// An element of a list, from 0.
    pub(super) fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), part: Part::Index(index) }
    }

    /// From the root on.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let mut segments = self.parent.map(Path::segments).unwrap_or_default();
        match self.part {
            Part::Root => {}
            Part::Key(key) => segments.push(Segment::Key(key.into())),
            Part::Index(index) => segments.push(Segment::Index(index)),
        }
        segments
    }
}
