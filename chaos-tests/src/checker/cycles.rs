//! Dependencies of operations on each other must not go round.
//!
//! Edges: who wrote the version before (ww), who wrote what was read (wr), who came
//! before in the same process, who had ended before the other began (realtime). For
//! time, every end is a node of its own in one chain: so there are as many edges as
//! operations, not as pairs of them.

use super::index::{Index, Op};
use super::log::Logs;
use super::verdict::{Found, Kind};
use crate::history::Outcome;
use petgraph::Directed;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{Graph, NodeIndex};
use petgraph::visit::EdgeRef as _;
use std::collections::{HashMap, HashSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Ww,
    Wr,
    Process,
    Realtime,
}

/// Nodes are operations, then ends of operations.
type Dependencies = Graph<(), Why, Directed, u32>;

/// A kind of cycle: the edges that it may use, and one that it must have. Those with
/// fewer edges come first; what they find is not told again.
struct Family {
    kind: Kind,
    uses: &'static [Why],
    needs: Why,
    allowed: bool,
}

const WITH_WW: [Family; 6] = {
    use Why::{Process, Realtime, Wr, Ww};
    [
        Family { kind: Kind::G0, uses: &[Ww], needs: Ww, allowed: true },
        Family { kind: Kind::G0Process, uses: &[Ww, Process], needs: Ww, allowed: true },
        Family { kind: Kind::G0Realtime, uses: &[Ww, Realtime], needs: Ww, allowed: true },
        Family { kind: Kind::G1c, uses: &[Ww, Wr], needs: Wr, allowed: true },
        Family { kind: Kind::G1cProcess, uses: &[Ww, Wr, Process], needs: Wr, allowed: true },
        Family { kind: Kind::G1cRealtime, uses: &[Ww, Wr, Realtime], needs: Wr, allowed: true },
    ]
};

const WITHOUT_WW: [Family; 3] = {
    use Why::{Process, Realtime, Wr};
    [
        Family { kind: Kind::G1c, uses: &[Wr], needs: Wr, allowed: false },
        Family { kind: Kind::G1cProcess, uses: &[Wr, Process], needs: Wr, allowed: false },
        Family { kind: Kind::G1cRealtime, uses: &[Wr, Realtime], needs: Wr, allowed: false },
    ]
};

pub(super) fn check(index: &Index, logs: &Logs, found: &mut Found) {
    let all = dependencies(index, logs);
    // Mostly there is no cycle of any kind, and one look is enough.
    let round: Vec<NodeIndex> = components(&all).into_iter().flatten().collect();
    if round.is_empty() {
        return;
    }
    for pass in [&WITH_WW[..], &WITHOUT_WW[..]] {
        let mut told = HashSet::new();
        for family in pass {
            let graph = restricted(&all, &round, family.uses);
            for component in components(&graph) {
                if component.iter().any(|node| told.contains(&round[node.index()])) {
                    continue;
                }
                if let Some(cycle) = cycle(&graph, &component, family.needs) {
                    told.extend(component.iter().map(|node| round[node.index()]));
                    tell(index, &round, family, &cycle, found);
                }
            }
        }
    }
}

fn dependencies(index: &Index, logs: &Logs) -> Dependencies {
    let mut graph = Graph::default();
    let takes_part: Vec<bool> = index.ops.iter().map(|op| index.is_committed(op)).collect();
    for _ in &index.ops {
        graph.add_node(());
    }
    let mut add = |from: usize, to: usize, why| {
        if from != to && takes_part[from] && takes_part[to] {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), why);
        }
    };
    for (number, op) in index.ops.iter().enumerate() {
        for polled in index.polls(op) {
            if let Some(writer) = index.written(polled.value).by {
                add(writer, number, Why::Wr);
            }
        }
    }
    for (_, log) in logs.all() {
        for pair in log.by_offset().collect::<Vec<_>>().windows(2) {
            for (one, other) in pair[0].iter().flat_map(|one| pair[1].iter().map(move |o| (one, o)))
            {
                let writers = (index.written(one.value).by, index.written(other.value).by);
                if let (Some(one), Some(other)) = writers {
                    add(one, other, Why::Ww);
                }
            }
        }
    }
    let order = index.by_start();
    let mut last: HashMap<u32, usize> = HashMap::new();
    for number in order.iter().copied().filter(|number| is_data(&index.ops[*number])) {
        let op = &index.ops[number];
        if let Some(before) = last.insert(op.process, number)
            && index.ops[before].outcome == Outcome::Ok
            && index.ops[before].end <= op.start
        {
            add(before, number, Why::Process);
        }
    }
    realtime(index, &takes_part, &order, &mut graph);
    graph
}

fn is_data(op: &Op) -> bool {
    matches!(op.what, super::index::What::Data(_))
}

/// Only who is ok has certainly ended: what is in doubt may take effect later.
fn realtime(index: &Index, takes_part: &[bool], by_start: &[usize], graph: &mut Dependencies) {
    let takes = |number: &usize| takes_part[*number] && is_data(&index.ops[*number]);
    let is_ok = |number: &usize| index.ops[*number].outcome == Outcome::Ok;
    let mut ends: Vec<usize> = by_start.iter().copied().filter(takes).filter(is_ok).collect();
    ends.sort_by_key(|number| index.ops[*number].end);
    let mut ends = ends.into_iter().peekable();
    let mut now: Option<NodeIndex> = None;
    for number in by_start.iter().copied().filter(takes) {
        while let Some(ended) = ends.next_if(|e| index.ops[*e].end < index.ops[number].start) {
            let end = graph.add_node(());
            graph.add_edge(NodeIndex::new(ended), end, Why::Realtime);
            if let Some(before) = now {
                graph.add_edge(before, end, Why::Realtime);
            }
            now = Some(end);
        }
        if let Some(now) = now {
            graph.add_edge(now, NodeIndex::new(number), Why::Realtime);
        }
    }
}

/// Strongly connected, of more than one node.
fn components(graph: &Dependencies) -> Vec<Vec<NodeIndex>> {
    let mut components = kosaraju_scc(graph);
    components.retain(|component| component.len() > 1);
    components
}

/// These nodes, by their places in the list, and edges of these kinds between them.
fn restricted(all: &Dependencies, nodes: &[NodeIndex], uses: &[Why]) -> Dependencies {
    let places: HashMap<NodeIndex, usize> = nodes.iter().copied().zip(0..).collect();
    let mut graph = Graph::default();
    for _ in nodes {
        graph.add_node(());
    }
    for (from, place) in nodes.iter().zip(0..) {
        for edge in all.edges(*from).filter(|edge| uses.contains(edge.weight())) {
            if let Some(to) = places.get(&edge.target()) {
                graph.add_edge(NodeIndex::new(place), NodeIndex::new(*to), *edge.weight());
            }
        }
    }
    graph
}

/// A shortest way back over an edge that must be in it: nodes, each with why the next
/// one follows.
fn cycle(
    graph: &Dependencies,
    component: &[NodeIndex],
    needs: Why,
) -> Option<Vec<(NodeIndex, Why)>> {
    let inside: HashSet<NodeIndex> = component.iter().copied().collect();
    let edges = component.iter().flat_map(|node| graph.edges(*node));
    let first = edges.into_iter().find(|e| *e.weight() == needs && inside.contains(&e.target()))?;
    let mut came: HashMap<NodeIndex, (NodeIndex, Why)> = HashMap::new();
    let mut queue = VecDeque::from([first.target()]);
    while let Some(node) = queue.pop_front() {
        if node == first.source() {
            break;
        }
        for edge in graph.edges(node).filter(|edge| inside.contains(&edge.target())) {
            if edge.target() != first.target() && !came.contains_key(&edge.target()) {
                came.insert(edge.target(), (node, *edge.weight()));
                queue.push_back(edge.target());
            }
        }
    }
    let (mut cycle, mut node) = (Vec::new(), first.source());
    while node != first.target() {
        let (before, why) = came.get(&node)?;
        cycle.push((*before, *why));
        node = *before;
    }
    cycle.push((first.source(), needs));
    cycle.reverse();
    Some(cycle)
}

fn tell(
    index: &Index,
    round: &[NodeIndex],
    family: &Family,
    cycle: &[(NodeIndex, Why)],
    found: &mut Found,
) {
    let of = |node: &NodeIndex| index.ops.get(round[node.index()].index());
    let steps: Vec<(&Op, Why)> =
        cycle.iter().filter_map(|(node, why)| Some((of(node)?, *why))).collect();
    let lines: Vec<u64> = steps.iter().map(|(op, _)| op.line).collect();
    found.add_as(family.kind, family.allowed, &lines, || {
        let step = |(op, why): &(&Op, Why)| format!("line {} -{why:?}-> ", op.line).to_lowercase();
        let way: String = steps.iter().map(step).collect();
        format!("{way}line {}", lines.first().copied().unwrap_or_default())
    });
}
