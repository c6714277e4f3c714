//! A pipeline's tasks as a drawing: where each stands, then SVG. Layers from left to right; in each layer tasks stand
//! near those that they wait for.

use std::{collections::HashMap, fmt::Write as _};

use maud::{Markup, html};
use unicode_width::UnicodeWidthStr as _;

use super::html::{plain, slug};

/// More tasks are a table, not a drawing.
pub(super) const MAX_TASKS: usize = 300;
/// So do drawings with more places where a line passes a layer.
const MAX_PLACES: usize = 5_000;
/// How often the order within layers is improved.
const SWEEPS: usize = 6;
const HEIGHT: f64 = 34.0;
const ROW: f64 = 48.0;
const GAP: f64 = 44.0;
const MARGIN: f64 = 6.0;
/// A character of the drawing's font, at most.
const CHARACTER: f64 = 8.2;
const LONGEST_LABEL: usize = 28;

/// One task of a drawing.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// The word for how it goes, and its class.
    pub(super) phase: Option<&'static str>,
    /// Those it waits for.
    pub(super) after: Vec<String>,
    /// True for a task of `finally`: it comes after all others.
    pub(super) finally: bool,
}

/// A point or a task in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Task(usize),
    /// Where the line number so and so passes.
    Line(usize),
}

/// Where everything stands.
#[derive(Debug)]
struct Layout {
    /// Of each task: its layer, and its row in halves.
    tasks: Vec<(usize, f64)>,
    /// From task, to task, and the rows at which the line passes the layers between.
    lines: Vec<(usize, usize, Vec<f64>)>,
    layers: usize,
    rows: f64,
}

/// The drawing; nothing if there is none to make. Each task leads to the element `PLACE-` and its name.
pub(super) fn draw(nodes: &[Node], label: &str, place: &str) -> Markup {
    if nodes.is_empty() || nodes.len() > MAX_TASKS {
        return html! {};
    }
    let Some(layout) = layout(nodes) else { return html! {} };
    let labels: Vec<String> = nodes.iter().map(|node| shorten(&plain(&node.name))).collect();
    let mut widths = vec![0.0_f64; layout.layers];
    for ((layer, _), label) in layout.tasks.iter().zip(&labels) {
        let width = label.width() as f64 * CHARACTER + 36.0;
        widths[*layer] = widths[*layer].max(width);
    }
    let lefts: Vec<f64> = widths
        .iter()
        .scan(MARGIN, |at, width| {
            let left = *at;
            *at += width + GAP;
            Some(left)
        })
        .collect();
    let width = lefts.last().zip(widths.last()).map_or(0.0, |(left, width)| left + width + MARGIN);
    let height = layout.rows * ROW - (ROW - HEIGHT) + 2.0 * MARGIN;
    let middle = |row: f64| MARGIN + row * ROW + HEIGHT / 2.0;
    html! {
        svg.dag width=(n(width)) height=(n(height)) viewBox={ "0 0 " (n(width)) " " (n(height)) } role="group" aria-label=(label) {
            @for (from, to, through) in &layout.lines {
                path d=(path(*from, *to, through, &layout, &lefts, &widths, &middle)) {}
            }
            @for ((node, label), (layer, row)) in nodes.iter().zip(&labels).zip(&layout.tasks) {
                @let class = node.phase.unwrap_or("None");
                a href={ "#" (place) "-" (slug(&node.name)) } aria-label={ (plain(&node.name)) @if let Some(phase) = node.phase { ": " (phase) } } {
                    g class={ "node p-" (class) @if node.finally { " finally" } } {
                        rect x=(n(lefts[*layer])) y=(n(middle(*row) - HEIGHT / 2.0)) width=(n(widths[*layer])) height=(n(HEIGHT)) rx="7" {}
                        circle cx=(n(lefts[*layer] + 16.0)) cy=(n(middle(*row))) r="5" {}
                        text x=(n(lefts[*layer] + 28.0)) y=(n(middle(*row) + 4.5)) { (label) }
                    }
                }
            }
        }
    }
}

fn n(number: f64) -> String {
    format!("{number:.1}")
}

fn shorten(label: &str) -> String {
    if label.chars().count() <= LONGEST_LABEL {
        return label.to_owned();
    }
    label.chars().take(LONGEST_LABEL - 1).chain(['…']).collect()
}

fn path(
    from: usize,
    to: usize,
    through: &[f64],
    layout: &Layout,
    lefts: &[f64],
    widths: &[f64],
    middle: &dyn Fn(f64) -> f64,
) -> String {
    let ((start, start_row), (_, end_row)) = (layout.tasks[from], layout.tasks[to]);
    let (mut x, mut y) = (lefts[start] + widths[start], middle(start_row));
    let mut path = format!("M{x:.1} {y:.1}");
    let rows = through.iter().chain([&end_row]);
    for (layer, row) in (start + 1..).zip(rows) {
        let (next_x, next_y) = (lefts[layer], middle(*row));
        let half = (next_x - x) / 2.0;
        // Writing to a String can't fail.
        let _ = write!(path, "C{:.1} {y:.1} {:.1} {next_y:.1} {next_x:.1} {next_y:.1}", x + half, next_x - half);
        (x, y) = (next_x, next_y);
        if layer < layout.tasks[to].0 {
            x += widths[layer];
            let _ = write!(path, "H{x:.1}");
        }
    }
    path
}

/// Layers by the longest way, rows by the middle of the neighbours; nothing if that is too much. Total: what refers to
/// nothing, to itself or back is left out.
fn layout(nodes: &[Node]) -> Option<Layout> {
    let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(at, node)| (node.name.as_str(), at)).collect();
    let mut edges: Vec<(usize, usize)> = nodes
        .iter()
        .enumerate()
        .flat_map(|(to, node)| {
            node.after.iter().filter_map(|name| index.get(name.as_str())).map(move |from| (*from, to))
        })
        .filter(|(from, to)| from != to)
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut depth = depths(nodes.len(), &edges);
    let last = nodes.iter().zip(&depth).filter(|(node, _)| !node.finally).map(|(_, depth)| *depth + 1).max();
    for (_, depth) in nodes.iter().zip(&mut depth).filter(|(node, _)| node.finally) {
        *depth += last.unwrap_or(0);
    }
    edges.retain(|(from, to)| depth[*from] < depth[*to]);
    if edges.iter().map(|(from, to)| depth[*to] - depth[*from]).sum::<usize>() > MAX_PLACES {
        return None;
    }
    let layers = depth.iter().max().map_or(0, |depth| depth + 1);
    let mut order: Vec<Vec<Slot>> = vec![Vec::new(); layers];
    depth.iter().enumerate().for_each(|(task, layer)| order[*layer].push(Slot::Task(task)));
    for (line, (from, to)) in edges.iter().enumerate() {
        order[depth[*from] + 1..depth[*to]].iter_mut().for_each(|layer| layer.push(Slot::Line(line)));
    }
    // Which slot a line has in the layer before, and after.
    let before = |slot: Slot, layer: usize| -> Vec<Slot> {
        match slot {
            Slot::Line(line) if depth[edges[line].0] + 1 == layer => vec![Slot::Task(edges[line].0)],
            Slot::Line(_) => vec![slot],
            Slot::Task(task) => (edges.iter().enumerate().filter(|(_, (_, to))| *to == task))
                .map(|(line, (from, _))| if depth[*from] + 1 == layer { Slot::Task(*from) } else { Slot::Line(line) })
                .collect(),
        }
    };
    let after = |slot: Slot, layer: usize| -> Vec<Slot> {
        match slot {
            Slot::Line(line) if depth[edges[line].1] == layer + 1 => vec![Slot::Task(edges[line].1)],
            Slot::Line(_) => vec![slot],
            Slot::Task(task) => (edges.iter().enumerate().filter(|(_, (from, _))| *from == task))
                .map(|(line, (_, to))| if depth[*to] == layer + 1 { Slot::Task(*to) } else { Slot::Line(line) })
                .collect(),
        }
    };
    for sweep in 0..SWEEPS {
        let forward = sweep % 2 == 0;
        for step in 1..layers {
            let layer = if forward { step } else { layers - 1 - step };
            let beside = if forward { layer - 1 } else { layer + 1 };
            let place: HashMap<_, f64> = rows(&order[beside]).collect();
            let mut ranked: Vec<(f64, Slot)> = rows(&order[layer])
                .map(|(key, row)| {
                    let slot = of_key(key);
                    let near = if forward { before(slot, layer) } else { after(slot, layer) };
                    let near: Vec<f64> = near.iter().filter_map(|slot| place.get(&key_of(*slot)).copied()).collect();
                    let middle = if near.is_empty() { row } else { near.iter().sum::<f64>() / near.len() as f64 };
                    (middle, slot)
                })
                .collect();
            ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            order[layer] = ranked.into_iter().map(|(_, slot)| slot).collect();
        }
    }
    let most = order.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let mut tasks: Vec<(usize, f64)> = depth.iter().map(|layer| (*layer, 0.0)).collect();
    let mut through: Vec<Vec<f64>> = vec![Vec::new(); edges.len()];
    for layer in &order {
        let top = (most - layer.len() as f64) / 2.0;
        for (at, slot) in layer.iter().enumerate() {
            let row = top + at as f64;
            match slot {
                Slot::Task(task) => tasks[*task].1 = row,
                Slot::Line(line) => through[*line].push(row),
            }
        }
    }
    let lines = edges.into_iter().zip(through).map(|((from, to), through)| (from, to, through)).collect();
    Some(Layout { tasks, lines, layers, rows: most })
}

type Key = (bool, usize);

fn key_of(slot: Slot) -> Key {
    match slot {
        Slot::Task(task) => (true, task),
        Slot::Line(line) => (false, line),
    }
}

fn of_key((is_task, at): Key) -> Slot {
    if is_task { Slot::Task(at) } else { Slot::Line(at) }
}

/// The rows of a layer, counted from its middle.
fn rows(layer: &[Slot]) -> impl Iterator<Item = (Key, f64)> {
    let half = layer.len() as f64 / 2.0;
    layer.iter().enumerate().map(move |(at, slot)| (key_of(*slot), at as f64 - half))
}

/// The longest way to each task; those on a cycle stand where they are first met.
fn depths(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut waits = vec![0_usize; count];
    edges.iter().for_each(|(_, to)| waits[*to] += 1);
    let mut depth = vec![0; count];
    let mut ready: Vec<usize> = (0..count).filter(|task| waits[*task] == 0).collect();
    while let Some(task) = ready.pop() {
        for (_, to) in edges.iter().filter(|(from, _)| *from == task) {
            depth[*to] = depth[*to].max(depth[task] + 1);
            waits[*to] -= 1;
            if waits[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, after: &[&str]) -> Node {
        let after = after.iter().map(ToString::to_string).collect();
        Node { name: name.to_owned(), phase: Some("Success"), after, finally: false }
    }

    #[test]
    fn tasks_stand_right_of_what_they_wait_for() {
        let mut nodes = vec![
            node("fetch", &[]),
            node("build", &["fetch"]),
            node("lint", &["fetch"]),
            node("ship", &["build", "lint", "fetch"]),
        ];
        nodes.push(Node { finally: true, ..node("sweep", &[]) });
        let layout = layout(&nodes).unwrap();
        let layers: Vec<_> = layout.tasks.iter().map(|(layer, _)| *layer).collect();
        assert_eq!(layers, [0, 1, 1, 2, 3]);
        assert_eq!(layout.rows, 3.0, "two tasks, and the line from fetch to ship between or beside them");
        let mut rows: Vec<_> = layout.tasks[1..3].iter().map(|(_, row)| *row).collect();
        rows.extend(layout.lines.iter().flat_map(|(_, _, through)| through.clone()));
        rows.sort_by(f64::total_cmp);
        assert_eq!(rows, [0.0, 1.0, 2.0], "nothing stands on anything else");
    }

    #[test]
    fn what_is_too_dense_is_not_drawn() {
        let names: Vec<String> = (0..MAX_TASKS).map(|n| n.to_string()).collect();
        let dense = |n: usize| Node { name: names[n].clone(), phase: None, after: names[..n].to_vec(), finally: false };
        let nodes: Vec<_> = (0..MAX_TASKS).map(dense).collect();
        assert!(layout(&nodes).is_none() && draw(&nodes, "Tasks", "task").into_string().is_empty());
        assert!(layout(&nodes[..20]).is_some());
    }

    #[test]
    fn names_are_text() {
        let drawn = draw(&[node("<b>&\u{202e}", &["nobody"])], "Tasks", "task").into_string();
        assert!(!drawn.contains("<b>") && !drawn.contains('\u{202e}'), "{drawn}");
        assert!(drawn.contains("&lt;b&gt;&amp;"), "{drawn}");
        assert_eq!(draw(&[], "Tasks", "task").into_string(), "");
    }

    proptest! {
        #[test]
        fn every_graph_has_a_layout(edges in proptest::collection::vec((0_usize..40, 0_usize..40), 0..120), finally in 0_usize..40) {
            let nodes: Vec<_> = (0..40).map(|n: usize| {
                let after = edges.iter().filter(|(_, to)| *to == n).map(|(from, _)| from.to_string()).collect();
                Node { name: n.to_string(), phase: None, after, finally: n >= finally }
            }).collect();
            let layout = layout(&nodes).unwrap();
            let mut places: Vec<_> = layout.tasks.iter().map(|(layer, row)| (*layer, row.to_bits())).collect();
            places.sort_unstable();
            places.dedup();
            prop_assert_eq!(places.len(), 40, "each task has a place of its own");
            for (from, to, through) in &layout.lines {
                let (start, end) = (layout.tasks[*from].0, layout.tasks[*to].0);
                prop_assert!(start < end);
                prop_assert_eq!(through.len(), end - start - 1);
            }
            draw(&nodes, "Tasks", "task");
        }
    }
}
