//! Which matrices are packed once for all rounds of a program, in the order in which products read them.

use super::rows::Region;
use super::{Kernel, Loc, Step, Target, memory};
use crate::kernels::gemm::packed_right_len;
use pawl_graph::Op;

/// The second operand of products as stored: where the matrix (K, N) lies, and whether transposed.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Matrix {
    pub(super) place: Loc,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) tb: bool,
}

/// Fewest rows of a product for which its second operand is packed ahead: fewer read it where it lies.
const MIN_ROWS: usize = 32;

/// Most elements that a program keeps packed: 24 MiB. In bfloat16 it pays (small: 12 % of a step), in float32 hardly
/// (2 to 5 %), so it is not worth the memory of a large model.
const MAX_PACKED: usize = 6 << 20;

/// What is packed ahead, and the steps that do it.
pub(super) struct Packing {
    /// Run before the first round.
    pub(super) once: Vec<Step>,
    /// Elements of all that is packed.
    pub(super) len: usize,
    packed: Vec<(Matrix, Loc)>,
    /// Whether more may be.
    is_open: bool,
    /// Buffers of parameters that nothing overwrites.
    constant: Vec<usize>,
    target: Target,
}

impl Packing {
    /// For a whole program; `constant` are buffers of parameters that it does not overwrite.
    pub(super) fn of_program(target: Target, constant: Vec<usize>) -> Packing {
        let is_open = target.repeats;
        Packing { once: Vec::new(), len: 0, packed: Vec::new(), is_open, constant, target }
    }

    /// For the body of a loop, which finds packed what was packed outside.
    pub(super) fn of_body(target: Target, packed: Vec<(Matrix, Loc)>) -> Packing {
        Packing { once: Vec::new(), len: 0, packed, is_open: false, constant: Vec::new(), target }
    }

    /// Where the second operand of a product of `num_rows` rows lies packed, if it does or can be.
    pub(super) fn ahead(&mut self, num_rows: usize, matrix: Matrix) -> Option<Loc> {
        if num_rows < MIN_ROWS {
            return None;
        }
        if let Some((_, packed)) = self.packed.iter().find(|(known, _)| *known == matrix) {
            return Some(*packed);
        }
        let Matrix { place, k, n, tb } = matrix;
        let is_constant = matches!(place, Loc::Buffer { buffer, .. } if self.constant.contains(&buffer));
        let len = packed_right_len(self.target.isa, self.target.precision, k, n);
        if !self.is_open || !is_constant || self.len + len > MAX_PACKED {
            return None;
        }
        let packed = Loc::Kept { offset: self.len };
        self.len += len.next_multiple_of(memory::ALIGN);
        let kernel = Kernel::Pack { k, n, tb };
        self.once.push(Step { kernel, reads: vec![place], writes: vec![packed], scratch: None });
        self.packed.push((matrix, packed));
        Some(packed)
    }

    /// What a loop's body multiplies by: the matrix as the body sees it, and where it lies packed, at most `most`.
    /// `reads` is where what the region reads lies outside.
    pub(super) fn for_body(&mut self, region: &Region, reads: &[Loc], most: usize) -> Vec<(Matrix, Loc)> {
        let mut found: Vec<(Matrix, Loc)> = Vec::new();
        for instr in &region.body.instrs {
            let Op::Matmul { tb, .. } = instr.op else { continue };
            let read = region.body.inputs.iter().position(|input| input.value == instr.inputs[1]);
            let Some(buffer) = read.filter(|read| !region.reads[*read].1) else { continue };
            let [num_rows, n] = region.body.shape(instr.outputs[0])[..] else { continue };
            let matrix = region.body.shape(instr.inputs[1]);
            let k = if tb { matrix[1] } else { matrix[0] };
            let inside = Matrix { place: Loc::Buffer { buffer, offset: 0 }, k, n, tb };
            if found.len() == most || found.iter().any(|(known, _)| *known == inside) {
                continue;
            }
            if let Some(packed) = self.ahead(num_rows, Matrix { place: reads[buffer], ..inside }) {
                found.push((inside, packed));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Isa, Precision};

    #[test]
    fn parameters_are_packed_once_where_that_pays() {
        let target = Target { num_threads: 1, isa: Isa::Portable, precision: Precision::F32, repeats: true };
        let matrix = |buffer, tb| Matrix { place: Loc::Buffer { buffer, offset: 0 }, k: 24, n: 40, tb };
        let mut packing = Packing::of_program(target, vec![3]);
        let first = packing.ahead(64, matrix(3, true));
        assert!(first.is_some() && packing.ahead(64, matrix(3, true)) == first);
        assert!(packing.ahead(64, matrix(3, false)).is_some_and(|other| Some(other) != first));
        assert_eq!(packing.once.len(), 2);
        // Too few rows; not a parameter; too large; a program that runs once.
        assert!(packing.ahead(8, matrix(3, true)).is_none());
        assert!(packing.ahead(64, matrix(4, true)).is_none());
        assert!(packing.ahead(64, Matrix { k: 1 << 13, n: 1 << 12, ..matrix(3, true) }).is_none());
        let mut once = Packing::of_program(Target { repeats: false, ..target }, vec![3]);
        assert!(once.ahead(64, matrix(3, true)).is_none());
    }
}
