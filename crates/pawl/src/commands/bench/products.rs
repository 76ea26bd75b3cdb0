//! The engine's matrix product at the shapes of training and of decoding.

use super::limits::Limits;
use super::{How, Pool, median, percent, timed, word};
use crate::output::{Align, Table};
use pawl_engine::kernels::gemm::{Dims, Store, Strided, gemm, gemm_scratch_len};
use pawl_engine::{Isa, Precision};
use serde_json::{Value, json};
use std::hint::black_box;

/// A layer applied to some rows.
struct Layer {
    rows: usize,
    inputs: usize,
    outputs: usize,
    what: &'static str,
}

const fn layer(rows: usize, inputs: usize, outputs: usize, what: &'static str) -> Layer {
    Layer { rows, inputs, outputs, what }
}

/// The layers of `small.star` and `big.star`, the head in the rows that the planner gives it, and of one token
/// and sixteen of a model to decode.
const LAYERS: [Layer; 10] = [
    layer(8192, 256, 256, "small: attention"),
    layer(8192, 256, 1024, "small: up"),
    layer(8192, 1024, 256, "small: down"),
    layer(256, 256, 4096, "small: head"),
    layer(4096, 512, 512, "big: attention"),
    layer(4096, 512, 2048, "big: up"),
    layer(4096, 2048, 512, "big: down"),
    layer(256, 512, 8192, "big: head"),
    layer(1, 512, 2048, "decode: 1 sequence"),
    layer(16, 512, 2048, "decode: 16 sequences"),
];
const QUICK_LAYERS: [Layer; 2] = [layer(512, 64, 256, "quick"), layer(1, 256, 256, "quick decode")];

/// Rows up to which a layer is one of decoding, which has no gradients.
const DECODE_ROWS: usize = 16;
/// Calls of a shape at least, and seconds to fill.
const LEAST: usize = 5;
const BUDGET: f64 = 0.1;
const QUICK_BUDGET: f64 = 0.005;
/// FLOPs below which a call is repeated: some tens of microseconds, far above the resolution of the clock.
const CALL_FLOPS: f64 = 1e7;

/// Median speeds of the products of one layer, FLOP/s.
pub(super) struct ProductSpeed {
    layer: &'static Layer,
    precision: Precision,
    /// y = x w^T
    forward: f64,
    /// dx = dy w; `None` in decoding
    input_gradient: Option<f64>,
    /// dw = dy^T x
    weight_gradient: Option<f64>,
}

pub(super) fn measure(how: &How<'_>) -> Vec<ProductSpeed> {
    let layers: &'static [Layer] = if how.quick { &QUICK_LAYERS } else { &LAYERS };
    let pool = Pool::new(how.num_threads);
    let mut found = Vec::new();
    for layer in layers {
        how.status.show(format!("products of {} x {} -> {}", layer.rows, layer.inputs, layer.outputs));
        found.extend(how.precisions.iter().map(|precision| speeds(how, &pool, layer, *precision)));
    }
    found
}

fn speeds(how: &How<'_>, pool: &Pool, layer: &'static Layer, precision: Precision) -> ProductSpeed {
    let Layer { rows, inputs, outputs, .. } = *layer;
    let [x, dy, w] = [rows * inputs, rows * outputs, outputs * inputs].map(numbers);
    let (xs, ys, ws) = (by_rows(&x, inputs), by_rows(&dy, outputs), by_rows(&w, inputs));
    let speed = |a, b, dims| product(how, pool, precision, a, b, dims);
    let training = rows > DECODE_ROWS;
    ProductSpeed {
        layer,
        precision,
        forward: speed(xs, turned(ws), Dims { m: rows, n: outputs, k: inputs }),
        input_gradient: training.then(|| speed(ys, ws, Dims { m: rows, n: inputs, k: outputs })),
        weight_gradient: training.then(|| speed(turned(ys), xs, Dims { m: outputs, n: inputs, k: rows })),
    }
}

/// Numbers of ordinary size, without zeros.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 0.999).collect()
}

fn by_rows(data: &[f32], cols: usize) -> Strided<'_> {
    Strided { data, row: cols, col: 1 }
}

fn turned(matrix: Strided<'_>) -> Strided<'_> {
    Strided { data: matrix.data, row: matrix.col, col: matrix.row }
}

/// Median FLOP/s of a product.
fn product(
    how: &How<'_>,
    pool: &Pool,
    precision: Precision,
    a: Strided<'_>,
    b: Strided<'_>,
    dims: Dims,
) -> f64 {
    let mut c = vec![0.0; dims.m * dims.n];
    let mut scratch = vec![0.0; gemm_scratch_len(pool.num_threads(), dims)];
    let flops = 2.0 * (dims.m * dims.n * dims.k) as f64;
    let calls = (CALL_FLOPS / flops).ceil();
    let mut call = || {
        for _ in 0..calls as usize {
            gemm(pool, Isa::detect(), precision, &mut scratch, &mut c, dims.n, a, b, dims, Store::Set);
        }
        black_box(&mut c);
    };
    call();
    let seconds = timed(LEAST, if how.quick { QUICK_BUDGET } else { BUDGET }, call);
    calls * flops / median(&seconds)
}

pub(super) fn table(products: &[ProductSpeed], limits: &Limits) -> String {
    let mut table = Table::new(&[
        ("products", Align::Left),
        ("rows x in -> out", Align::Left),
        ("", Align::Left),
        ("forward", Align::Right),
        ("d input", Align::Right),
        ("d weight", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
    ]);
    for speed in products {
        let Layer { rows, inputs, outputs, what } = *speed.layer;
        let gigaflops =
            |rate: Option<f64>| rate.map_or_else(|| "-".to_string(), |rate| format!("{:.1}", rate / 1e9));
        table.row(vec![
            what.to_string(),
            format!("{rows} x {inputs} -> {outputs}"),
            word(speed.precision).to_string(),
            gigaflops(Some(speed.forward)),
            gigaflops(speed.input_gradient),
            gigaflops(speed.weight_gradient),
            gigaflops(Some(speed.together())),
            percent(speed.together() / limits.roof(speed.precision).products),
        ]);
    }
    table.text()
}

impl ProductSpeed {
    /// FLOP/s of the products of the layer, one after another.
    fn together(&self) -> f64 {
        let speeds = [Some(self.forward), self.input_gradient, self.weight_gradient];
        let speeds: Vec<f64> = speeds.into_iter().flatten().collect();
        speeds.len() as f64 / speeds.iter().map(|speed| 1.0 / speed).sum::<f64>()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "rows": self.layer.rows,
            "inputs": self.layer.inputs,
            "outputs": self.layer.outputs,
            "precision": word(self.precision),
            "forward_flops_per_sec": self.forward,
            "input_gradient_flops_per_sec": self.input_gradient,
            "weight_gradient_flops_per_sec": self.weight_gradient,
        })
    }
}
