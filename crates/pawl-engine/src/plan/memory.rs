//! Assigns every block a place in one arena by lifetime: two blocks share memory when no step needs both.

use super::{Loc, Step};

/// Elements between places, so that every block starts on a cache line of its own.
pub(super) const ALIGN: usize = 32;

struct Block {
    base: usize,
    len: usize,
    first: usize,
    last: usize,
    place: usize,
}

/// Rewrites every arena location of `steps` to an offset in the arena and returns the arena's length.
/// `lens[base]` is the length of block `base`.
pub(super) fn assign(steps: &mut [Step], lens: &[usize]) -> usize {
    let mut blocks: Vec<Block> = lens
        .iter()
        .enumerate()
        .map(|(base, len)| Block {
            base,
            len: len.next_multiple_of(ALIGN),
            first: usize::MAX,
            last: 0,
            place: 0,
        })
        .collect();
    for (idx, step) in steps.iter().enumerate() {
        for loc in step.reads.iter().chain(&step.writes).chain(step.scratch.iter().map(|(loc, _)| loc)) {
            if let Loc::Arena { base, .. } = loc {
                blocks[*base].first = blocks[*base].first.min(idx);
                blocks[*base].last = blocks[*base].last.max(idx);
            }
        }
    }
    blocks.retain(|b| b.first != usize::MAX);
    blocks.sort_by(|a, b| b.len.cmp(&a.len).then(a.base.cmp(&b.base)));
    let mut places = vec![0; lens.len()];
    let mut total = 0;
    for k in 0..blocks.len() {
        let (placed, rest) = blocks.split_at_mut(k);
        let block = &mut rest[0];
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|b| b.first <= block.last && block.first <= b.last)
            .map(|b| (b.place, b.place + b.len))
            .collect();
        busy.sort_unstable();
        let mut place = 0;
        for (start, end) in busy {
            if place + block.len <= start {
                break;
            }
            place = place.max(end);
        }
        block.place = place;
        places[block.base] = place;
        total = total.max(place + block.len);
    }
    for step in steps {
        let locs =
            step.reads.iter_mut().chain(&mut step.writes).chain(step.scratch.iter_mut().map(|(loc, _)| loc));
        for loc in locs {
            if let Loc::Arena { base, offset } = loc {
                *loc = Loc::Arena { base: 0, offset: places[*base] + *offset };
            }
        }
    }
    total
}
