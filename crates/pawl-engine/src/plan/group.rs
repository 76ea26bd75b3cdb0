//! Which stored values are computed by one kernel: elementwise values of equal length of which one feeds
//! another, or that read the same tensor, as a map with several results; together with reductions and norms
//! of the last axis, as a program over rows. What only the group reads is then never stored, and what several
//! of its values read is read once.
//!
//! It refuses to merge what something outside would have to run between.

use super::fuse::{Fusion, broadcast_pattern, is_elementwise, root};
use super::rows::Region;
use super::schedule::Units;
use crate::kernels::map::Pattern;
use pawl_graph::{DType, Graph, Op, ValueId};
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

/// Widest row of a program over rows: a register is as wide.
pub(super) const MAX_ROW: usize = 4096;

/// What the values of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// All are elementwise and of `len` elements; `last` is their last axis, 0 where they differ.
    Flat { len: usize, last: usize },
    /// Each is (rows, c) or (rows, 1), c at least 2.
    Rows { rows: usize, c: usize },
}

impl Form {
    /// The form of a group of both kinds of values.
    fn with(self, other: Form) -> Option<Form> {
        match (self, other) {
            (Form::Flat { len: a, last }, Form::Flat { len: b, last: other }) => {
                (a == b).then_some(Form::Flat { len: a, last: if last == other { last } else { 0 } })
            }
            (Form::Rows { rows, c }, Form::Flat { len, last })
            | (Form::Flat { len, last }, Form::Rows { rows, c }) => {
                let fits = (len == rows * c && last == c) || (len == rows && last == 1);
                fits.then_some(Form::Rows { rows, c })
            }
            (Form::Rows { .. }, Form::Rows { .. }) => (self == other).then_some(self),
        }
    }

    /// Elements of its full-size values.
    pub(super) fn len(self) -> usize {
        match self {
            Form::Flat { len, .. } => len,
            Form::Rows { rows, c } => rows * c,
        }
    }
}

/// Values that one kernel computes.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) form: Form,
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
    /// Form of each group by name.
    forms: Vec<Option<Form>>,
    /// Tensors that each candidate reads from memory, and those of other lengths among them with the pattern.
    reads: Vec<Vec<ValueId>>,
    broadcasts: Vec<Vec<(ValueId, Pattern)>>,
    /// The instructions with a kernel that read a value of a candidate.
    readers: Vec<Vec<usize>>,
}

/// The form of what one kernel of a group may compute, none for what is no candidate.
fn form(graph: &Graph, idx: usize) -> Option<Form> {
    let instr = &graph.instrs[idx];
    let out = *instr.outputs.first()?;
    if is_elementwise(graph, idx) {
        let last = graph.shape(out).last().copied().unwrap_or(1);
        return Some(Form::Flat { len: graph.values[out.idx()].len(), last });
    }
    let shape = instr.inputs.first().map(|v| graph.shape(*v))?;
    let takes_rows = match instr.op {
        Op::Reduce { axis, .. } => axis + 1 == shape.len() && graph.dtype(out) == DType::F32,
        Op::RmsNorm { .. } | Op::RmsNormBackward | Op::Rope { .. } => true,
        _ => false,
    };
    let (c, len) = (*shape.last()?, shape.iter().product::<usize>());
    (takes_rows && (2..=MAX_ROW).contains(&c)).then_some(Form::Rows { rows: len / c, c })
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
        let (mut members, mut forms) = (vec![Vec::new(); num], vec![None; num]);
        let mut readers = vec![Vec::new(); graph.values.len()];
        for idx in (0..num).filter(|idx| needed[*idx]) {
            if units.of[idx] != idx || !fusion.is_transparent(idx) {
                units.sources[idx].iter().for_each(|source| then[*source].push(idx));
            }
            let alone = units.of[idx] != idx || fusion.epilogues.contains_key(&idx);
            if !alone && !fusion.is_transparent(idx) && form(graph, idx).is_some() {
                (members[idx], forms[idx]) = (vec![idx], form(graph, idx));
                for out in &graph.instrs[idx].outputs {
                    readers[out.idx()] = fusion.readers(*out);
                }
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
            forms,
            reads: vec![Vec::new(); num],
            broadcasts: vec![Vec::new(); num],
            readers,
        };
        for idx in (0..num).filter(|idx| !finder.members[*idx].is_empty()).collect::<Vec<usize>>() {
            let (mut reads, mut broadcasts) = (Vec::new(), Vec::new());
            finder.collect_reads(idx, &mut reads, &mut broadcasts);
            reads.sort_unstable();
            reads.dedup();
            (finder.reads[idx], finder.broadcasts[idx]) = (reads, broadcasts);
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

    /// Appends what the tree of an instruction reads from memory.
    fn collect_reads(&self, idx: usize, reads: &mut Vec<ValueId>, broadcasts: &mut Vec<(ValueId, Pattern)>) {
        let instr = &self.graph.instrs[idx];
        let shape = self.graph.shape(instr.outputs[0]);
        for input in &instr.inputs {
            let value = root(self.graph, *input);
            let source = self.graph.values[value.idx()].instr;
            if self.fusion.is_transparent(source) {
                self.collect_reads(source, reads, broadcasts);
            } else {
                reads.push(value);
            }
            if form(self.graph, idx).is_none_or(|f| f.len() != self.len(value)) {
                // The shape that broadcasts is the one before its elements are seen as another shape.
                let pattern = broadcast_pattern(shape, self.graph.shape(*input));
                if pattern != Pattern::Full {
                    broadcasts.push((broadcast_root(self.graph, value), pattern));
                }
            }
        }
    }

    /// Values that feed one another.
    fn merge_chains(&mut self) {
        for idx in 0..self.graph.instrs.len() {
            for out in &self.graph.instrs[idx].outputs {
                for reader in self.readers[out.idx()].clone() {
                    self.merge(idx, reader);
                }
            }
        }
    }

    /// Values that read the same tensor of their own length.
    fn merge_neighbours(&mut self) {
        let mut last_reader: Vec<Option<usize>> = vec![None; self.graph.values.len()];
        for idx in 0..self.graph.instrs.len() {
            let Some(form) = form(self.graph, idx) else { continue };
            for value in self.reads[idx].clone() {
                if self.len(value) != form.len() {
                    continue;
                }
                if let Some(before) = last_reader[value.idx()].replace(idx) {
                    self.merge(before, idx);
                }
            }
        }
    }

    /// Makes one group of those of two instructions, if that is a kernel of fair size that can be scheduled.
    fn merge(&mut self, a: usize, b: usize) {
        let (first, second) = (self.units.of[a], self.units.of[b]);
        let form_of = |name: usize| self.forms.get(name).copied().flatten();
        let (Some(one), Some(other)) = (form_of(first), form_of(second)) else { return };
        let Some(form) = one.with(other) else { return };
        if first == second || a.abs_diff(b) > MAX_DISTANCE {
            return;
        }
        let mut both = [&self.members[first][..], &self.members[second][..]].concat();
        both.sort_unstable();
        if self.is_small(&both) && self.reads_by_row(&both, form) && !self.is_between(first, second) {
            both.iter().for_each(|idx| self.units.of[*idx] = first);
            self.members[second].clear();
            self.members[first] = both;
            (self.forms[first], self.forms[second]) = (Some(form), None);
            self.large.remove(&second);
            self.large.insert(first);
        }
    }

    fn is_small(&self, instrs: &[usize]) -> bool {
        let size = |idx: &usize| self.fusion.size[self.graph.instrs[*idx].outputs[0].idx()].max(1);
        let mut reads: Vec<ValueId> =
            instrs.iter().flat_map(|idx| self.reads[*idx].iter().copied()).collect();
        reads.sort_unstable();
        reads.dedup();
        reads.retain(|value| !self.is_made_by(*value, instrs));
        instrs.iter().map(size).sum::<usize>() <= MAX_INSTRS
            && reads.len() <= MAX_READS
            && self.stored(instrs).count() <= MAX_STORED
    }

    fn is_made_by(&self, value: ValueId, instrs: &[usize]) -> bool {
        instrs.binary_search(&self.graph.values[value.idx()].instr).is_ok()
    }

    /// Whether a group of this form reads each value that it makes element by element or row by row.
    fn reads_by_row(&self, instrs: &[usize], form: Form) -> bool {
        let fits = |value: ValueId, pattern: &Pattern| match form {
            Form::Flat { .. } => false,
            Form::Rows { rows, c } => {
                self.len(value) == rows
                    && match pattern {
                        Pattern::Row { n } => *n == c,
                        Pattern::Scalar => rows == 1,
                        Pattern::Full | Pattern::Last { .. } | Pattern::Strided(_) => false,
                    }
            }
        };
        let broadcasts = instrs.iter().flat_map(|idx| &self.broadcasts[*idx]);
        broadcasts
            .filter(|(value, _)| self.is_made_by(*value, instrs))
            .all(|(value, pattern)| fits(*value, pattern))
    }

    /// The values made by `instrs` that something else reads.
    fn stored<'b>(&'b self, instrs: &'b [usize]) -> impl Iterator<Item = ValueId> + 'b {
        let outputs = instrs.iter().flat_map(|idx| self.graph.instrs[*idx].outputs.iter().copied());
        outputs.filter(|value| {
            self.kept.contains(value)
                || self.readers[value.idx()].iter().any(|reader| instrs.binary_search(reader).is_err())
        })
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
        let values = instrs.iter().flat_map(|idx| self.graph.instrs[*idx].outputs.iter().copied()).collect();
        let form = self.forms[name].expect("a group keeps its form under its name");
        Group { form, values, stored: self.stored(instrs).collect() }
    }
}

#[cfg(test)]
mod tests;
