//! Memory of the engine: zeroed, aligned to a cache line, four-byte elements that are floats or integers.

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Memory from which on huge pages pay, bytes: two of them.
const HUGE: usize = 4 << 20;

/// Asks for pages of 2 MiB while nothing is touched yet; a system that has none changes nothing.
fn prefer_huge_pages(lines: &[Line]) {
    let bytes = size_of_val(lines);
    if bytes < HUGE {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let page = 4096;
        let start = (lines.as_ptr() as usize).next_multiple_of(page);
        let end = (lines.as_ptr() as usize + bytes) / page * page;
        // SAFETY: whole pages inside the allocation; advice changes no content.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// A tensor's memory. Integers share the bits of the floats.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer {
        let lines = vec![Line([0.0; 16]); len.div_ceil(16)];
        prefer_huge_pages(&lines);
        Buffer { lines, len }
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
        // SAFETY: `lines` holds at least `len` floats, contiguous because Line is repr(C) without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// As floats, to write.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// As integers.
    pub fn ints(&self) -> &[i32] {
        // SAFETY: as above; every bit pattern of four bytes is an i32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// As integers, to write.
    pub fn ints_mut(&mut self) -> &mut [i32] {
        // SAFETY: as above; every i32 is a valid float bit pattern.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// Little-endian bytes, as files hold them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: four bytes an element; u8 has no alignment or validity to keep. The targets are little-endian.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len * 4) }
    }
}
