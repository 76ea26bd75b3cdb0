//! What the definitions of operations share: functions of one element, and where elements lie.

use pawl_graph::{Binary, Mask, Unary};

/// The keys that query i sees.
pub(super) fn keys(mask: Mask, i: usize, t: usize) -> std::ops::Range<usize> {
    match mask {
        Mask::Full => 0..t,
        Mask::Causal { window } => i.saturating_sub(window)..i + 1,
    }
}

pub(super) fn four(shape: &[usize]) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}

pub(super) fn positions(b: usize, t: usize, h: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..b * t * h).map(move |i| [i / (t * h), i / h % t, i % h])
}

/// For each element of `out`, the element of a tensor of shape `from` that broadcasting puts there.
pub(super) fn broadcast_index(from: &[usize], out: &[usize]) -> Vec<usize> {
    let lead = out.len() - from.len();
    let len: usize = out.iter().product();
    (0..len)
        .map(|mut i| {
            let (mut index, mut stride) = (0, 1);
            for axis in (0..out.len()).rev() {
                let at = i % out[axis];
                i /= out[axis];
                if axis >= lead && from[axis - lead] != 1 {
                    index += at * stride;
                    stride *= from[axis - lead];
                }
            }
            index
        })
        .collect()
}

pub(super) fn transpose_index(shape: &[usize], perm: &[usize]) -> Vec<usize> {
    let strides: Vec<usize> = (0..shape.len()).map(|k| shape[k + 1..].iter().product()).collect();
    let len: usize = shape.iter().product();
    (0..len)
        .map(|mut i| {
            let mut index = 0;
            for axis in perm.iter().rev() {
                index += i % shape[*axis] * strides[*axis];
                i /= shape[*axis];
            }
            index
        })
        .collect()
}

pub(super) fn unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => x.max(0.0),
        Unary::Erf => erf(x),
        Unary::Abs => x.abs(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::ToFloat => unreachable!("reads integers"),
    }
}

pub(super) fn binary(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::Pow => a.powf(b),
        Binary::Ge => f64::from(u8::from(a >= b)),
        Binary::Eq => f64::from(u8::from(a == b)),
        Binary::Rem => unreachable!("integers only"),
    }
}

/// Integer arithmetic: wrapping; a remainder by zero is zero.
pub(crate) fn binary_int(op: Binary, a: i32, b: i32) -> i32 {
    match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::Rem => a.checked_rem_euclid(b).unwrap_or(0),
        Binary::Div | Binary::Pow | Binary::Ge | Binary::Eq => unreachable!("floats only"),
    }
}

/// Error function to float64 precision: Taylor series near 0, continued fraction beyond.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) / 2.0 / (z + fraction);
        }
        1.0 - (-z * z).exp() / (z + fraction) / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}
