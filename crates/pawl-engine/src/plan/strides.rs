//! How far apart the elements of tensors lie.

/// Of a tensor without gaps.
pub(super) fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|k| shape[k + 1..].iter().product()).collect()
}

/// Of an operand of shape `from` as broadcast to `out`.
pub(super) fn broadcast_strides(out: &[usize], from: &[usize]) -> Vec<usize> {
    let lead = out.len() - from.len();
    let strides = row_major(from);
    (0..out.len()).map(|k| if k < lead || from[k - lead] == 1 { 0 } else { strides[k - lead] }).collect()
}

/// (extent, stride read, stride written) with axes of extent 1 dropped and neighbours merged.
pub(super) fn merge_axes(shape: &[usize], read: &[usize], write: &[usize]) -> Vec<(usize, usize, usize)> {
    let mut axes: Vec<(usize, usize, usize)> = Vec::new();
    for k in (0..shape.len()).rev() {
        match axes.last_mut() {
            _ if shape[k] == 1 => {}
            Some((n, r, w)) if read[k] == *n * *r && write[k] == *n * *w => *n *= shape[k],
            _ => axes.push((shape[k], read[k], write[k])),
        }
    }
    axes.reverse();
    if axes.is_empty() { vec![(1, 1, 1)] } else { axes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_merge_neighbouring_axes() {
        assert_eq!(merge_axes(&[2, 3, 4], &[12, 4, 1], &[12, 4, 1]), [(24, 1, 1)]);
        assert_eq!(merge_axes(&[2, 3, 4], &[20, 4, 1], &[12, 4, 1]), [(2, 20, 12), (12, 1, 1)]);
    }
}
