//! Gradients in float64 against central differences.

use crate::cases::{Case, all};
use pawl_engine::reference::{Leaves, Tensor, leaf, run};
use pawl_graph::InputKind;

/// Half the distance of a central difference: error about h^2 and 1e-16 / h.
const H: f64 = 1e-5;
/// Worst relative error observed: 3e-8.
const TOLERANCE: f64 = 1e-6;

fn loss(case: &Case, leaves: &Leaves) -> f64 {
    run(&case.graph, leaves, &[case.loss], |x| x)[0].real()[0]
}

/// Elements checked of one tensor: all of a small one, a spread of a large one.
fn spread(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len.div_ceil(24).max(1))
}

fn check(mut case: Case) {
    let flat = case.name.ends_with("is flat");
    let grads = case.graph.gradients(case.loss, &case.params.clone());
    let analytic = run(&case.graph, &case.leaves, &grads, |x| x);
    let mut largest: f64 = 0.0;
    for (p, grad) in analytic.iter().enumerate() {
        let key = leaf(&InputKind::Param, &format!("p{p}"));
        let steepest =
            (0..grad.real().len()).max_by(|a, b| grad.real()[*a].abs().total_cmp(&grad.real()[*b].abs()));
        for i in spread(grad.real().len()).chain(steepest) {
            let moved = |by: f64| {
                let mut leaves = case.leaves.clone();
                let Some(Tensor::Real(x)) = leaves.get_mut(&key) else { panic!("{key:?}") };
                x[i] += by;
                loss(&case, &leaves)
            };
            let numeric = (moved(H) - moved(-H)) / (2.0 * H);
            let (got, want) = (grad.real()[i], if flat { 0.0 } else { numeric });
            largest = largest.max(got.abs());
            let error = (got - want).abs() / want.abs().max(1.0);
            assert!(error < TOLERANCE, "{} p{p}[{i}]: gradient {got}, difference {want}", case.name);
        }
    }
    assert!(flat || largest > 1e-3, "{}: every gradient is zero, which proves nothing", case.name);
}

#[test]
fn every_operation_agrees_with_finite_differences() {
    all().into_iter().for_each(check);
}
