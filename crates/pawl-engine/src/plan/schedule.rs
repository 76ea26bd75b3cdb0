//! The order in which kernels run.

use super::fuse::Fusion;
use super::group::Groups;
use super::rows::Region;
use pawl_graph::Graph;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What runs as one.
pub(super) enum Unit {
    Instr(usize),
    Region(usize),
    Group(usize),
}

/// Units of a program by number: instructions, then regions, then groups.
pub(super) struct Units {
    /// The unit of each instruction.
    pub(super) of: Vec<usize>,
    /// For each instruction, the instructions with a kernel that it waits for.
    pub(super) sources: Vec<Vec<usize>>,
}

impl Units {
    /// Every region one unit, and every other instruction.
    pub(super) fn new(graph: &Graph, needed: &[bool], fusion: &Fusion<'_>, regions: &[Region]) -> Units {
        let num = graph.instrs.len();
        let mut of: Vec<usize> = (0..num).collect();
        for (k, region) in regions.iter().enumerate() {
            region.instrs.iter().for_each(|idx| of[*idx] = num + k);
        }
        let mut sources: Vec<Vec<usize>> = vec![Vec::new(); num];
        for idx in (0..num).filter(|idx| needed[*idx]) {
            let mut from = Vec::new();
            for input in &graph.instrs[idx].inputs {
                let source = graph.values[input.idx()].instr;
                if of[source] == source && fusion.is_transparent(source) {
                    from.extend_from_slice(&sources[source]);
                } else {
                    from.push(source);
                }
            }
            from.sort_unstable();
            from.dedup();
            sources[idx] = from;
        }
        Units { of, sources }
    }
}

/// Needed instructions in dependency order, each region and each group as one. The original order breaks
/// ties, so that short-lived values stay short-lived.
pub(super) fn schedule(
    graph: &Graph,
    needed: &[bool],
    fusion: &Fusion<'_>,
    regions: &[Region],
    groups: &Groups,
) -> Vec<Unit> {
    let Units { mut of, sources } = Units::new(graph, needed, fusion, regions);
    let (num, first_group) = (graph.instrs.len(), graph.instrs.len() + regions.len());
    let num_units = first_group + groups.list.len();
    for (k, group) in groups.list.iter().enumerate() {
        group.values.iter().for_each(|value| of[graph.values[value.idx()].instr] = first_group + k);
    }
    let runs = |idx: &usize| needed[*idx] && !(of[*idx] == *idx && fusion.is_transparent(*idx));
    let mut waits = vec![0usize; num_units];
    let mut then: Vec<Vec<usize>> = vec![Vec::new(); num_units];
    // A unit of several instructions runs as late as its last one would.
    let mut last: Vec<usize> = (0..num_units).collect();
    for idx in (0..num).filter(runs) {
        last[of[idx]] = idx;
        for source in &sources[idx] {
            let (from, to) = (of[*source], of[idx]);
            if from != to {
                then[from].push(to);
                waits[to] += 1;
            }
        }
    }
    let is_unit = |unit: &usize| *unit >= num || (runs(unit) && of[*unit] == *unit);
    let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
        (0..num_units).filter(|u| waits[*u] == 0 && is_unit(u)).map(|u| Reverse((last[u], u))).collect();
    let mut order = Vec::new();
    while let Some(Reverse((_, unit))) = ready.pop() {
        order.push(if unit < num {
            Unit::Instr(unit)
        } else if unit < first_group {
            Unit::Region(unit - num)
        } else {
            Unit::Group(unit - first_group)
        });
        for next in &then[unit] {
            waits[*next] -= 1;
            if waits[*next] == 0 {
                ready.push(Reverse((last[*next], *next)));
            }
        }
    }
    let missing = (0..num_units).filter(is_unit).count() - order.len();
    assert_eq!(missing, 0, "units that wait for each other");
    order
}
