//! Number formats of tensors in GGUF and safetensors files, as float32.
//!
//! A quantised format stores blocks: a scale (and, for some, an offset) in float16 and small integers. The layouts
//! are those of ggml (github.com/ggml-org/ggml, `ggml-common.h`).

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// By the number that GGUF files use.
    pub(super) fn from_ggml(number: u32) -> Option<Format> {
        match number {
            0 => Some(Format::F32),
            1 => Some(Format::F16),
            2 => Some(Format::Q4_0),
            3 => Some(Format::Q4_1),
            6 => Some(Format::Q5_0),
            7 => Some(Format::Q5_1),
            8 => Some(Format::Q8_0),
            12 => Some(Format::Q4K),
            13 => Some(Format::Q5K),
            14 => Some(Format::Q6K),
            30 => Some(Format::Bf16),
            _ => None,
        }
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q8_0 => (32, 34),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
        }
    }

    /// Bytes of `len` numbers; `None` if they are no whole blocks.
    pub(super) fn bytes(self, len: usize) -> Option<usize> {
        let (numbers, bytes) = self.block();
        len.is_multiple_of(numbers).then_some(len / numbers * bytes)
    }

    /// The numbers; `data` holds whole blocks.
    pub(super) fn decode(self, data: &[u8]) -> Vec<f32> {
        let (numbers, bytes) = self.block();
        let mut out = Vec::with_capacity(data.len() / bytes * numbers);
        for block in data.chunks_exact(bytes) {
            self.decode_block(block, &mut out);
        }
        out
    }

    fn decode_block(self, b: &[u8], out: &mut Vec<f32>) {
        match self {
            Format::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Format::F16 => out.push(half(b, 0)),
            Format::Bf16 => out.push(f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            Format::Q8_0 => {
                let d = half(b, 0);
                out.extend(b[2..].iter().map(|q| d * f32::from(*q as i8)));
            }
            Format::Q4_0 => nibbles(&b[2..18], out, half(b, 0), |q, _| f32::from(q) - 8.0, 0.0),
            Format::Q4_1 => nibbles(&b[4..20], out, half(b, 0), |q, _| f32::from(q), half(b, 2)),
            Format::Q5_0 => {
                let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                let fifth = |q, i| f32::from(q | bit(high, i) << 4) - 16.0;
                nibbles(&b[6..22], out, half(b, 0), fifth, 0.0);
            }
            Format::Q5_1 => {
                let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
                nibbles(&b[8..24], out, half(b, 0), |q, i| f32::from(q | bit(high, i) << 4), half(b, 2));
            }
            Format::Q4K => {
                let (d, min) = (half(b, 0), half(b, 2));
                for part in 0..8 {
                    let (scale, offset) = scale_and_offset(&b[4..16], part);
                    let (d, m) = (d * scale, min * offset);
                    let quants = &b[16 + part / 2 * 32..][..32];
                    let shift = 4 * (part % 2);
                    out.extend(quants.iter().map(|q| d * f32::from(q >> shift & 15) - m));
                }
            }
            Format::Q5K => {
                let (d, min) = (half(b, 0), half(b, 2));
                for part in 0..8 {
                    let (scale, offset) = scale_and_offset(&b[4..16], part);
                    let (d, m) = (d * scale, min * offset);
                    let (high, quants) = (&b[16..48], &b[48 + part / 2 * 32..][..32]);
                    let shift = 4 * (part % 2);
                    out.extend(
                        quants
                            .iter()
                            .zip(high)
                            .map(|(q, h)| d * f32::from((q >> shift & 15) | (h >> part & 1) << 4) - m),
                    );
                }
            }
            Format::Q6K => {
                let d = half(b, 208);
                for i in 0..256 {
                    // Two halves of 128 numbers; in each, four runs of 32 share bytes of low and of high bits.
                    let (side, run, place) = (i / 128, i % 128 / 32, i % 32);
                    let low = b[side * 64 + run % 2 * 32 + place] >> (4 * (run / 2)) & 15;
                    let high = b[128 + side * 32 + place] >> (2 * run) & 3;
                    let scale = b[192 + side * 8 + run * 2 + place / 16] as i8;
                    out.push(d * f32::from(scale) * (f32::from(low | high << 4) - 32.0));
                }
            }
        }
    }
}

/// 32 numbers of four bits: the low halves of 16 bytes, then the high halves.
fn nibbles(bytes: &[u8], out: &mut Vec<f32>, d: f32, value: impl Fn(u8, usize) -> f32, offset: f32) {
    out.extend(bytes.iter().enumerate().map(|(i, b)| d * value(b & 15, i) + offset));
    out.extend(bytes.iter().enumerate().map(|(i, b)| d * value(b >> 4, i + 16) + offset));
}

fn bit(word: u32, i: usize) -> u8 {
    (word >> i & 1) as u8
}

/// Six bits of scale and six of offset for each of eight parts, in twelve bytes.
fn scale_and_offset(b: &[u8], part: usize) -> (f32, f32) {
    let (scale, offset) = if part < 4 {
        (b[part] & 63, b[part + 4] & 63)
    } else {
        (b[part + 4] & 15 | b[part - 4] >> 6 << 4, b[part + 4] >> 4 | b[part] >> 6 << 4)
    };
    (f32::from(scale), f32::from(offset))
}

fn half(bytes: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// IEEE float16 to float32, exactly.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2.0_f32.powi(exponent - 25),
    }
}

/// float32 to IEEE float16, to the nearest, ties to even.
pub(super) fn f32_to_half(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = x.abs();
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    // Adding a power of two whose last place is that of the result rounds in hardware.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-14);
    let unit = 2.0_f32.powi(exponent - 10);
    let steps = (magnitude / unit).round_ties_even();
    let bits = if exponent == -14 && steps < 1024.0 {
        steps as u16
    } else {
        // 1024 steps too many carry into the exponent, as they should.
        (((exponent + 15) as u16) << 10) + (steps - 1024.0) as u16
    };
    sign | bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact_and_round_trip() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (1, 2.0_f32.powi(-24)),
            (0x0400, 2.0_f32.powi(-14)),
        ] {
            assert_eq!((half_to_f32(bits), f32_to_half(value)), (value, bits));
        }
        for bits in 0..0x7c00 {
            assert_eq!(f32_to_half(half_to_f32(bits)), bits);
        }
        assert_eq!(f32_to_half(1e9), 0x7c00);
        assert_eq!(f32_to_half(1.0 + 2.0_f32.powi(-11)), 0x3c00, "a tie goes to the even");
    }

    /// A block of each format written by hand: the number that each place should hold.
    #[test]
    fn blocks_give_the_numbers_that_were_put_in() {
        let one = 0x3c00_u16.to_le_bytes();
        let mut q8 = one.to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16) as u8));
        let numbers = Format::Q8_0.decode(&q8);
        assert_eq!((numbers[0], numbers[31]), (-16.0, 15.0));

        let mut q41 = [0x4000_u16.to_le_bytes(), one].concat(); // times 2, plus 1
        q41.extend((0..16).map(|i| i | (15 - i) << 4));
        let numbers = Format::Q4_1.decode(&q41);
        assert_eq!((numbers[0], numbers[15], numbers[16], numbers[31]), (1.0, 31.0, 31.0, 1.0));

        let mut q6 = vec![0_u8; 210];
        q6[208..].copy_from_slice(&one);
        q6[192..208].fill(2);
        q6[32] = 0x51; // run 1 of the first half low bits 1, run 3 low bits 5
        q6[128] = 0b1100_0000; // run 3 high bits 3
        let numbers = Format::Q6K.decode(&q6);
        assert_eq!((numbers[0], numbers[32], numbers[96]), (-64.0, 2.0 * (1.0 - 32.0), 2.0 * (53.0 - 32.0)));

        let mut q4k = vec![0_u8; 144];
        q4k[..4].copy_from_slice(&[one, one].concat());
        (q4k[4], q4k[8], q4k[16]) = (3, 5, 0x27); // part 0: scale 3, offset 5; first byte holds 7 and 2
        let numbers = Format::Q4K.decode(&q4k);
        assert_eq!((numbers[0], numbers[1], numbers[32]), (3.0 * 7.0 - 5.0, -5.0, 0.0));
    }
}
