//! Memory of the engine: zeroed, aligned to a cache line, four-byte elements that are floats or integers.
#![allow(
    unexpected_cfgs,
    reason = "`cargo xtask sanitize` alone sets pawl_sanitize, and no manifest knows it"
)]

/// Floats of one cache line.
const LINE: usize = 16;

/// Memory from which on huge pages pay, bytes: two of them.
const HUGE: usize = 4 << 20;

/// Asks for pages of 2 MiB while nothing is touched yet; a system that has none changes nothing.
fn prefer_huge_pages(floats: &[f32]) {
    let bytes = size_of_val(floats);
    if bytes < HUGE {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let page = 4096;
        let start = (floats.as_ptr() as usize).next_multiple_of(page);
        let end = (floats.as_ptr() as usize + bytes) / page * page;
        // SAFETY: whole pages inside the allocation; advice changes no content.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// Tells AddressSanitizer that what lies around a tensor is nobody's: no kernel may touch the slack of its allocation.
/// Memory that is freed and handed out again is the sanitizer's to clear.
#[cfg(pawl_sanitize)]
fn poison(floats: &[f32]) {
    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const libc::c_void, num_bytes: usize);
    }
    // SAFETY: a part of an allocation of ours that nothing reads or writes.
    unsafe { __asan_poison_memory_region(floats.as_ptr().cast(), size_of_val(floats)) };
}

/// A tensor's memory. Integers share the bits of the floats.
#[derive(Default)]
pub struct Buffer {
    /// Longer than the tensor, so that it can start on a cache line: memory that comes zeroed from the system is
    /// not touched before it is used, but only if no alignment is asked for.
    floats: Vec<f32>,
    start: usize,
    len: usize,
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        let mut copy = Buffer::zeros(self.len);
        copy.floats_mut().copy_from_slice(self.floats());
        copy
    }
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer {
        if len == 0 {
            return Buffer::default();
        }
        let floats = vec![0.0; len.next_multiple_of(LINE) + LINE];
        prefer_huge_pages(&floats);
        let start = floats.as_ptr().align_offset(4 * LINE);
        #[cfg(pawl_sanitize)]
        {
            poison(&floats[..start]);
            poison(&floats[start + len..]);
        }
        Buffer { floats, start, len }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As floats.
    pub fn floats(&self) -> &[f32] {
        &self.floats[self.start..self.start + self.len]
    }

    /// As floats, to write.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..self.start + self.len]
    }

    /// As integers.
    pub fn ints(&self) -> &[i32] {
        let floats = self.floats();
        // SAFETY: the same memory; every bit pattern of four bytes is an i32.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
    }

    /// As integers, to write.
    pub fn ints_mut(&mut self) -> &mut [i32] {
        let floats = self.floats_mut();
        // SAFETY: as above, borrowed uniquely; every i32 is a valid float bit pattern.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
    }

    /// Little-endian bytes, as files hold them.
    pub fn bytes(&self) -> &[u8] {
        let floats = self.floats();
        // SAFETY: four bytes an element; u8 has no alignment or validity to keep. The targets are little-endian.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), 4 * floats.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_cache_line_and_their_copies_too() {
        for len in [1, 15, 16, 100, 1 << 20] {
            let mut buffer = Buffer::zeros(len);
            assert!(buffer.floats().len() == len && buffer.floats().iter().all(|x| *x == 0.0));
            buffer.ints_mut()[len - 1] = 7;
            let copy = buffer.clone();
            assert_eq!(copy.ints()[len - 1], 7);
            let starts = [buffer.bytes().as_ptr(), copy.bytes().as_ptr()];
            assert!(starts.iter().all(|start| start.addr().is_multiple_of(64)), "{len}");
        }
        assert!(Buffer::zeros(0).is_empty());
    }

    /// Shows that the sanitizer is there: without it nothing that `cargo xtask sanitize` runs would mean anything.
    #[cfg(pawl_sanitize)]
    #[test]
    fn what_lies_around_a_buffer_is_poisoned() {
        unsafe extern "C" {
            fn __asan_address_is_poisoned(at: *const libc::c_void) -> libc::c_int;
        }
        for len in [1, 7, 16, 1000] {
            let buffer = Buffer::zeros(len);
            // SAFETY: asks about an address and reads nothing there.
            let is_poisoned = |at: *const f32| unsafe { __asan_address_is_poisoned(at.cast()) } != 0;
            let start = buffer.floats().as_ptr();
            assert!(buffer.floats().iter().all(|x| !is_poisoned(x)), "{len}");
            assert!(is_poisoned(start.wrapping_add(len)), "{len}: behind");
            assert!(buffer.start == 0 || is_poisoned(start.wrapping_sub(1)), "{len}: before");
        }
    }
}
