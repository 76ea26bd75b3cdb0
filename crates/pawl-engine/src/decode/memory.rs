//! Where the operands of a lane lie: constants, slots of the lane, states of its sequence.
//!
//! Slots and states are reached through pointers, as the blocks of an arena are: who uses them says why
//! nothing else does at that time.

use super::Lane;
use crate::buffer::Buffer;
use pawl_graph::{Incremental, Source, State};

/// Floats of a cache line: slots and states start on one.
const LINE: usize = 16;

/// A lane in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    pub(super) position: i64,
    pub(super) row: usize,
    /// Its place among the slots.
    slot: usize,
    pub(super) wanted: bool,
}

pub(super) struct Memory {
    pub(super) constants: Vec<Buffer>,
    /// Rows of constants that are read by position, by constant.
    widths: Vec<usize>,
    slots: Buffer,
    /// First float and floats a lane of each slot. Lanes lie side by side, so that several are one tensor.
    slot_at: Vec<(usize, usize)>,
    pub(super) states: Vec<State>,
    /// Of all sequences, state after state: in one piece, so that it gets huge pages.
    store: Buffer,
    /// First float and floats a sequence of each state.
    state_places: Vec<(usize, usize)>,
    /// Values that each ring holds.
    depths: Vec<usize>,
    max_lanes: usize,
    pub(super) lanes: Vec<Active>,
    /// The position that each sequence takes next.
    pub(super) next: Vec<usize>,
}

impl Memory {
    pub(super) fn new(program: &Incremental, num_rows: usize, max_lanes: usize) -> Memory {
        let mut total = 0;
        let mut slot_at = Vec::new();
        for len in &program.slots {
            slot_at.push((total, *len));
            total += (len * max_lanes).next_multiple_of(LINE);
        }
        // A ring holds what the lanes of a run add before the last of them is read.
        let depth = |state: &State| if let State::Ring { lag, .. } = state { lag + max_lanes } else { 1 };
        let depths: Vec<usize> = program.states.iter().map(depth).collect();
        let len = |(state, depth): (&State, &usize)| match state {
            State::Ring { len, .. } => len * depth,
            State::Keys { outer, positions, inner } => outer * positions * inner,
            State::Attention { positions, heads, head_dim } => 2 * heads * positions * head_dim,
            State::Latch { len } | State::Scan { len } => *len,
        };
        let mut stored = 0;
        let mut state_places = Vec::new();
        for stride in program.states.iter().zip(&depths).map(len).map(|len| len.next_multiple_of(LINE)) {
            state_places.push((stored, stride));
            stored += stride * num_rows;
        }
        let width = |value: &pawl_graph::ValueId| {
            program.graph.shape(*value).get(1..).map_or(1, |rest| rest.iter().product())
        };
        Memory {
            constants: Vec::new(),
            widths: program.constants.iter().map(width).collect(),
            slots: Buffer::zeros(total),
            slot_at,
            states: program.states.clone(),
            store: Buffer::zeros(stored),
            state_places,
            depths,
            max_lanes,
            lanes: Vec::with_capacity(max_lanes),
            next: vec![0; num_rows],
        }
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.store.len() * 4
    }

    pub(super) fn reset(&mut self, row: usize) {
        self.next[row] = 0;
        for ((start, stride), state) in self.state_places.iter().zip(&self.states) {
            match state {
                // Written before they are read.
                State::Attention { .. } | State::Keys { .. } => {}
                State::Ring { .. } | State::Latch { .. } | State::Scan { .. } => {
                    self.store.floats_mut()[start + row * stride..][..*stride].fill(0.0);
                }
            }
        }
    }

    /// The sequence `to` becomes what `from` is.
    pub(super) fn copy_row(&mut self, from: usize, to: usize) {
        let seen = self.next[from];
        self.next[to] = seen;
        let store = self.store.floats_mut();
        for ((start, stride), state) in self.state_places.iter().zip(&self.states) {
            // Of keys and values only positions that were taken: the others are written before they are read.
            let (parts, whole, len) = match state {
                State::Attention { positions, heads, head_dim } => {
                    (2 * heads, positions * head_dim, seen * head_dim)
                }
                State::Keys { .. } | State::Ring { .. } | State::Latch { .. } | State::Scan { .. } => {
                    (1, *stride, *stride)
                }
            };
            for part in 0..parts {
                let at = start + from * stride + part * whole;
                store.copy_within(at..at + len, start + to * stride + part * whole);
            }
        }
    }

    /// Gives each lane its position and writes its token.
    pub(super) fn take(&mut self, lanes: &[Lane], positions: usize) {
        assert!(lanes.len() <= self.max_lanes, "{} lanes of {}", lanes.len(), self.max_lanes);
        self.lanes.clear();
        for (slot, lane) in lanes.iter().enumerate() {
            let next = &mut self.next[lane.row];
            assert!(*next < positions, "sequence {} has taken all of its {positions} positions", lane.row);
            let position = i64::try_from(*next).expect("an extent fits 63 bits");
            self.lanes.push(Active { position, row: lane.row, slot, wanted: lane.wanted });
            *next += 1;
            let (start, stride) = self.slot_at[0];
            self.slots.ints_mut()[start + slot * stride] = lane.token;
        }
    }

    pub(super) fn keep_wanted(&mut self) {
        self.lanes.retain(|lane| lane.wanted);
    }

    pub(super) fn slot(&self, slot: usize, lane: &Active) -> *mut f32 {
        let (start, stride) = self.slot_at[slot];
        let at = start + lane.slot * stride;
        assert!(at + stride <= self.slots.len(), "slot {slot} of lane {lane:?}");
        self.slots.floats().as_ptr().wrapping_add(at).cast_mut()
    }

    fn state_at(&self, state: usize, lane: &Active, offset: usize) -> *mut f32 {
        let (start, stride) = self.state_places[state];
        let at = start + lane.row * stride + offset;
        assert!(at <= self.store.len() && offset <= stride, "state {state} of lane {lane:?}");
        self.store.floats().as_ptr().wrapping_add(at).cast_mut()
    }

    /// The first float of an operand.
    pub(super) fn at(&self, source: &Source, lane: &Active) -> *const f32 {
        match source {
            Source::Constant(constant) => self.constants[*constant].floats().as_ptr(),
            Source::ConstantAt { constant, ahead } => {
                let (data, width) = (self.constants[*constant].floats(), self.widths[*constant]);
                data[lane.position_in(*ahead, data.len() / width) * width..].as_ptr()
            }
            Source::Slot(slot) => self.slot(*slot, lane),
            Source::Recent { state, lag } => {
                let place = self.ring_place(*state, lane.position - *lag as i64);
                self.state_at(*state, lane, place)
            }
            Source::State(state) => self.state_at(*state, lane, 0),
        }
    }

    /// Where a ring holds a position, which may lie before the first.
    fn ring_place(&self, state: usize, position: i64) -> usize {
        let State::Ring { len, .. } = self.states[state] else { unreachable!("recent values lie in rings") };
        let depth = self.depths[state] as i64;
        position.rem_euclid(depth) as usize * len
    }

    /// # Safety
    /// The operand is that long, and nothing writes it while the slice lives.
    pub(super) unsafe fn read(&self, source: &Source, lane: &Active, len: usize) -> &[f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(source, lane), len) }
    }

    /// # Safety
    /// The slot is that long, and nothing else uses it while the slice lives.
    #[allow(clippy::mut_from_ref)] // each slot of a lane is its own memory
    pub(super) unsafe fn write(&self, slot: usize, lane: &Active, len: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.slot(slot, lane), len) }
    }

    /// Part of a state of the lane's sequence.
    ///
    /// # Safety
    /// The part is inside the state, and nothing else uses it while the slice lives.
    #[allow(clippy::mut_from_ref)] // as for `write`
    pub(super) unsafe fn state(&self, state: usize, lane: &Active, offset: usize, len: usize) -> &mut [f32] {
        assert!(offset + len <= self.state_places[state].1, "state {state}: {offset}+{len}");
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.state_at(state, lane, offset), len) }
    }

    /// Part of a state of the lane's sequence, to read.
    ///
    /// # Safety
    /// The part is inside the state, and nothing writes it while the slice lives.
    pub(super) unsafe fn state_read(&self, state: usize, lane: &Active, offset: usize, len: usize) -> &[f32] {
        assert!(offset + len <= self.state_places[state].1, "state {state}: {offset}+{len}");
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.state_at(state, lane, offset), len) }
    }

    /// Puts the lane's value into a state of its sequence.
    ///
    /// # Safety
    /// Nothing else uses that state of the sequence meanwhile.
    pub(super) unsafe fn remember(&self, x: &Source, state: usize, at: Option<i64>, lane: &Active) {
        let position = lane.position;
        // SAFETY: operands are as long as their values; a state is written from a slot, never from itself.
        unsafe {
            match self.states[state] {
                State::Ring { len, .. } => {
                    let place = self.ring_place(state, position);
                    self.state(state, lane, place, len).copy_from_slice(self.read(x, lane, len));
                }
                State::Latch { len } => {
                    if at == Some(position) {
                        self.state(state, lane, 0, len).copy_from_slice(self.read(x, lane, len));
                    }
                }
                State::Keys { outer, positions, inner } => {
                    let p = lane.position_in(0, positions);
                    let x = self.read(x, lane, outer * inner);
                    // The first value stands for all that are not yet known.
                    let places = if p == 0 { 0..positions } else { p..p + 1 };
                    for (o, x) in x.chunks_exact(inner).enumerate() {
                        for place in places.clone() {
                            self.state(state, lane, (o * positions + place) * inner, inner)
                                .copy_from_slice(x);
                        }
                    }
                }
                State::Attention { .. } | State::Scan { .. } => {
                    unreachable!("attention and scans keep their own state")
                }
            }
        }
    }
}

impl Active {
    /// The lane's position and `ahead`, inside the sequence.
    pub(super) fn position_in(&self, ahead: i64, positions: usize) -> usize {
        let position = usize::try_from(self.position + ahead).unwrap_or(0);
        position.min(positions - 1)
    }

    /// Whether what `next` has in a slot follows what this lane has.
    pub(super) fn is_before(&self, next: &Active) -> bool {
        self.slot + 1 == next.slot
    }
}
