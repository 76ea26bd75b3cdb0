//! Orders that are functions of a key: no generator with a state, nothing to save.

/// A key derived from another and a number: the finalizer of MurmurHash3 over 64 bits.
pub(crate) fn key(key: u64, number: u64) -> u64 {
    let mut mixed = (key ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x632B_E59B_D9B4_E019);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    mixed ^ (mixed >> 33)
}

/// A key derived from a name.
pub(crate) fn named_key(from: u64, name: &str) -> u64 {
    name.bytes().fold(key(from, name.len() as u64), |so_far, byte| key(so_far, u64::from(byte)))
}

/// 0..len in an order given by `of`.
pub(crate) fn shuffled(len: usize, of: u64) -> Vec<u32> {
    let mut keyed: Vec<(u64, u32)> = (0..len as u32).map(|idx| (key(of, u64::from(idx)), idx)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, idx)| idx).collect()
}
