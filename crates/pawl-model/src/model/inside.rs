//! Looks inside a model while it is trained. None of them changes a bit of it.

use super::{Layout, Model, ModelError, UPDATE_SECTION, rank};
use pawl_engine::{Buffer, Group, Output, Precision, Program};
use pawl_graph::InputKind;
use std::collections::BTreeMap;

impl Model {
    /// Counts from now on what kernels cost; a step takes a percent or two longer meanwhile.
    pub fn start_timing(&mut self) {
        self.engine.start_profile();
    }

    /// Seconds by part of what was run since [`Model::start_timing`], which is over.
    pub fn end_timing(&mut self) -> BTreeMap<&'static str, f64> {
        let mut seconds: BTreeMap<&'static str, f64> = BTreeMap::new();
        for kernel in self.engine.end_profile() {
            let part = if kernel.section == UPDATE_SECTION { "optimizer" } else { word(kernel.group) };
            *seconds.entry(part).or_default() += kernel.seconds;
        }
        seconds
    }

    /// Root mean square of what enters each layer and leaves the last ([`pawl_graph::Graph::boundaries`]) for
    /// whole rows of tokens (B, T).
    pub fn layer_scales(&self, tokens: &[i32], seq_len: usize) -> Result<Vec<(String, f64)>, ModelError> {
        let mut traced = self.recipe.logits_graph(tokens.len() / seq_len, seq_len)?;
        let boundaries = traced.graph.boundaries(traced.tokens);
        if boundaries.is_empty() {
            return Ok(Vec::new());
        }
        let squares: Vec<_> =
            boundaries.iter().map(|boundary| traced.graph.mean_square(boundary.value)).collect();
        let (mut buffers, mut layout) = (Vec::new(), Layout::default());
        let inputs = layout.bind(&traced.graph, &mut buffers);
        let first = buffers.len();
        let outputs: Vec<Output> = squares
            .into_iter()
            .enumerate()
            .map(|(at, value)| Output { value, buffer: first + at, accumulate: false })
            .collect();
        buffers.extend(outputs.iter().map(|_| Buffer::zeros(1)));
        self.copy_params(&mut buffers, &layout);
        let place = layout.place.iter().find(|((kind, _), _)| *kind == rank(&InputKind::Tokens));
        let (_, place) = place.expect("a model reads tokens");
        buffers[*place].ints_mut().copy_from_slice(tokens);
        let target = self.engine.target(Precision::F32, false);
        let mut program = Program::with_target(&traced.graph, &inputs, &outputs, target);
        program.run(&self.engine, &mut buffers, 0);
        let scale = |at: usize| f64::from(buffers[first + at].floats()[0]).sqrt();
        Ok(boundaries.into_iter().enumerate().map(|(at, it)| (it.name, scale(at))).collect())
    }
}

fn word(group: Group) -> &'static str {
    match group {
        Group::Products => "products",
        Group::Attention => "attention",
        Group::Norms => "norms",
        Group::Elementwise => "elementwise",
        Group::CrossEntropy => "cross-entropy",
        Group::Other => "other",
    }
}
