//! Cross-entropy of logits against token ids, with the normaliser kept for the backward pass.
//!
//! Nothing as wide as the vocabulary is written forward. A target of -1 is ignored.

use super::Isa;
use super::gemm::halve;
use super::lanes::per_isa;
use super::math::{exp, log};
use super::rows::{TASK_LEN, exp_sum, for_rows, num_rows, row_max};
use crate::pool::{Pool, SharedMut};

/// loss  = (N)      lse - `logits[target]` in nats, 0 where the target is -1
/// lse   = (N)      log of the sum of exponentials of a row
/// logits  (N, V)   read
/// targets (N)      read
pub fn cross_entropy_forward(
    pool: &Pool,
    isa: Isa,
    loss: &mut [f32],
    lse: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    v: usize,
) {
    let n = num_rows(logits.len(), v);
    assert!(loss.len() == n && lse.len() == n && targets.len() == n, "cross-entropy of {n} rows of {v}");
    let (loss, lse) = (SharedMut::new(loss), SharedMut::new(lse));
    for_rows(pool, n, v, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let (loss, lse) = unsafe { (loss.part(rows.start, rows.len()), lse.part(rows.start, rows.len())) };
        loss_rows(isa, loss, lse, &logits[rows.start * v..rows.end * v], &targets[rows], v);
    });
}

per_isa! {
    fn loss_rows(loss: &mut [f32], lse: &mut [f32], logits: &[f32], targets: &[i32], v: usize) = loss_rows_body
}

#[inline(always)]
fn loss_rows_body<const FMA: bool>(
    loss: &mut [f32],
    lse: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    v: usize,
) {
    for (r, row) in logits.chunks_exact(v).enumerate() {
        let peak = row_max(row);
        lse[r] = peak + log::<FMA>(exp_sum::<FMA>(row, peak));
        loss[r] = target(targets[r], v).map_or(0.0, |id| lse[r] - row[id]);
    }
}

/// The column of a target, none when it is ignored.
fn target(id: i32, v: usize) -> Option<usize> {
    let id = usize::try_from(id).ok()?;
    assert!(id < v, "target {id} is not below the vocabulary of {v}");
    Some(id)
}

/// dlogits = (N, V)   (softmax(logits) - onehot(target)) * dloss, 0 where the target is -1
/// logits    (N, V)   read
/// targets   (N)      read
/// lse       (N)      read, saved by the forward pass
/// dloss     (N)      read
pub fn cross_entropy_backward(
    pool: &Pool,
    isa: Isa,
    dlogits: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    lse: &[f32],
    dloss: &[f32],
    v: usize,
) {
    let n = num_rows(logits.len(), v);
    let lens = [lse.len(), dloss.len(), targets.len()];
    assert!(dlogits.len() == logits.len() && lens == [n; 3], "cross-entropy of {n} rows of {v}");
    let dlogits = SharedMut::new(dlogits);
    for_rows(pool, n, v, &|rows| {
        // SAFETY: tasks take disjoint rows.
        let dlogits = unsafe { dlogits.part(rows.start * v, rows.len() * v) };
        let logits = &logits[rows.start * v..rows.end * v];
        loss_rows_backward(isa, dlogits, logits, &targets[rows.clone()], &lse[rows.clone()], &dloss[rows], v);
    });
}

/// Floats of scratch that [`cross_entropy_backward_in_halves`] needs.
pub fn cross_entropy_halves_scratch_len(num_threads: usize, v: usize) -> usize {
    num_threads * v
}

/// dlogits = (N, V)   as by [`cross_entropy_backward`], rounded to bfloat16: two elements in four bytes, V even
/// scratch            at least `cross_entropy_halves_scratch_len` floats, overwritten
pub fn cross_entropy_backward_in_halves(
    pool: &Pool,
    isa: Isa,
    scratch: &mut [f32],
    dlogits: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    lse: &[f32],
    dloss: &[f32],
    v: usize,
) {
    let n = num_rows(logits.len(), v);
    let lens = [lse.len(), dloss.len(), targets.len()];
    let is_whole = v.is_multiple_of(2) && 2 * dlogits.len() == logits.len();
    assert!(is_whole && lens == [n; 3], "cross-entropy of {n} rows of {v} in halves");
    assert!(scratch.len() >= cross_entropy_halves_scratch_len(pool.num_threads(), v), "scratch of {v}");
    let (dlogits, scratch) = (SharedMut::new(dlogits), SharedMut::new(scratch));
    let step = (TASK_LEN / v).max(1);
    pool.run(n.div_ceil(step), &|task, worker| {
        // SAFETY: tasks take disjoint rows and workers disjoint scratch, which holds a row.
        unsafe {
            let row = scratch.part(worker * v, v);
            for r in task * step..n.min((task + 1) * step) {
                let logits = &logits[r * v..(r + 1) * v];
                loss_rows_backward(isa, row, logits, &targets[r..=r], &lse[r..=r], &dloss[r..=r], v);
                halve(isa, dlogits.part(r * v / 2, v / 2).as_mut_ptr(), row.as_ptr(), v);
            }
        }
    });
}

per_isa! {
    fn loss_rows_backward(dlogits: &mut [f32], logits: &[f32], targets: &[i32], lse: &[f32], dloss: &[f32],
        v: usize) = loss_rows_backward_body
}

#[inline(always)]
fn loss_rows_backward_body<const FMA: bool>(
    dlogits: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    lse: &[f32],
    dloss: &[f32],
    v: usize,
) {
    for (r, (drow, row)) in dlogits.chunks_exact_mut(v).zip(logits.chunks_exact(v)).enumerate() {
        let Some(id) = target(targets[r], v) else {
            drow.fill(0.0);
            continue;
        };
        let (lse, dloss) = (lse[r], dloss[r]);
        for (d, x) in drow.iter_mut().zip(row) {
            *d = exp::<FMA>(x - lse) * dloss;
        }
        drow[id] = (exp::<FMA>(row[id] - lse) - 1.0) * dloss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::bf16;
    use crate::kernels::testing::{check_close, isas, numbers, same_bits};

    /// Logits of -10 .. 10; worst seen 1.7e-7 of 1 + |x|.
    const TOLERANCE: f32 = 5e-7;

    /// The definition: loss, lse, dlogits.
    fn reference(logits: &[f32], targets: &[i32], dloss: &[f32], v: usize) -> [Vec<f32>; 3] {
        let (mut loss, mut lse, mut dlogits) = (vec![], vec![], vec![]);
        for (r, row) in logits.chunks_exact(v).enumerate() {
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            lse.push(total.ln() as f32);
            let picked = |j: usize| targets[r] == j as i32;
            let own = (0..v).find(|j| picked(*j));
            loss.push(own.map_or(0.0, |j| (total.ln() - f64::from(row[j])) as f32));
            for j in 0..v {
                let p = f64::from(row[j]).exp() / total - f64::from(u8::from(picked(j)));
                dlogits.push(if own.is_some() { (p * f64::from(dloss[r])) as f32 } else { 0.0 });
            }
        }
        [loss, lse, dlogits]
    }

    #[test]
    fn loss_and_gradient_agree_with_the_definition() {
        for (n, v) in [(1, 1), (1, 5), (7, 16), (33, 50), (300, 257), (3, 40_000)] {
            let logits: Vec<f32> = numbers(n * v, 1).iter().map(|x| x * 10.0).collect();
            let targets: Vec<i32> =
                (0..n).map(|r| if r % 4 == 3 { -1 } else { (r * 31 % v) as i32 }).collect();
            let dloss = numbers(n, 2);
            let want = reference(&logits, &targets, &dloss, v).concat();
            for isa in isas() {
                let what = format!("{isa:?} {n} rows of {v}");
                let got = same_bits(&what, |pool| {
                    let (mut loss, mut lse, mut dlogits) = (vec![9.0; n], vec![9.0; n], vec![9.0; n * v]);
                    cross_entropy_forward(pool, isa, &mut loss, &mut lse, &logits, &targets, v);
                    cross_entropy_backward(pool, isa, &mut dlogits, &logits, &targets, &lse, &dloss, v);
                    [loss, lse, dlogits].concat()
                });
                check_close(&got, &want, TOLERANCE, &what);
            }
        }
    }

    #[test]
    fn a_gradient_in_halves_is_the_gradient_rounded() {
        for (n, v) in [(1, 2), (7, 16), (300, 258)] {
            let logits: Vec<f32> = numbers(n * v, 1).iter().map(|x| x * 10.0).collect();
            let targets: Vec<i32> = (0..n).map(|r| (r * 31 % (v + 1)) as i32 - 1).collect();
            let (dloss, lse) = (numbers(n, 2), vec![7.0; n]);
            for isa in isas() {
                let mut want = vec![9.0; n * v];
                let one = Pool::new(1);
                cross_entropy_backward(&one, isa, &mut want, &logits, &targets, &lse, &dloss, v);
                let got = same_bits("halves", |pool| {
                    let mut halves = vec![9.0; n * v / 2];
                    let mut row = vec![9.0; cross_entropy_halves_scratch_len(pool.num_threads(), v)];
                    let out = &mut halves;
                    cross_entropy_backward_in_halves(
                        pool, isa, &mut row, out, &logits, &targets, &lse, &dloss, v,
                    );
                    let halves = halves.iter().flat_map(|x| [x.to_bits() << 16, x.to_bits() & !0xffff]);
                    halves.map(f32::from_bits).collect()
                });
                let want: Vec<f32> = want.iter().map(|x| bf16::round(*x)).collect();
                assert_eq!(got, want, "{isa:?} {n} rows of {v}");
            }
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let (mut loss, mut lse) = ([9.0], [9.0]);
        let pool = Pool::new(1);
        cross_entropy_forward(&pool, Isa::detect(), &mut loss, &mut lse, &[1e4, -1e4, 0.0], &[1], 3);
        assert_eq!((loss[0], lse[0]), (2e4, 1e4));
    }
}
