//! Many sequences at once: dealt out among threads, started from a prompt that was read once, they get what one alone gets.

use crate::decode::{MIXED, alone, model, small, text};
use pawl_model::{DecodeOptions, Decoder, Draft, DraftSettings, Model, draft};

#[test]
fn groups_of_lanes_on_several_threads_change_no_bit() {
    let model = model(small(MIXED), 1);
    let texts: Vec<Vec<u32>> = (0..5).map(|seed| text(&model, seed)).collect();
    let want: Vec<_> = texts.iter().map(|text| alone(&model, text)).collect();
    for num_threads in [1, 2, 3] {
        let options = DecodeOptions { num_threads, max_tokens: 100, ..DecodeOptions::default() };
        let mut decoder = Decoder::new(&model, 50, options).unwrap();
        let mut at = [0; 50];
        for call in 0..24 {
            // Some sequences take several tokens, not side by side, and some logits are not wanted.
            let mut lanes = Vec::new();
            let mut read = Vec::new();
            for turn in 0..2 {
                for row in (0..50).filter(|row| turn == 0 || (row + call) % 3 == 0) {
                    let text = &texts[row % 5];
                    if at[row] < text.len() {
                        let wanted = (row + call) % 4 != 1;
                        lanes.push((row, text[at[row]], wanted));
                        if wanted {
                            read.push((row, at[row]));
                        }
                        at[row] += 1;
                    }
                }
            }
            let logits = decoder.step_wanted(&lanes).unwrap();
            for (k, (row, place)) in read.iter().enumerate() {
                assert!(
                    logits.row(k) == want[row % 5][*place],
                    "{num_threads} threads, sequence {row}, {place}"
                );
            }
        }
    }
}

#[test]
fn a_copy_goes_on_as_the_sequence_it_was_made_of() {
    let model = model(small(MIXED), 1);
    let tokens = text(&model, 1);
    let want = alone(&model, &tokens);
    let mut decoder = Decoder::new(&model, 3, DecodeOptions::default()).unwrap();
    for len in [1, 9, 30] {
        decoder.reset(1).unwrap();
        decoder.prefill(2, &tokens[..4]).unwrap();
        decoder.prefill(1, &tokens[..len]).unwrap();
        decoder.copy(1, 2).unwrap();
        assert_eq!(decoder.position(2).unwrap(), len);
        for row in [2, 1] {
            for place in len..len + 5 {
                assert!(
                    decoder.step(&[(row, tokens[place])]).unwrap().row(0) == want[place],
                    "{row}: {place}"
                );
            }
        }
        decoder.reset(2).unwrap();
    }
    assert!(decoder.copy(0, 3).is_err());
}

fn drafts(model: &Model, batch: usize, num_threads: usize, prompts: &[(u64, &[u32])]) -> Vec<Draft> {
    let options = DecodeOptions { num_threads, max_tokens: 8, ..DecodeOptions::default() };
    let mut decoder = Decoder::new(model, batch, options).unwrap();
    let settings = DraftSettings { temperature: 1.0, max_tokens: 12, end: 0, seed: 3 };
    draft(&mut decoder, prompts, settings).unwrap()
}

#[test]
fn drafts_of_one_prompt_are_what_each_alone_would_be() {
    let model = model(small(MIXED), 1);
    let tokens = text(&model, 1);
    // Prompts of several samples, of different lengths, one without room and one that leaves a token's.
    let lens = [5, 5, 5, 1, 9, 9, 37, 36, 5, 5];
    let prompts: Vec<(u64, &[u32])> =
        lens.iter().enumerate().map(|(key, len)| (key as u64, &tokens[..*len])).collect();
    let want: Vec<Draft> =
        prompts.iter().flat_map(|prompt| drafts(&model, 1, 1, std::slice::from_ref(prompt))).collect();
    assert!(want[6].tokens.is_empty() && want[7].tokens.len() == 1);
    assert!(want[0].tokens != want[1].tokens && want.iter().any(|draft| draft.tokens.len() == 12));
    for (batch, num_threads) in [(1, 1), (3, 2), (8, 1), (16, 3)] {
        assert!(drafts(&model, batch, num_threads, &prompts) == want, "{batch} rows, {num_threads} threads");
    }
}
