//! Rows of a table by token id, and the sum of gradients back into the table.

use super::Isa;
use super::lanes::per_isa;
use super::rows::{for_rows, num_rows};
use crate::pool::{Pool, SharedMut};
use std::ops::Range;

/// Parts of the vocabulary, each one task of the backward pass: enough that a part of frequent tokens is
/// not most of the work, few enough that reading all ids for each stays cheap.
const NUM_PARTS: usize = 48;

/// y   = (N, C)   table[id mod V]
/// table (V, C)   read
/// ids   (N)      read
pub fn embedding_forward(pool: &Pool, y: &mut [f32], table: &[f32], ids: &[i32], c: usize) {
    let v = num_rows(table.len(), c);
    assert!(v > 0 && y.len() == ids.len() * c, "{} embeddings of {c}", ids.len());
    let y = SharedMut::new(y);
    for_rows(pool, ids.len(), c, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let y = unsafe { y.part(rows.start * c, rows.len() * c) };
        for (y, id) in y.chunks_exact_mut(c).zip(&ids[rows]) {
            y.copy_from_slice(&table[row(*id, v) * c..][..c]);
        }
    });
}

fn row(id: i32, v: usize) -> usize {
    // Division is slow and almost never needed.
    let id = i64::from(id);
    if (0..v as i64).contains(&id) { id as usize } else { id.rem_euclid(v as i64) as usize }
}

/// dtable += (V, C)  the rows of dy whose id is that row, in order
/// dy       (N, C)   read
/// ids      (N)      read
pub fn embedding_backward(pool: &Pool, isa: Isa, dtable: &mut [f32], dy: &[f32], ids: &[i32], c: usize) {
    let v = num_rows(dtable.len(), c);
    assert!(v > 0 && dy.len() == ids.len() * c, "{} embeddings of {c}", ids.len());
    let step = v.div_ceil(NUM_PARTS);
    let dtable = SharedMut::new(dtable);
    pool.run(v.div_ceil(step), &|part, _| {
        let owned = part * step..v.min((part + 1) * step);
        // SAFETY: tasks take disjoint rows of the table.
        let dtable = unsafe { dtable.part(owned.start * c, owned.len() * c) };
        add_owned(isa, dtable, dy, ids, owned, v, c);
    });
}

per_isa! {
    fn add_owned(dtable: &mut [f32], dy: &[f32], ids: &[i32], owned: Range<usize>, v: usize, c: usize) =
        add_owned_body
}

#[inline(always)]
fn add_owned_body<const FMA: bool>(
    dtable: &mut [f32],
    dy: &[f32],
    ids: &[i32],
    owned: Range<usize>,
    v: usize,
    c: usize,
) {
    for (id, dy) in ids.iter().zip(dy.chunks_exact(c)) {
        let row = row(*id, v);
        if owned.contains(&row) {
            let to = &mut dtable[(row - owned.start) * c..][..c];
            for (to, dy) in to.iter_mut().zip(dy) {
                *to += dy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{isas, numbers, same_bits};

    #[test]
    fn rows_are_gathered_and_gradients_summed_in_order() {
        for (n, v, c) in [(1, 1, 1), (5, 3, 7), (100, 10, 16), (1000, 300, 33)] {
            let table = numbers(v * c, 1);
            let dy = numbers(n * c, 2);
            let ids: Vec<i32> = (0..n).map(|i| (i * i % (2 * v)) as i32 - v as i32 / 2).collect();
            let row = |id: i32| id.rem_euclid(v as i32) as usize;
            let mut want: Vec<f32> =
                ids.iter().flat_map(|id| table[row(*id) * c..(row(*id) + 1) * c].to_vec()).collect();
            let before = numbers(v * c, 3);
            let mut dtable = before.clone();
            for (i, id) in ids.iter().enumerate() {
                for k in 0..c {
                    dtable[row(*id) * c + k] += dy[i * c + k];
                }
            }
            want.extend(dtable);
            for isa in isas() {
                let got = same_bits("embedding", |pool| {
                    let (mut y, mut dtable) = (vec![9.0; n * c], before.clone());
                    embedding_forward(pool, &mut y, &table, &ids, c);
                    embedding_backward(pool, isa, &mut dtable, &dy, &ids, c);
                    [y, dtable].concat()
                });
                assert_eq!(got, want, "{isa:?} {n} of {v} x {c}");
            }
        }
    }
}
