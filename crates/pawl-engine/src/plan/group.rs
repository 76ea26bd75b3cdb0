//! Which stored elementwise values are computed by one map with several results: values of equal length of
//! which one feeds another, or that read the same tensor. What only the group reads is then never stored,
//! and what several of its values read is read once.
//!
//! It refuses to merge what something outside would have to run between.

use super::fuse::{Fusion, is_elementwise, root};
use super::rows::Region;
use super::schedule::Units;
use pawl_graph::{Graph, Op, ValueId};
use std::collections::BTreeSet;

/// Instructions of a map with several results: more registers would leave the first-level cache.
const MAX_INSTRS: usize = 32;
/// Tensors that it reads.
const MAX_READS: usize = 16;
/// Tensors that it stores.
const MAX_STORED: usize = 8;
/// Instructions of the program between values that are merged: what is computed far from where it is read
/// would lie in memory all the while.
const MAX_DISTANCE: usize = 96;

/// Elementwise values of equal length that one map computes.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    /// In dependency order.
    pub(super) values: Vec<ValueId>,
    /// Those of them that something outside reads.
    pub(super) stored: Vec<ValueId>,
}

/// All groups of two or more values.
pub(super) struct Groups {
    pub(super) list: Vec<Group>,
}

impl Groups {
    /// Groups of a program; `keep` are values that must be stored.
    pub(super) fn find(
        graph: &Graph,
        needed: &[bool],
        fusion: &Fusion<'_>,
        keep: &[ValueId],
        regions: &[Region],
    ) -> Groups {
        let mut finder = Finder::new(graph, needed, fusion, keep, regions);
        finder.merge_chains();
        finder.merge_neighbours();
        let mut list: Vec<Group> = finder.large.iter().map(|name| finder.group(*name)).collect();
        list.sort_by_key(|group| group.values[0]);
        Groups { list }
    }
}

/// What lies in memory where `value`, maybe a broadcast, is to be stored.
fn broadcast_root(graph: &Graph, mut value: ValueId) -> ValueId {
    loop {
        value = root(graph, value);
        match &graph.producer(value).op {
            Op::Expand { .. } => value = graph.producer(value).inputs[0],
            _ => return value,
        }
    }
}

/// Unions of candidates. A group is named by the instruction that it began with.
struct Finder<'a> {
    graph: &'a Graph,
    fusion: &'a Fusion<'a>,
    units: Units,
    /// Instructions that wait for each.
    then: Vec<Vec<usize>>,
    /// Instructions of each region, in order.
    region_instrs: Vec<Vec<usize>>,
    kept: BTreeSet<ValueId>,
    /// Instructions of each group by name, in order; empty for what is no candidate or was merged.
    members: Vec<Vec<usize>>,
    /// Names of the groups of several instructions.
    large: BTreeSet<usize>,
    /// Tensors in memory that each candidate reads.
    reads: Vec<Vec<ValueId>>,
    /// The instructions with a kernel that read what a candidate makes.
    readers: Vec<Vec<usize>>,
}

impl<'a> Finder<'a> {
    fn new(
        graph: &'a Graph,
        needed: &[bool],
        fusion: &'a Fusion<'a>,
        keep: &[ValueId],
        regions: &[Region],
    ) -> Finder<'a> {
        let units = Units::new(graph, needed, fusion, regions);
        let num = graph.instrs.len();
        let mut then: Vec<Vec<usize>> = vec![Vec::new(); num];
        let (mut members, mut readers) = (vec![Vec::new(); num], vec![Vec::new(); num]);
        for idx in (0..num).filter(|idx| needed[*idx]) {
            if units.of[idx] != idx || !fusion.is_transparent(idx) {
                units.sources[idx].iter().for_each(|source| then[*source].push(idx));
            }
            if units.of[idx] == idx && is_elementwise(graph, idx) && !fusion.is_transparent(idx) {
                members[idx].push(idx);
                readers[idx] = fusion.readers(graph.instrs[idx].outputs[0]);
            }
        }
        let mut finder = Finder {
            graph,
            fusion,
            units,
            then,
            region_instrs: regions.iter().map(|region| region.instrs.iter().copied().collect()).collect(),
            kept: keep.iter().map(|v| broadcast_root(graph, *v)).collect(),
            members,
            large: BTreeSet::new(),
            reads: vec![Vec::new(); num],
            readers,
        };
        for idx in (0..num).filter(|idx| !finder.members[*idx].is_empty()).collect::<Vec<usize>>() {
            let mut reads = Vec::new();
            finder.collect_reads(finder.out(idx), true, &mut reads);
            reads.sort_unstable();
            reads.dedup();
            finder.reads[idx] = reads;
        }
        finder
    }

    /// Instructions of each region.
    fn regions(&self) -> impl Iterator<Item = &[usize]> {
        self.region_instrs.iter().map(|instrs| &instrs[..])
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value.idx()].len()
    }

    fn out(&self, idx: usize) -> ValueId {
        self.graph.instrs[idx].outputs[0]
    }

    /// Appends the values in memory that the tree of a value reads.
    fn collect_reads(&self, value: ValueId, is_root: bool, reads: &mut Vec<ValueId>) {
        let value = root(self.graph, value);
        let idx = self.graph.values[value.idx()].instr;
        if !is_root && !self.fusion.is_transparent(idx) {
            return reads.push(value);
        }
        for input in &self.graph.instrs[idx].inputs {
            self.collect_reads(*input, false, reads);
        }
    }

    /// Values that feed one another.
    fn merge_chains(&mut self) {
        for idx in 0..self.graph.instrs.len() {
            for reader in self.readers[idx].clone() {
                self.merge(idx, reader);
            }
        }
    }

    /// Values that read the same tensor of their own length.
    fn merge_neighbours(&mut self) {
        let mut last_reader: Vec<Option<usize>> = vec![None; self.graph.values.len()];
        for idx in 0..self.graph.instrs.len() {
            for value in self.reads[idx].clone() {
                if self.len(value) != self.len(self.out(idx)) {
                    continue;
                }
                if let Some(before) = last_reader[value.idx()].replace(idx) {
                    self.merge(before, idx);
                }
            }
        }
    }

    /// Makes one group of those of two instructions, if that is a map of fair size that can be scheduled.
    fn merge(&mut self, a: usize, b: usize) {
        let is_candidate = |idx: usize| self.members.get(self.units.of[idx]).is_some_and(|m| !m.is_empty());
        if !is_candidate(a) || !is_candidate(b) || a.abs_diff(b) > MAX_DISTANCE {
            return;
        }
        let (first, second) = (self.units.of[a], self.units.of[b]);
        if first == second || self.len(self.out(a)) != self.len(self.out(b)) {
            return;
        }
        let mut both = [&self.members[first][..], &self.members[second][..]].concat();
        both.sort_unstable();
        if self.is_small(&both) && !self.is_between(first, second) {
            both.iter().for_each(|idx| self.units.of[*idx] = first);
            self.members[second].clear();
            self.members[first] = both;
            self.large.remove(&second);
            self.large.insert(first);
        }
    }

    fn is_small(&self, instrs: &[usize]) -> bool {
        let size: usize = instrs.iter().map(|idx| self.fusion.size[self.out(*idx).idx()]).sum();
        let mut reads: Vec<ValueId> =
            instrs.iter().flat_map(|idx| self.reads[*idx].iter().copied()).collect();
        reads.sort_unstable();
        reads.dedup();
        reads.retain(|value| instrs.binary_search(&self.graph.values[value.idx()].instr).is_err());
        let stored = instrs.iter().filter(|idx| self.is_stored(**idx, instrs)).count();
        size <= MAX_INSTRS && reads.len() <= MAX_READS && stored <= MAX_STORED
    }

    /// Whether something outside `instrs` reads what instruction `idx` makes.
    fn is_stored(&self, idx: usize, instrs: &[usize]) -> bool {
        self.kept.contains(&self.out(idx))
            || self.readers[idx].iter().any(|reader| instrs.binary_search(reader).is_err())
    }

    /// Whether something waits for one of two groups while the other waits for it.
    fn is_between(&self, first: usize, second: usize) -> bool {
        let inside = |idx: usize| [first, second].contains(&self.units.of[idx]);
        let mut seen = BTreeSet::new();
        let mut queue: Vec<usize> = Vec::new();
        for idx in self.members[first].iter().chain(&self.members[second]) {
            queue.extend(self.then[*idx].iter().filter(|next| !inside(**next)));
        }
        let last = self.last_reach(first, second);
        while let Some(idx) = queue.pop() {
            if inside(idx) {
                return true;
            }
            if idx > last || !seen.insert(self.units.of[idx]) {
                continue;
            }
            for member in self.unit_instrs(&idx) {
                queue.extend(&self.then[*member]);
            }
        }
        false
    }

    /// All instructions that run with one.
    fn unit_instrs<'b>(&'b self, idx: &'b usize) -> &'b [usize] {
        let (unit, num) = (self.units.of[*idx], self.graph.instrs.len());
        if unit >= num {
            &self.region_instrs[unit - num]
        } else if self.members[unit].is_empty() {
            std::slice::from_ref(idx)
        } else {
            &self.members[unit]
        }
    }

    /// An instruction beyond which no path leads back to either group.
    fn last_reach(&self, first: usize, second: usize) -> usize {
        let end = |instrs: &[usize]| instrs.last().copied().unwrap_or(0);
        let mut last = end(&self.members[first]).max(end(&self.members[second]));
        // A unit with instructions on both sides leads back: begin again with its end.
        let leads_back = |unit: &&[usize], last: usize| unit[0] <= last && end(unit) > last;
        loop {
            let mut spanning = self.large.iter().map(|name| &self.members[*name][..]).chain(self.regions());
            match spanning.find(|unit| leads_back(unit, last)) {
                Some(unit) => last = end(unit),
                None => return last,
            }
        }
    }

    fn group(&self, name: usize) -> Group {
        let instrs = &self.members[name];
        let values = instrs.iter().map(|idx| self.out(*idx)).collect();
        let stored =
            instrs.iter().filter(|idx| self.is_stored(**idx, instrs)).map(|idx| self.out(*idx)).collect();
        Group { values, stored }
    }
}

#[cfg(test)]
mod tests;
