//! Products whose rows go through a map while they are in the caches.

use super::{Operands, Pointers, pointers, strided};
use crate::engine::Hands;
use crate::kernels::gemm::{self, Dims, Strided};
use crate::kernels::map::{Pattern, map};
use crate::plan::{Products, Tail};

/// Floats of a cache line: every part of the scratch begins on one.
const LINE: usize = 16;

/// Floats of scratch of each kind: rows of the result, the second operand packed, those of a product, of a map.
pub(super) fn scratch_lens(tail: &Tail, num_threads: usize) -> [usize; 4] {
    let Tail { products: Products { dims, packed, .. }, program, rows, is_kept, .. } = tail;
    let result = if *is_kept { 0 } else { tail.chunk_len() };
    // As many as a packed matrix takes in any precision.
    let right = if *packed { 0 } else { dims.k * dims.n.next_multiple_of(32) };
    // Fewer rows can need more: they are packed for all threads at once.
    let of_rows = |m| gemm::gemm_scratch_len(num_threads, Dims { m, ..*dims });
    let last = dims.m % *rows;
    let product = of_rows(*rows).max(if last > 0 { of_rows(last) } else { 0 });
    let lens = [result, right, product, num_threads * program.scratch_len()];
    lens.map(|len| len.next_multiple_of(LINE))
}

/// The operands of a product, then what the map reads beside its result; results in the same order.
pub(super) fn mapped_product(hands: Hands<'_>, o: &Operands<'_>, tail: &Tail) {
    let Hands { pool, isa, .. } = hands;
    let Products { dims, tb, packed, halves, addend, .. } = tail.products;
    let Dims { m, n, k } = dims;
    let [result, right, product, _] = scratch_lens(tail, pool.num_threads());
    let (result, rest) = o.scratch().split_at_mut(result);
    let (right, rest) = rest.split_at_mut(right);
    let (product, map_scratch) = rest.split_at_mut(product);
    let len = gemm::packed_right_len(isa, o.precision, k, n);
    let b = if packed {
        o.read(1, len)
    } else {
        gemm::pack_right(
            pool,
            isa,
            o.precision,
            &mut right[..len],
            strided(o.read(1, k * n), k, n, tb),
            k,
            n,
        );
        &right[..len]
    };
    let in_slots = |len: usize, halves: bool| if halves { len / 2 } else { len };
    let a = o.read(0, in_slots(m * k, halves[0]));
    let first_read = 2 + usize::from(addend.is_some());
    let reads: Pointers = pointers(&o.step.reads[first_read..], o.memory);
    let writes: Pointers = pointers(&o.step.writes[usize::from(tail.is_kept)..], o.memory);
    for row in (0..m).step_by(tail.rows) {
        let (rows, start) = (tail.rows.min(m - row), row * n);
        let c = if tail.is_kept { &mut o.write(0, m * n)[start..start + rows * n] } else { &mut *result };
        let a = Strided { data: &a[in_slots(row * k, halves[0])..], row: k, col: 1 };
        let a = if halves[0] { gemm::Left::Halves(a) } else { a.into() };
        let store = match addend {
            Some(stride) => {
                let data = &o.read(2, (m - 1) * stride + n)[row * stride..];
                gemm::Store::Plus(Strided { data, row: stride, col: 1 })
            }
            None => gemm::Store::Set,
        };
        let part = Dims { m: rows, n, k };
        gemm::gemm(pool, isa, o.precision, product, c, n, a, gemm::Right::Packed(b), part, store);
        map_rows(hands, tail, map_scratch, &reads, &writes, c.as_ptr(), start, rows * n);
    }
}

/// Elements `start .. start + len` of the map, those of the product at `result`.
fn map_rows(
    hands: Hands<'_>,
    tail: &Tail,
    scratch: &mut [f32],
    reads: &Pointers,
    writes: &Pointers,
    result: *const f32,
    start: usize,
    len: usize,
) {
    let program = &tail.program;
    let mut inputs = Pointers::empty();
    let mut others = reads.constant().iter();
    for (k, pattern) in program.patterns.iter().enumerate() {
        let input = match pattern {
            _ if k == tail.read => result,
            Pattern::Full => others.next().expect("planned").wrapping_add(start),
            Pattern::Scalar | Pattern::Last { .. } => *others.next().expect("planned"),
            Pattern::Row { .. } | Pattern::Strided(_) => unreachable!("not planned"),
        };
        inputs.push(input.cast_mut());
    }
    let mut outputs = Pointers::empty();
    for (k, write) in writes.mutable().iter().enumerate() {
        let in_halves = k >= program.outputs.len();
        outputs.push(write.wrapping_add(if in_halves { start / 2 } else { start }));
    }
    // SAFETY: planned operands, moved by whole rows; rows begin at even elements.
    unsafe {
        let scratch = scratch.as_mut_ptr();
        map(hands.pool, hands.isa, scratch, outputs.mutable(), inputs.constant(), program, len);
    }
}
