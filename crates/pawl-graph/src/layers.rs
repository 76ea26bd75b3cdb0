//! Where a program goes from one layer to the next, for any recipe that numbers its layers in the names of their
//! parameters.
//!
//! A graph knows no layers. Parameters with a number in their path (`blocks.3.attn.q`) belong to that layer of their
//! family (`blocks`); instructions stand in the order in which the recipe asked for them, so a layer begins where its first
//! parameter is used. What enters it is, of the values over all positions that are still read after that, the sum that was
//! made last: the stream to which layers add. A recipe that adds nothing gets the value that was made last.

use crate::graph::{Graph, InputKind, ValueId};
use crate::op::{Binary, Op};
use std::collections::BTreeMap;

/// A value between layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// `into blocks.0`, ..., `out of blocks.5`.
    pub name: String,
    /// The value, with the positions of the tokens in front.
    pub value: ValueId,
}

/// First and last instruction that reads a parameter of a layer itself.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: usize,
    last: usize,
}

impl Graph {
    /// What enters each layer and what leaves the last, in order; nothing where no parameter has a number.
    pub fn boundaries(&self, tokens: ValueId) -> Vec<Boundary> {
        let Some(family) = self.largest_family() else { return Vec::new() };
        let mut spans: BTreeMap<u64, Span> = BTreeMap::new();
        let mut others: Vec<usize> = Vec::new();
        for (at, instr) in self.instrs.iter().enumerate() {
            for name in instr.inputs.iter().filter_map(|value| self.param_name(*value)) {
                match layer_of(name).filter(|(known, _)| *known == family) {
                    Some((_, layer)) => {
                        let span = spans.entry(layer).or_insert(Span { first: at, last: at });
                        span.last = at;
                    }
                    None => others.push(at),
                }
            }
        }
        let mut layers: Vec<(u64, Span)> = spans.into_iter().collect();
        layers.sort_by_key(|(_, span)| span.first);
        let Some((last_layer, last)) = layers.last().copied() else { return Vec::new() };
        let last_read = self.last_reads();
        let positions = self.values[tokens.idx()].len();
        let mut found = Vec::new();
        for (layer, span) in &layers {
            let lives = |value: ValueId| last_read[value.idx()] > span.first;
            if let Some(value) = self.last_sum(0..span.first, positions, lives) {
                found.push(Boundary { name: format!("into {family}.{layer}"), value });
            }
        }
        let end = others.into_iter().find(|at| *at > last.last).unwrap_or(self.instrs.len());
        if let Some(value) = self.last_sum(last.last..end, positions, |_| true) {
            found.push(Boundary { name: format!("out of {family}.{last_layer}"), value });
        }
        found
    }

    /// Mean of the squares of all elements, a scalar.
    pub fn mean_square(&mut self, x: ValueId) -> ValueId {
        let len = self.values[x.idx()].len();
        let squared = self.mul(x, x);
        let total = self.sum_all(squared);
        self.scaled(total, 1.0 / len as f32)
    }

    /// The family of layers with the most parameters.
    fn largest_family(&self) -> Option<String> {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for input in self.inputs.iter().filter(|input| input.kind == InputKind::Param) {
            if let Some((family, _)) = layer_of(&input.name) {
                *sizes.entry(family).or_default() += self.values[input.value.idx()].len();
            }
        }
        sizes.into_iter().max_by_key(|(_, size)| *size).map(|(family, _)| family.to_string())
    }

    fn param_name(&self, value: ValueId) -> Option<&str> {
        let Op::Input(idx) = self.producer(value).op else { return None };
        (self.inputs[idx].kind == InputKind::Param).then(|| self.inputs[idx].name.as_str())
    }

    /// By value: the last instruction that reads it, 0 where none does.
    fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![0; self.values.len()];
        for (at, instr) in self.instrs.iter().enumerate() {
            instr.inputs.iter().for_each(|value| last[value.idx()] = at);
        }
        last
    }

    /// Of the values made in `within`, with one row for each position, that `counts`: the last sum, or the last of all.
    fn last_sum(
        &self,
        within: std::ops::Range<usize>,
        positions: usize,
        counts: impl Fn(ValueId) -> bool,
    ) -> Option<ValueId> {
        let is_wide = |value: ValueId| {
            let shape = self.shape(value);
            let (width, rows) = (shape.last().copied().unwrap_or(1), self.values[value.idx()].len());
            width > 1 && rows == positions * width
        };
        let made = || {
            let instrs = self.instrs[within.clone()].iter().rev();
            instrs.flat_map(|instr| instr.outputs.iter().map(move |value| (&instr.op, *value)))
        };
        let wanted = |value: ValueId| is_wide(value) && counts(value);
        let mut sums = made().filter(|(op, value)| matches!(op, Op::Binary(Binary::Add)) && wanted(*value));
        let sum = sums.next();
        sum.or_else(|| made().find(|(_, value)| wanted(*value))).map(|(_, value)| value)
    }
}

/// Family and number of the layer that a parameter belongs to: `blocks.3.attn.q` is of layer 3 of `blocks`.
fn layer_of(name: &str) -> Option<(&str, u64)> {
    let mut from = 0;
    for part in name.split('.') {
        if let Ok(layer) = part.parse::<u64>() {
            return (from > 0).then(|| (&name[..from - 1], layer));
        }
        from += part.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::DType;

    #[test]
    fn layers_are_numbered_in_names() {
        assert_eq!(layer_of("blocks.12.attn.q"), Some(("blocks", 12)));
        assert_eq!(layer_of("model.layers.0.mlp.1"), Some(("model.layers", 0)));
        assert_eq!(layer_of("head.weight"), None);
        assert_eq!(layer_of("3.weight"), None);
    }

    /// Rows of 6 positions; layers that scale a norm of the stream and add the product to it.
    fn stream(layers: u64) -> (Graph, ValueId, Vec<ValueId>) {
        let mut graph = Graph::new();
        let tokens = graph.input("tokens", InputKind::Tokens, &[2, 3], DType::I32);
        let table = graph.input("embed", InputKind::Param, &[9, 4], DType::F32);
        let mut x = graph.add(Op::Embedding, &[table, tokens]).unwrap();
        let mut seen = vec![x];
        for layer in 0..layers {
            let name = format!("blocks.{layer}.scale");
            // A norm without parameters comes before the first parameter and is no sum.
            let normed = graph.mul(x, x);
            let scale = graph.input(&name, InputKind::Param, &[4], DType::F32);
            let y = graph.mul(normed, scale);
            let z = graph.mul(y, normed);
            x = graph.binary(Binary::Add, x, z);
            seen.push(x);
        }
        let last = graph.mul(x, x);
        let head = graph.input("head", InputKind::Param, &[4], DType::F32);
        graph.mul(last, head);
        (graph, tokens, seen)
    }

    #[test]
    fn the_stream_is_found_between_layers_and_behind_the_last() {
        let (graph, tokens, seen) = stream(3);
        let found = graph.boundaries(tokens);
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["into blocks.0", "into blocks.1", "into blocks.2", "out of blocks.2"]);
        // Nothing is added before the first layer, so there the norm, made last, stands for the embedding.
        assert_eq!(found[1..].iter().map(|it| it.value).collect::<Vec<_>>(), seen[1..]);
        assert_eq!(stream(0).0.boundaries(stream(0).1), []);
    }
}
