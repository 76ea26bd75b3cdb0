//! Rows out of documents.

use pawl_data::{Crop, Segment, best_fit};
use proptest::prelude::*;

/// The counter-based hash of the reference case, stream 6000.
fn reference_len(document: u64) -> usize {
    let mut hash =
        (document as u32).wrapping_mul(0x9E37_79B1).wrapping_add(6001_u32.wrapping_mul(0x85EB_CA77));
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x7FEB_352D);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x846C_A68B);
    hash ^= hash >> 16;
    2 + (hash % 60) as usize
}

#[test]
fn crop_packs_as_the_reference_does() {
    let lens: Vec<usize> = (0..24).map(reference_len).collect();
    assert_eq!(
        lens,
        [50, 39, 30, 43, 10, 10, 15, 47, 7, 52, 37, 39, 10, 57, 16, 19, 7, 58, 9, 7, 29, 28, 28, 35]
    );
    let expected: [&[(u64, usize)]; 12] = [
        &[(0, 50), (6, 15)],
        &[(9, 52), (4, 10), (8, 3)],
        &[(13, 57), (5, 8)],
        &[(7, 47), (14, 16), (16, 2)],
        &[(17, 58), (19, 7)],
        &[(3, 43), (15, 19), (18, 3)],
        &[(1, 39), (12, 10), (24, 4), (26, 4), (25, 2), (27, 6)],
        &[(28, 56), (30, 7), (21, 2)],
        &[(29, 52), (34, 11), (33, 2)],
        &[(35, 54), (32, 11)],
        &[(31, 52), (39, 13)],
        &[(38, 40), (22, 25)],
    ];
    let mut crop = Crop::new(65, 8, 4);
    for expected in expected {
        let row = crop.next_row(|place| (place, reference_len(place)));
        let found: Vec<(u64, usize)> = row.iter().map(|segment| (segment.document, segment.len)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn crop_looks_at_a_full_buffer_before_its_first_placement() {
    let lens = [2, 3, 9, 5, 4, 1, 1, 1, 1, 1];
    let row = Crop::new(10, 3, 1).next_row(|place| (place, lens[place as usize]));
    let found: Vec<(u64, usize)> = row.iter().map(|segment| (segment.document, segment.len)).collect();
    assert_eq!(found, [(2, 9), (0, 1)], "one document at a time is pulled until there are three");
}

fn whole((document, len): (u64, usize)) -> Segment {
    Segment { document, start: 0, len }
}

#[test]
fn best_fit_takes_the_longest_that_fits_and_carries_on_what_it_cut() {
    let documents = [(10, 4), (11, 7), (12, 12), (13, 3)].map(whole);
    let piece = |document, start, len| Segment { document, start, len };
    let expected = vec![vec![piece(11, 0, 7), piece(13, 0, 3)], vec![piece(10, 0, 4), piece(12, 0, 6)]];
    let rows = best_fit(&documents, 10);
    assert_eq!(rows, expected, "26 tokens fill two rows of ten, the last six are left out");
}

#[test]
fn best_fit_of_one_long_document_is_the_document_in_order() {
    let rows = best_fit(&[whole((0, 95))], 10);
    let starts: Vec<usize> = rows.iter().map(|row| row[0].start).collect();
    assert_eq!(starts, [0, 10, 20, 30, 40, 50, 60, 70, 80]);
}

proptest! {
    #[test]
    fn best_fit_uses_every_token_but_the_last_part_row(lens in prop::collection::vec(1_usize..90, 0..60), row_len in 1_usize..40) {
        let documents: Vec<Segment> = lens.iter().enumerate().map(|(idx, &len)| whole((idx as u64, len))).collect();
        let rows = best_fit(&documents, row_len);
        prop_assert_eq!(rows.len(), lens.iter().sum::<usize>() / row_len);
        let mut used = vec![0; lens.len()];
        for row in &rows {
            prop_assert_eq!(row.iter().map(|segment| segment.len).sum::<usize>(), row_len);
            for (place, segment) in row.iter().enumerate() {
                prop_assert_eq!(segment.start, used[segment.document as usize], "pieces of a document come in order");
                prop_assert!(place == 0 || segment.start == 0, "only the first piece of a row may be a continuation");
                used[segment.document as usize] += segment.len;
            }
        }
        prop_assert!(used.iter().zip(&lens).all(|(used, len)| used <= len));
    }
}
