//! The engine as something that runs a graph once: leaves in, outputs out.

use pawl_engine::reference::{Leaves, Tensor, leaf};
use pawl_engine::{Buffer, Engine, Output, Program};
use pawl_graph::{DType, Graph, ValueId};

/// Compiles and runs; leaves that the graph does not read are left alone.
pub(crate) fn run(engine: &Engine, graph: &Graph, leaves: &Leaves, outputs: &[ValueId]) -> Vec<Tensor> {
    let len = |value: ValueId| graph.values[value.idx()].len();
    let mut buffers: Vec<Buffer> = Vec::new();
    for input in &graph.inputs {
        let mut buffer = Buffer::zeros(len(input.value));
        match leaves.get(&leaf(&input.kind, &input.name)) {
            Some(Tensor::Real(x)) => {
                buffer.floats_mut().iter_mut().zip(x).for_each(|(to, x)| *to = *x as f32)
            }
            Some(Tensor::Int(x)) => buffer.ints_mut().copy_from_slice(x),
            None => {}
        }
        buffers.push(buffer);
    }
    let inputs: Vec<usize> = (0..buffers.len()).collect();
    let bound: Vec<Output> = outputs
        .iter()
        .enumerate()
        .map(|(n, value)| Output { value: *value, buffer: inputs.len() + n, accumulate: false })
        .collect();
    buffers.extend(outputs.iter().map(|value| Buffer::zeros(len(*value))));
    Program::new(graph, &inputs, &bound, engine).run(engine, &mut buffers, 0);
    let tensor = |(value, buffer): (&ValueId, &Buffer)| match graph.values[value.idx()].dtype {
        DType::F32 => Tensor::Real(buffer.floats().iter().map(|x| f64::from(*x)).collect()),
        DType::I32 => Tensor::Int(buffer.ints().to_vec()),
    };
    outputs.iter().zip(&buffers[inputs.len()..]).map(tensor).collect()
}
